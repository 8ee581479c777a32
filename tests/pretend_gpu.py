"""A pretend GPU: CPU data under a device of its own, which refuses what CUDA refuses and counts where a host waits.

PyTorch's CPU build lets a Python backend take the name of the device that is kept for private use. Its tensors hold
their numbers in CPU memory. Every operation on them goes through `PretendGPU`, which

- raises `MixedDevices`, with the operation and the line that asked for it, where CPU tensors meet those of the device;
- counts in `waits` every point at which a CUDA host would wait until the device has done all that it was given: reads
  of a value (`item`, `tolist`, `bool`), results whose shape depends on values (`nonzero`, boolean indexing), copies in
  either direction that block, or that come from memory that is not pinned and are too large to be staged, and events
  that nothing was launched after.

What is one kernel here is not one on a GPU, and nothing runs beside the host: waits are true, times are not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from library.training import loop
from library.training.runtime import environment
from library.training.runtime.distributed import Processes

NAME = "pretend"
DEVICE = torch.device("cpu")  # until `pretend_gpu` has begun for the first time

STAGED = 64 * 2**10
"""Bytes up to which CUDA takes a copy from pageable memory aside without waiting for the device."""

ROOT = Path(__file__).parent.parent
TORCH = Path(torch.__file__).parent

READS = {
    "aten::_local_scalar_dense": "a value is read",
    "aten::is_nonzero": "a value is read",
    "aten::equal": "two tensors are compared",
    "aten::nonzero": "the shape depends on values (nonzero)",
    "aten::masked_select": "the shape depends on values (masked_select)",
    "aten::_unique2": "the shape depends on values (unique)",
    "aten::unique_dim": "the shape depends on values (unique)",
}
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
"""Operations that take indices from the CPU too: they are copied, which waits."""


KERNELS = ("silu_backward",)
_KERNELS = torch.library.Library("aten", "IMPL")


class MixedDevices(RuntimeError):
    """What CUDA says as "Expected all tensors to be on the same device"."""


class PretendTensor(torch.Tensor):
    """A tensor of the device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert _running is not None, "a tensor of the pretend GPU is used outside of `pretend_gpu`"
        return _running.run(func, args, dict(kwargs or {}))

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        torch.Tensor.data.__set__(self, new)  # pyright: ignore[reportAttributeAccessIssue]
        self.held = new.held if isinstance(new, PretendTensor) else new

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        _gpu().wait("a value is read")
        return self.held.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __repr__(self, **kwargs: Any) -> str:
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"


class PretendGPU(TorchDispatchMode):
    """The device while it runs. `waits` counts (what, where), `launches` operations, `copies` those that never wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies = 0
        self.launches = 0

    def wait(self, what: str) -> None:
        self.waits[what, _asked_at()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, dict(kwargs or {}))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = _name(func)
        if name in COPIES:
            return COPIES[name](self, func, args, kwargs)
        on_device: list[PretendTensor] = []
        others: list[Tensor] = []
        held = _unwrapped(args, on_device, others)
        held_by_name = {key: _unwrapped((value,), on_device, others)[0] for key, value in kwargs.items()}
        if on_device:
            self._check(name, on_device, others)
        asked = kwargs.get("device")
        to_device = bool(on_device) if asked is None else torch.device(asked).type == NAME
        if asked is not None:
            held_by_name["device"] = "cpu"
        pin = bool(held_by_name.pop("pin_memory", False))
        made = func(*held, **held_by_name)
        if not to_device:
            return _pinned(made) if pin else made
        self.launches += 1
        return _wrapped(made, on_device)

    def _check(self, name: str, on_device: list[PretendTensor], others: list[Tensor]) -> None:
        if name in READS:
            self.wait(READS[name])
        if name in INDEXING:
            if any(tensor.dtype in (torch.bool, torch.uint8) for tensor in (*on_device[1:], *others)):
                self.wait("the shape depends on values (a boolean index)")
            if any(other.dim() for other in others):
                self.wait("indices are copied from the CPU")
            return
        for other in others:
            if other.dim():  # CUDA takes numbers, that is 0-dim tensors
                raise MixedDevices(
                    f"{name}: a CPU tensor of shape {tuple(other.shape)} meets tensors on the GPU, at {_asked_at()}"
                )

    def _pin(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        return _pinned(args[0].clone())

    def _ask_whether_pinned(self, func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        return _is_pinned(args[0])

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        source, asked = args[0], kwargs.pop("device", None)
        waits = not kwargs.pop("non_blocking", False)
        kwargs.pop("pin_memory", None)
        comes, goes = isinstance(source, PretendTensor), asked is not None and torch.device(asked).type == NAME
        goes = comes if asked is None else goes
        self._count_copy(source, comes, goes, waits)
        made = func(_held(source), **kwargs)
        return PretendTensor(made) if goes else made

    def _copied_into(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        into, source, *rest = args
        waits = not (rest[0] if rest else kwargs.get("non_blocking", False))
        if isinstance(source, Tensor):
            self._count_copy(source, isinstance(source, PretendTensor), isinstance(into, PretendTensor), waits)
        func(_held(into), _held(source))
        return into

    def _count_copy(self, source: Tensor, comes: bool, goes: bool, waits: bool) -> None:
        if comes == goes:
            self.launches += comes
        elif waits:
            self.wait("a copy from the device blocks" if comes else "a copy to the device blocks")
        elif goes and not _is_pinned(source) and source.nbytes > STAGED:
            self.wait(f"a copy to the device comes from memory that is not pinned ({source.nbytes:,} bytes)")
        else:
            self.copies += 1


COPIES: dict[str, Callable[[PretendGPU, Any, Any, dict[str, Any]], Any]] = {
    "aten::_to_copy": PretendGPU._copied,
    "aten::copy_": PretendGPU._copied_into,
    "aten::_pin_memory": PretendGPU._pin,
    "aten::is_pinned": PretendGPU._ask_whether_pinned,
}

_running: PretendGPU | None = None


def _gpu() -> PretendGPU:
    assert _running is not None
    return _running


@cache
def _name(func: Any) -> str:
    return func._schema.name


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _unwrapped(values: Any, on_device: list[PretendTensor], others: list[Tensor]) -> list[Any]:
    """The same with the CPU's tensors and device in place of ours; what was found is added to the two lists."""
    plain = []
    for value in values:
        if isinstance(value, PretendTensor):
            on_device.append(value)
            value = value.held
        elif isinstance(value, Tensor):
            others.append(value)
        elif isinstance(value, (list, tuple)):
            value = _unwrapped(value, on_device, others)
        elif isinstance(value, torch.device) and value.type == NAME:
            value = torch.device("cpu")
        plain.append(value)
    return plain


def _wrapped(made: Any, on_device: list[PretendTensor]) -> Any:
    """Results as tensors of the device; what worked in place gives back what it got."""
    if isinstance(made, Tensor):
        for tensor in on_device:
            if tensor.held is made:
                return tensor
        return PretendTensor(made)
    if isinstance(made, (list, tuple)):
        return type(made)(_wrapped(part, on_device) for part in made)
    return made


def _never_called(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("an operation of the pretend GPU went past it")


def _pinned(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().is_pretended_pinned = True  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "is_pretended_pinned", False)


def _asked_at() -> str:
    """The innermost line of this project, or of a package that is not torch, that led to an operation."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file != Path(__file__) and TORCH not in file.parents and file.exists():
            known = file.relative_to(ROOT) if file.is_relative_to(ROOT) else Path(*file.parts[-2:])
            return f"{known}:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd"


class _Event:
    """Done as soon as the device has done what was launched before `record`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._launched = -1

    def record(self, *args: Any) -> None:
        self._launched = _gpu().launches

    def synchronize(self) -> None:
        if _gpu().launches == self._launched:
            _gpu().wait("an event that nothing was launched after")


class _Backend(ModuleType):
    """What torch asks of a device's module."""

    Event = _Event

    def is_available(self) -> bool:
        return _running is not None

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None: ...

    def manual_seed_all(self, seed: int) -> None: ...

    def get_rng_state(self, device: Any = 0) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = 0) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def empty_cache(self) -> None: ...

    def synchronize(self, device: Any = None) -> None:
        _gpu().wait("the host synchronises")

    def max_memory_allocated(self, device: Any = None) -> int:
        return 0

    def reset_peak_memory_stats(self, device: Any = None) -> None: ...

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return 20 * 2**30, 24 * 2**30

    def get_device_name(self, device: Any = None) -> str:
        return "a pretend GPU"

    def get_device_properties(self, device: Any = None) -> Any:
        return SimpleNamespace(total_memory=24 * 2**30, name="a pretend GPU")

    class device:
        """`with torch.pretend.device(...)`."""

        def __init__(self, device: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *error: Any) -> None: ...


class Steps(list[Counter[tuple[str, str]]]):
    """What the host waited for in each step of a run, and from it to the next one."""

    @property
    def settled(self) -> Counter[tuple[str, str]]:
        """The most of any step but the first two, in which optimizers make what they keep, and the last, which ends a
        run."""
        most: Counter[tuple[str, str]] = Counter()
        for waits in self[2:-1]:
            most |= waits
        return most


@contextmanager
def trained_on_gpu() -> Iterator[Steps]:
    """Trainings inside compute on the pretend GPU; gives the waits of each of their steps."""
    steps, seen, take_step = Steps(), Counter[tuple[str, str]](), loop.take_step

    def counted(*args: Any) -> Any:
        end_step()
        steps.append(Counter())
        return take_step(*args)

    def end_step() -> None:
        if steps:
            steps[-1] += gpu.waits - seen
        seen.update(gpu.waits - seen)

    with pretend_gpu() as gpu, pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "start_processes", lambda timeout=None: Processes(device=DEVICE))
        patch.setattr(loop, "take_step", counted)
        yield steps
        end_step()


@contextmanager
def pretend_gpu() -> Iterator[PretendGPU]:
    """The device, there inside the block."""
    global _running, DEVICE
    if DEVICE.type == "cpu":
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend(NAME))
        DEVICE = torch.device(NAME, 0)
        # What a GPU has a kernel for, and torch would put together of others for a device that it does not know.
        for name in KERNELS:
            _KERNELS.impl(name, _never_called, "PrivateUse1")
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    # A module's parameters cannot be put into place by `.data`, as between CPU and CUDA; they can be swapped.
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(numbers, device=...) is a copy like any other
    try:
        # The backward pass has a thread for each device that was there when the process first went backward.
        with torch.autograd.set_multithreading_enabled(False), PretendGPU() as _running:
            yield _running
    finally:
        _running = None
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_swap_module_params_on_conversion(swaps)
