"""How AC-LoRA learns the loss, the epochs and the steps in a trainer that tells it nothing, such as kohya's.

From what such trainers do anyway, the least intrusive first: their calls of the network's own hooks; torch's public
hook after an optimizer's step; a listener on `accelerate.Accelerator.backward`; a listener on kohya's
`LossRecorder.add`; and one look at the training function's local variables for the number of epochs.

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

logger = logging.getLogger(__name__)

_observers: weakref.WeakSet[Observer] = weakref.WeakSet()  # who is told by the listeners below


class ObservedProgress(NamedTuple):
    """How the run stands, as `on_progress` takes it."""

    epochs_done: int
    total_epochs: int
    global_step: int
    total_steps: int
    loss_sum: float
    relative_mse_sum: float
    count: int


class Observer:
    """Watches a trainer for `network`, and tells it how training stands after each epoch, or as often as it asks."""

    def __init__(self, network: Any) -> None:
        self._network = weakref.ref(network)
        self._is_listening = False
        self._step_hook: Any = None
        self._epoch_has_ended = False
        self._has_said_how = False
        self.heard: set[str] = set()
        self.epoch: Optional[int] = None  # 0-based, where the trainer lets it be seen
        self.num_epochs: Optional[int] = None
        self.epochs_started = 0
        self.optimizer_steps = 0
        self._told_at = 0
        self.micro_batches = 0
        self.loss_sum = 0.0
        self.count = 0
        self._fresh_sum: Any = 0.0  # on the device: nothing waits for it within an epoch
        self._fresh_count = 0

    @property
    def network(self) -> Any:
        return self._network()

    # --- the trainer's hooks

    def epoch_starts(self) -> None:
        if not self._is_listening:
            self._listen()
        self.epochs_started += 1
        self._look_at_the_trainer()
        is_first = self.epochs_started == 1
        if is_first and self.num_epochs and self.total_steps():
            for line in self.network.announce(self.num_epochs, self.total_steps(), observed=True):
                logger.info(line)
        self._epoch_has_ended = not is_first
        if self._epoch_has_ended and self.micro_batches == 0 and "backward" in self.heard:
            self._tell()  # a trainer that does not call on_step_start

    def step_starts(self) -> None:
        every = self.network.options.every_n_steps
        steps_are_due = every and self.optimizer_steps > self._told_at and self.optimizer_steps % every == 0
        if self._epoch_has_ended or steps_are_due:
            self._tell()
        self.micro_batches += 1
        if self.micro_batches == 3 and self.network.options.needs_loss and not self.heard & LOSSES:
            raise RuntimeError(
                "AC-LoRA's threshold follows the training loss, and no way to observe it works in this trainer (no "
                "call of accelerate's backward() was seen): set ac_p to a number, such as 0.9, which needs no loss"
            )

    def saved(self) -> None:
        """A file was written. If it is the last one: say what was done, or fail if nothing was."""
        is_foreign = bool(self.heard & {"backward", "locals"})
        if is_foreign and self.optimizer_steps >= (self.total_steps() or math.inf):
            for line in self.network.findings():
                logger.info(line)
            self.network.conclude()

    # --- the facts

    def total_epochs(self) -> Optional[int]:
        asked = getattr(self.network.trainer_options, "max_train_epochs", None)
        if self.num_epochs or asked:
            return int(self.num_epochs or asked or 0)
        steps = self.total_steps()
        if steps and self.epochs_started > 1:
            return math.ceil(steps * (self.epochs_started - 1) / max(self.optimizer_steps, 1))
        return None

    def total_steps(self) -> Optional[int]:
        steps = getattr(self.network.trainer_options, "max_train_steps", None)
        return int(steps) if steps else None

    def _tell(self) -> None:
        self._epoch_has_ended = False
        self._told_at = self.optimizer_steps
        self.micro_batches = 0
        self.collect()
        sums = self._over_all_processes(self.loss_sum, self.count)
        self.loss_sum, self.count = 0.0, 0
        done = self.epochs_started - 1 if self.epoch is None else self.epoch
        total = self.total_epochs()
        if total is None and (self.network.options.needs_loss or self.network.options.every_n_epochs is None):
            raise RuntimeError(
                "AC-LoRA cannot see how long this run is: set max_train_epochs, or ac_p and ac_every_n_*"
            )
        total = max(total or 0, done + 1)  # an epoch is beginning
        steps = max(self.total_steps() or 0, self.optimizer_steps + 1)
        facts = ObservedProgress(done, total, self.optimizer_steps, steps, sums[0], sums[0], int(sums[1]))
        if not self._has_said_how:
            self._has_said_how = True
            logger.info(f"AC-LoRA observes this trainer: {', '.join(WAYS[way] for way in WAYS if way in self.heard)}")
        event = self.network.progressed(facts)
        if event:
            logger.info(
                f"AC-LoRA RESTART {event['restart']} after epoch {event['epoch']}: p {event['p']:.3f}, "
                f"mean rank {event['mean_rank']:.1f}, kept energy {event['kept_energy']:.3f}"
            )

    def collect(self) -> None:
        """Read back what has been added up on the device."""
        self.loss_sum += float(self._fresh_sum)
        self.count += self._fresh_count
        self._fresh_sum, self._fresh_count = 0.0, 0

    def _over_all_processes(self, loss_sum: float, count: int) -> list[float]:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return [loss_sum, count]
        device = next(self.network.parameters()).device
        sums = torch.tensor([loss_sum, count], dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return sums.tolist()

    def state(self) -> dict[str, Any]:
        names = ("epochs_started", "optimizer_steps", "loss_sum", "count")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    # --- listening

    def _listen(self) -> None:
        self._is_listening = True
        _observers.add(self)
        self._step_hook = register_optimizer_step_post_hook(_to_observer(self, "step_taken"))
        accelerate: Any = sys.modules.get("accelerate")
        if accelerate is not None:
            _listen_to(accelerate.Accelerator, "backward", "loss_arrived")
        kohya: Any = sys.modules.get("library.train_util")  # never imported: another project's `library` may be meant
        if hasattr(kohya, "LossRecorder"):
            _listen_to(kohya.LossRecorder, "add", "loss_recorded")

    def stop(self) -> None:
        _observers.discard(self)
        if self._step_hook is not None:
            self._step_hook.remove()
            self._step_hook = None

    def step_taken(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        own = {id(parameter) for parameter in self.network.parameters()}
        first = next((p for group in optimizer.param_groups for p in group["params"]), None)
        if id(first) in own:
            self.heard.add("step")
            self.optimizer_steps += 1

    def loss_arrived(self, accelerator: Any, loss: torch.Tensor, **_: Any) -> None:
        self.heard.add("backward")
        self._add(loss.detach())

    def loss_recorded(self, recorder: Any, *, epoch: int, step: int, loss: float) -> None:
        self.heard.add("recorder")
        if "backward" not in self.heard:
            self._add(loss)

    def _add(self, loss: Any) -> None:
        if self.network.training:  # not in validation
            self._fresh_sum = self._fresh_sum + loss
            self._fresh_count += 1

    def _look_at_the_trainer(self) -> None:
        """The number of epochs and the number of this one, from the function that called the hook."""
        frame: Any = sys._getframe(2)
        for _ in range(4):
            frame = frame and frame.f_back
            if frame is not None and isinstance(frame.f_locals.get("num_train_epochs"), int):
                self.num_epochs = frame.f_locals["num_train_epochs"]
                epoch = frame.f_locals.get("epoch")
                self.epoch = epoch if isinstance(epoch, int) else None
                self.heard.add("locals")
                return


LOSSES = {"backward", "recorder"}
WAYS = {
    "backward": "the loss from accelerate's backward()",
    "recorder": "the loss recorder",
    "step": "steps from the optimizer's hook",
    "locals": "epochs from the training function",
}


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
