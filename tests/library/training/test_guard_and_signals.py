"""Steps that must be left out, and signals that wait for the end of one."""

import math
import os
import signal

import pytest

from library.errors import Interrupted
from library.training.nan_guard import LIMIT, BadStep, Guard, TooManyBadSteps
from library.training.signals import Signals


def _step(loss: float, norm: float = 1.0) -> BadStep:
    return BadStep(7, loss, norm, ("a.png", "b.png"), (12, 999))


def test_a_finite_step_is_kept_and_a_bad_one_is_named_with_its_files_and_timesteps():
    guard = Guard()
    assert guard.judge(_step(0.5)) is None
    bad = guard.judge(_step(math.nan))
    assert bad is not None
    assert "step 7" in str(bad)
    assert "a.png, b.png" in str(bad)
    assert "12, 999" in str(bad)


def test_five_bad_steps_in_a_row_end_the_run_and_a_good_one_between_them_does_not():
    guard = Guard()
    for loss in [math.nan] * (LIMIT - 1) + [0.5] + [math.inf] * (LIMIT - 1):
        guard.check(guard.judge(_step(loss)))
    with pytest.raises(TooManyBadSteps, match="5 steps in a row"):
        guard.check(guard.judge(_step(0.5, math.nan)))
    assert guard.skipped == 2 * LIMIT - 1


def test_an_overflow_of_scaled_gradients_is_how_the_scale_is_found_and_is_not_counted():
    guard = Guard(scaled=True)
    assert guard.judge(_step(0.5, math.inf)) is None
    assert guard.judge(_step(math.nan, math.inf)) is not None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_step_waits_for_its_end_and_gives_the_shell_exit_code(number, code):
    finished = []

    def step(signals):
        with signals.deferred():
            os.kill(os.getpid(), number)
            finished.append(True)

    with Signals() as signals, pytest.raises(Interrupted) as stop:
        step(signals)
    assert finished
    assert stop.value.exit_code == code


def test_a_signal_between_steps_stops_at_once_and_a_second_one_cannot_tear_a_step():
    with Signals() as signals, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)
    reached = []

    def step(signals):
        with signals.deferred():
            for which in ("first", "second"):
                os.kill(os.getpid(), signal.SIGINT)
                reached.append(which)

    with Signals() as signals, pytest.raises(Interrupted):
        step(signals)
    assert reached == ["first", "second"]


def test_what_must_be_finished_is_finished():
    with Signals() as signals:
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.arrived == signal.SIGTERM


def test_processes_that_share_a_run_stop_only_when_all_have_heard():
    with Signals(shared=True) as signals:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.arrived == signal.SIGTERM
        with pytest.raises(Interrupted) as stop, signals.deferred():
            signals.stop_all()
        assert stop.value.exit_code == 143
    with Signals(shared=True) as other, pytest.raises(Interrupted), other.deferred():
        other.stop_all()


def test_the_handlers_of_before_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) is before
