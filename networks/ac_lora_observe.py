"""How AC-LoRA learns the loss, the epochs and the steps in a trainer that tells it nothing, such as kohya's.

From what such trainers do anyway, the least intrusive first: their calls of the network's own hooks; torch's public
hook after an optimizer's step; a listener on `accelerate.Accelerator.backward`; a listener on `add` of the
`LossRecorder` that kohya's trainers have; and one look at an epoch's start for its number and the length of the run
(`ac_lora_finders.py`). What was found is one line of the log, what is missing one sentence with the setting that helps.

A trainer that calls `on_progress` is never observed: a RESTART waits for the first step of the next epoch, and by then
such a trainer has called it.
"""

from __future__ import annotations

import functools
import logging
import math
import sys
import weakref
from typing import Any, Callable, NamedTuple, Optional

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from networks.ac_lora_finders import EPOCH, TOTAL_EPOCHS, TOTAL_STEPS, Found, TrainerView, first_found, view_from

logger = logging.getLogger(__name__)

_observers: weakref.WeakSet[Observer] = weakref.WeakSet()  # who is told by the listeners below


class ObservedProgress(NamedTuple):
    """How far the run is, as `on_progress` takes it."""

    epochs_done: int
    total_epochs: int
    global_step: int
    total_steps: int
    loss_sum: float
    relative_mse_sum: float
    count: int


def over_all_processes(loss_sum: float, count: int, device: torch.device) -> list[float]:
    """Both numbers, summed over the processes of a distributed run."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return [loss_sum, count]
    sums = torch.tensor([loss_sum, count], dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


class Observer:
    """Watches a trainer for `network`, and tells it how far training is after each epoch, or as often as it asks."""

    def __init__(self, network: Any) -> None:
        self._network = weakref.ref(network)
        self._is_listening = False
        self._step_hook: Any = None
        self._epoch_has_ended = False
        self._has_said_how = False
        self._own: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()  # optimizers: is it ours?
        self.heard: set[str] = set()
        self.epoch: Optional[Found] = None  # 0-based, where the trainer lets it be seen
        self.num_epochs: Optional[Found] = None
        self.num_steps: Optional[Found] = None
        self._last_shown: Optional[int] = None
        self._epochs_mislead = False
        self.epochs_started = 0
        self.steps_of_hook = 0
        self.steps_of_sync = 0
        self._told_at = 0
        self.micro_batches = 0
        self.loss_sum = 0.0
        self.count = 0
        self._fresh_sum: Any = 0.0  # on the device: nothing waits for it within an epoch
        self._fresh_count = 0

    @property
    def network(self) -> Any:
        return self._network()

    @property
    def optimizer_steps(self) -> int:
        """From the optimizer's hook; where that is not called (DeepSpeed), from accelerate's syncs of gradients."""
        return self.steps_of_hook if "step" in self.heard or not self.steps_of_sync else self.steps_of_sync

    # --- the trainer's hooks

    def epoch_starts(self, frame: Any = None) -> None:
        """`frame` is that of the function that called the network's hook."""
        is_first = not self._is_listening
        if is_first:
            self._listen()
        self.epochs_started += 1
        self._look_at_the_trainer(view_from(frame, self.network.trainer_options))
        if is_first and self.num_epochs and self.num_steps:
            for line in self.network.announce(self.num_epochs.value, self.num_steps.value, observed=True):
                logger.info(line)
        self._epoch_has_ended = self.epochs_started > 1
        if self._epoch_has_ended and self.micro_batches == 0 and "backward" in self.heard:
            self._tell()  # a trainer that does not call on_step_start

    def step_starts(self) -> None:
        every = self.network.options.every_n_steps
        steps_are_due = every and self.optimizer_steps > self._told_at and self.optimizer_steps % every == 0
        if self._epoch_has_ended or steps_are_due:
            self._tell()
        self.micro_batches += 1
        if self.micro_batches == 3:
            self._refuse_what_cannot_be_seen()

    def saved(self) -> None:
        """A file was written. If it is the last one: say what was done, or fail if nothing was."""
        is_foreign = bool(self.heard & {"backward", "recorder", "step"})
        if is_foreign and self.optimizer_steps >= (self.total_steps() or math.inf):
            for line in self.network.findings():
                logger.info(line)
            self.network.conclude()

    # --- the facts

    def total_epochs(self) -> Optional[int]:
        if self.num_epochs:
            return self.num_epochs.value
        steps = self.total_steps()
        if steps and self.epochs_started > 1:
            return math.ceil(steps * (self.epochs_started - 1) / max(self.optimizer_steps, 1))
        return None

    def total_steps(self) -> Optional[int]:
        steps = getattr(self.network.trainer_options, "max_train_steps", None)
        return int(steps) if steps else self.num_steps and self.num_steps.value

    def _needs_length(self) -> bool:
        options = self.network.options
        is_automatic = options.every_n_epochs is None and not options.every_n_steps
        return not options.is_off and (options.needs_loss or is_automatic)

    def _refuse_what_cannot_be_seen(self) -> None:
        """RuntimeError at the third batch, and not after an epoch, if what the options need is nowhere to be seen."""
        if self.network.options.needs_loss and not self.heard & LOSSES:
            raise RuntimeError(
                "AC-LoRA's threshold follows the training loss, and no way to observe it works in this trainer (no "
                "call of accelerate's backward() was seen): set ac_p to a number, such as 0.9, which needs no loss"
            )
        if self._needs_length() and not self.num_epochs and not self.total_steps():
            raise RuntimeError(TOO_LITTLE)

    def _tell(self) -> None:
        self._epoch_has_ended = False
        self._told_at = self.optimizer_steps
        self.micro_batches = 0
        self.collect()
        sums = self._over_all_processes(self.loss_sum, self.count)
        self.loss_sum, self.count = 0.0, 0
        done = self.epochs_started - 1 if self.epoch is None else self.epoch.value
        total = self.total_epochs()
        if total is None and self._needs_length():
            raise RuntimeError(TOO_LITTLE)
        total = max(total or 0, done + 1)  # an epoch is beginning
        steps = max(self.total_steps() or 0, self.optimizer_steps + 1)
        facts = ObservedProgress(done, total, self.optimizer_steps, steps, sums[0], sums[0], int(sums[1]))
        if not self._has_said_how:
            self._has_said_how = True
            for line in self.ways():
                logger.info(line)
        event = self.network.progressed(facts)
        if event:
            logger.info(
                f"AC-LoRA RESTART {event['restart']} after epoch {event['epoch']}: p {event['p']:.3f}, "
                f"mean rank {event['mean_rank']:.1f}, kept energy {event['kept_energy']:.3f}"
            )

    def ways(self) -> list[str]:
        """One line on what was found and where; one sentence each on what is missing and what to set."""
        found = [way for name, way in WAYS.items() if name in self.heard]
        found += [fact.way for fact in (self.num_epochs, self.epoch) if fact]
        lines = [f"AC-LoRA observes this trainer: {', '.join(found) or 'only the calls of its own hooks'}"]
        if not self.num_epochs and self.total_steps() and self._needs_length():
            lines.append(
                "AC-LoRA sees no number of epochs in this trainer and estimates it from max_train_steps: set "
                "max_train_epochs to give it"
            )
        if self.network.options.needs_loss and self.network.options.loss == "fvu":
            lines.append(
                "AC-LoRA sees this trainer's loss and not the size of its targets, so ac_loss=fvu is as raw: set ac_p "
                "to a number (0.9, say) where the loss is about 1 or more"
            )
        if not self.total_steps():
            lines.append(
                "AC-LoRA sees no number of steps in this trainer, so the end of the run may come unseen: set "
                "max_train_steps or max_train_epochs"
            )
        if "step" not in self.heard and not self.steps_of_sync:
            lines.append(
                "AC-LoRA sees no step of the optimizer in this trainer: count RESTARTs in epochs (ac_every_n_epochs), "
                "not in steps"
            )
        return lines

    def collect(self) -> None:
        """Read back what has been added up on the device."""
        self.loss_sum += float(self._fresh_sum)
        self.count += self._fresh_count
        self._fresh_sum, self._fresh_count = 0.0, 0

    def _over_all_processes(self, loss_sum: float, count: int) -> list[float]:
        return over_all_processes(loss_sum, count, next(self.network.parameters()).device)

    def state(self) -> dict[str, Any]:
        names = ("epochs_started", "optimizer_steps", "loss_sum", "count")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name == "optimizer_steps":
                self.steps_of_hook = self.steps_of_sync = value
            else:
                setattr(self, name, value)

    # --- listening

    def _listen(self) -> None:
        self._is_listening = True
        _observers.add(self)
        self._step_hook = register_optimizer_step_post_hook(_to_observer(self, "step_taken"))
        accelerate: Any = sys.modules.get("accelerate")
        if accelerate is not None:
            _listen_to(accelerate.Accelerator, "backward", "loss_arrived")
        for recorder in loss_recorders():
            _listen_to(recorder, "add", "loss_recorded")

    def stop(self) -> None:
        _observers.discard(self)
        if self._step_hook is not None:
            self._step_hook.remove()
            self._step_hook = None

    def step_taken(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        is_own = self._own.get(optimizer)
        if is_own is None:
            own = {id(parameter) for parameter in self.network.parameters()}
            is_own = any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])
            self._own[optimizer] = is_own
        if is_own:
            self.heard.add("step")
            self.steps_of_hook += 1
            if self.steps_of_hook == 2 and self.micro_batches == 0:
                self._refuse_what_cannot_be_seen()  # a trainer that does not call on_step_start

    def loss_arrived(self, accelerator: Any, loss: torch.Tensor, **_: Any) -> None:
        self.heard.add("backward")
        if getattr(accelerator, "sync_gradients", False):
            self.steps_of_sync += 1
        self._add(loss.detach())

    def loss_recorded(self, recorder: Any, *arguments: Any, **named: Any) -> None:
        """Of kohya's `add(epoch=, step=, loss=)`."""
        self.heard.add("recorder")
        if "backward" not in self.heard:
            self._add(named.get("loss", arguments[-1] if arguments else 0.0))

    def _add(self, loss: Any) -> None:
        if self.network.training:  # not in validation
            self._fresh_sum = self._fresh_sum + loss
            self._fresh_count += 1

    def _look_at_the_trainer(self, view: TrainerView) -> None:
        """The length of the run, and the number of this epoch where it goes up by one with each that starts."""
        self.num_epochs = first_found(TOTAL_EPOCHS, view)
        self.num_steps = first_found(TOTAL_STEPS, view)
        seen = first_found(EPOCH, view)
        if seen and self._last_shown is not None and seen.value != self._last_shown + 1:
            self._epochs_mislead = True
        self._last_shown = seen.value if seen else None
        self.epoch = None if self._epochs_mislead else seen


LOSSES = {"backward", "recorder"}
WAYS = {
    "backward": "the loss from accelerate's backward()",
    "recorder": "the loss recorder",
    "step": "steps from the optimizer's hook",
}
TOO_LITTLE = "AC-LoRA cannot see how long this run is: set max_train_epochs, or ac_p and ac_every_n_*"


def loss_recorders() -> list[type]:
    """The classes `LossRecorder` of kohya's trainers, wherever they lie; nothing is imported for it."""
    found: list[type] = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("library", "musubi_tuner", "utils", "train_util", "sd_scripts", "__main__"):
            recorder = vars(module).get("LossRecorder") if module is not None else None
            if isinstance(recorder, type) and hasattr(recorder, "add") and recorder not in found:
                found.append(recorder)
    return found


def _to_observer(observer: Observer, method: str) -> Callable:
    """A call of an observer's method that does not keep the observer alive."""
    reference = weakref.ref(observer)

    def call(*args: Any, **kwargs: Any) -> None:
        alive = reference()
        if alive is not None and alive.network is not None:
            getattr(alive, method)(*args, **kwargs)

    return call


def _listen_to(owner: type, function: str, method: str) -> None:
    """Have every observer's `method` called with what `owner.function` is called with; once for all time."""
    original = getattr(owner, function)
    if getattr(original, "_ac_lora_listens", False):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for observer in list(_observers):
            if observer.network is not None:
                getattr(observer, method)(*args, **kwargs)
        return original(*args, **kwargs)

    wrapped._ac_lora_listens = True  # type: ignore[attr-defined]
    setattr(owner, function, wrapped)
