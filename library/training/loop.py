"""The order of events of every training, and nothing else."""

from __future__ import annotations

from library.training.run import Run
from library.training.step import read_the_rest, take_step
from library.training.summary import conclude, finish


def fit(run: Run) -> None:
    """Train until the clock has run out.

    Raises `Interrupted` after a signal and `TooManyBadSteps` when the loss stays non-finite. Whatever ends a run early,
    a state of the last whole step is on disk by then. Raises `UserError` when the training moved nothing.
    """
    run.checkpoints.restore(run)
    end_if_seen_enough(run)
    run.journal.begin(run.clock)
    run.checkpoints.note_changes(run)
    announce(run)
    run.report.begin(run)
    run.train(True)
    try:
        run.previews.draw_first(run)
        run.report.renew()
        for epoch in run.clock.epochs():
            for trainable in run.trainables:
                trainable.epoch_starts()
            for micro_batches in run.batches.epoch(epoch, start=run.clock.step_in_epoch):
                with run.signals.deferred():
                    tell_progress(run)
                    measured = take_step(run, micro_batches)
                    run.clock.tick()
                    run.journal.record(measured)
                    if any(part.due(run.clock) for part in (run.validation, run.checkpoints, run.previews)):
                        run.journal.record(read_the_rest(run))
                    run.checkpoints.review(run)
                    run.guard.check(run.journal.last_bad_step)
                    if run.validation.measure_if_due(run):
                        keep_if_best(run)
                        end_if_seen_enough(run)
                    run.checkpoints.write_if_due(run)  # file, then state, then pruning
                    run.previews.draw_if_due(run)
                    run.report.write_if_due(run)
                if run.clock.finished:
                    break
    except Exception as stop:
        with run.signals.held():
            run.checkpoints.write_at_stop(run, stop)
            run.report.write(run)
        raise
    with run.signals.held():
        run.journal.record(read_the_rest(run))
        run.checkpoints.write_last(run)
        run.previews.compare(run)
        ending = finish(run)
        run.report.write(run)
        conclude(run, ending)


def keep_if_best(run: Run) -> None:
    """Save the weights that the held-out loss was never lower with."""
    if run.validation.keeps_best and run.validation.course.is_lowest_now:
        run.checkpoints.write_best(run)


def end_if_seen_enough(run: Run) -> None:
    """Let a run end here that no longer learns what holds for pictures it has not seen, where that is asked for."""
    if run.validation.has_seen_enough and not run.clock.finished:
        run.journal.event("early stop", run.clock, best_step=run.validation.course.step)
        run.journal.say(run.validation.why_enough(run.clock))
        run.clock.end_here()


def announce(run: Run) -> None:
    """Say what the trainables expect of a run of this length."""
    for trainable in run.trainables:
        for line in trainable.announce(run.clock.total_epochs, run.clock.total_steps):
            run.journal.say(line)


def tell_progress(run: Run) -> None:
    """Tell the trainables how far the run is: after each epoch, and oftener where one asks for it."""
    due = [t for t in run.trainables if run.clock.progress_is_due(t.progress_every_n_steps)]
    begins = run.clock.global_step == run.journal.first_step and run.journal.resumed_from is None
    if due and not begins:  # a run that begins at a later step (`initial_step`) has nothing to tell yet
        run.journal.record(read_the_rest(run))
        for trainable in due:
            event = trainable.on_progress(run.journal.progress(trainable, run.clock, run.optimizers.optimizer))
            if event is not None:
                run.averages.begin_again(trainable)
                run.journal.happened(event, run.clock)
