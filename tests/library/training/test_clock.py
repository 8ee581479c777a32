"""When things are due, for any position of any run."""

from hypothesis import given
from hypothesis import strategies as st

from library.training.clock import Clock, Epochs, Steps, total_steps


def _run(clock: Clock):
    while not clock.finished:
        clock.tick()
        yield clock


def test_epochs_are_counted_at_their_end_and_a_cut_off_one_at_the_end_of_the_run():
    seen = [(c.global_step, c.epochs_done, c.epoch_ended) for c in _run(Clock(steps_per_epoch=3, total_steps=7))]
    assert seen == [
        (1, 0, False),
        (2, 0, False),
        (3, 1, True),
        (4, 1, False),
        (5, 1, False),
        (6, 2, True),
        (7, 3, True),
    ]


def test_the_epochs_to_run_begin_with_the_one_that_was_broken_off():
    clock = Clock(steps_per_epoch=3, total_steps=7, global_step=4)
    begun = []
    for epoch in clock.epochs():
        begun.append((epoch, clock.step_in_epoch))
        while True:
            clock.tick()
            if clock.epoch_ended:
                break
    assert begun == [(2, 1), (3, 0)]


def test_epochs_win_over_steps_and_without_either_a_run_has_1600_steps():
    assert total_steps(7, 100, 3) == 21
    assert total_steps(7, 100, None) == 100
    assert total_steps(7, None, None) == 1600


@given(spe=st.integers(1, 9), total=st.integers(1, 40), every=st.integers(1, 12))
def test_an_interval_of_steps_is_due_at_its_multiples_alone(spe, total, every):
    due = [c.global_step for c in _run(Clock(spe, total)) if c.is_due(Steps(every))]
    assert due == list(range(every, total + 1, every))


@given(spe=st.integers(1, 9), epochs=st.integers(1, 12), every=st.integers(1, 5))
def test_an_interval_of_epochs_is_due_at_the_last_step_of_each(spe, epochs, every):
    due = [c.global_step for c in _run(Clock(spe, spe * epochs)) if c.is_due(Epochs(every))]
    assert due == [spe * epoch for epoch in range(every, epochs + 1, every)]


@given(spe=st.integers(1, 9), total=st.integers(1, 40), every=st.none() | st.integers(1, 7))
def test_progress_is_reported_after_every_epoch_but_never_before_the_first_step_or_after_the_last(spe, total, every):
    clock = Clock(spe, total)
    told = [clock.global_step] if clock.progress_is_due(every) else []
    told += [c.global_step for c in _run(clock) if c.progress_is_due(every)]
    expected = [s for s in range(1, total) if s % spe == 0 or (every and s % every == 0)]
    assert told == expected
