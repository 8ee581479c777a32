"""A whole module of a model as a trainable: a U-Net, or any other network of which all weights are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.errors import UserError
from library.files import save_network, write_tensors
from library.findings import Findings
from library.training.trainables import Movement, Trainable


class ModuleTrainable(Trainable):
    """All parameters of `module`, in one optimizer group called `name`; its file holds them under their own names.

    The weights are trained in float32, whatever the forward pass is computed in, and saved in `save_dtype`.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        learning_rate: float,
        *,
        kind: str,
        file_label: str = "",
        save_dtype: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.file_label = file_label
        self.group_names = [name]
        self.module = nn.Module.float(module).requires_grad_(True)  # diffusers' own warns of layers kept in float32
        self._save_dtype = save_dtype
        self._groups = [{"params": list(module.parameters()), "lr": learning_rate}]
        self._movement = Movement(dict(module.named_parameters()))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self._groups

    def train(self, training: bool) -> None:
        self.module.train(training)

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        return state | {f"start.{name}": tensor for name, tensor in self._movement.start.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = {name.removeprefix("module."): t for name, t in state.items() if name.startswith("module.")}
        missing, unexpected = self.module.load_state_dict(own, strict=False)
        if missing or unexpected:
            name = (list(missing) + list(unexpected))[0]
            raise UserError(f"the state's {self.name} does not fit this one: {name} is only in one of them")
        self._movement.start = {n.removeprefix("start."): t for n, t in state.items() if n.startswith("start.")}

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        save_network(self, path, self._save_dtype, metadata)

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
        """The module's tensors alone, under its own names."""
        tensors = {name: tensor.detach().to("cpu", dtype) for name, tensor in self.module.state_dict().items()}
        write_tensors(file, tensors, metadata)

    def findings(self) -> Findings:
        moved, change = self._movement.measure()
        return Findings(moved=moved, tensors=len(self._movement.start), change=change)
