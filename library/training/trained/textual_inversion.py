"""A new word's vectors as a trainable: a few rows in float32, and nothing else of the text encoders.

Clipping, optimizer state and weight decay see these rows only. After every step the log has each vector's norm, as a
multiple of its start's, and its cosine to the start: how far it has gone, and whether it only grew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from library.errors import UserError
from library.files import is_finite
from library.findings import Findings, Series
from library.models.embedding_files import Embedding, bundle_keys, embedding_of, write_embedding
from library.training.trainables import Trainable
from library.training.trained.initializers import EncoderContext
from library.training.trained.network_trainable import NetworkTrainable

MOST_POINTS = 1000
"""Points of the curves that are kept; a longer run keeps every second, fourth, ... step."""


class EmbeddingRows(Trainable):
    """The vectors of one token string in every text encoder.

    `contexts` and `starts`: for each encoder what its initializer sees, and the vectors (n, width) that it gave.
    `described` are entries for the file's header.
    """

    name = "embedding"
    kind = "textual-inversion"
    group_names = ("embedding",)

    def __init__(
        self,
        initializer: Any,
        contexts: Sequence[EncoderContext],
        starts: Sequence[Tensor],
        learning_rate: float,
        device: torch.device,
        *,
        save_dtype: torch.dtype | None = None,
        described: Mapping[str, str] | None = None,
    ) -> None:
        self._initializer, self._contexts = initializer, contexts
        self._placeholders = contexts[0].placeholders
        self._save_dtype = save_dtype
        self._described = dict(described or {})
        self.rows = [nn.Parameter(start.to(device, torch.float32, copy=True)) for start in starts]
        for context, start, rows in zip(contexts, starts, self.rows, strict=True):
            context.start = start.to(device, torch.float32, copy=True)
            self._placeholders.rows[context.index].rows = rows
        self.learning_rate = learning_rate
        self._groups = [{"params": self.rows, "lr": learning_rate}]
        self._steps, self._stride = 0, 1
        self._history: list[Tensor] = []  # each (vectors of all encoders, 2): norm ratio and cosine
        self._pull: Tensor | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self._groups

    def announce(self, total_epochs: int, total_steps: int) -> list[str]:
        last = total_steps if self.stop_step is None else min(self.stop_step, total_steps)
        sizes = [context.start.square().mean().sqrt() for context in self._contexts if context.start is not None]
        note = travel_note(self.learning_rate, max(0, last - self.start_step), float(torch.stack(sizes).mean()))
        return [note] if note else []

    def penalty(self) -> Tensor | None:
        """The initializer's regularisation, summed over the text encoders."""
        if not hasattr(self._initializer, "regularization"):
            return None
        pairs = zip(self._contexts, self.rows, strict=True)
        terms = [self._initializer.regularization(context, rows) for context, rows in pairs]
        terms = [term for term in terms if term is not None]
        return torch.stack(terms).sum() if terms else None

    def gradients_ready(self) -> None:
        """Measure the penalty's share: the norm of its gradient over that of the rest (exact where none is clipped)."""
        penalty = self.penalty()
        if penalty is None or any(rows.grad is None for rows in self.rows):
            self._pull = None
            return
        pulls = torch.autograd.grad(penalty, self.rows, allow_unused=True)
        pull = torch.cat([_flat(p, rows) for p, rows in zip(pulls, self.rows, strict=True)])
        whole = torch.cat([_flat(rows.grad, rows) for rows in self.rows])
        self._pull = pull.norm() / (whole - pull).norm().clamp_min(1e-12)

    def after_step(self) -> dict[str, float | Tensor]:
        self._steps += 1
        with torch.no_grad():
            if hasattr(self._initializer, "after_step"):
                for context, rows in zip(self._contexts, self.rows, strict=True):
                    self._initializer.after_step(context, rows.data, self._steps)
            measured = torch.cat([travelled(rows, start) for rows, start in self._pairs()])
        if self._steps % self._stride == 0:
            self._history.append(measured)
            if len(self._history) > MOST_POINTS:
                self._history, self._stride = self._history[1::2], 2 * self._stride
        figures: dict[str, float | Tensor] = {} if self._pull is None else {"embedding/pull_ratio": self._pull}
        for label, (ratio, cosine) in zip(self._labels, measured, strict=True):
            figures |= {f"embedding/{label}/norm_ratio": ratio, f"embedding/{label}/cosine": cosine}
        return figures

    def embedding(self) -> Embedding:
        """The vectors as they are now, for a file."""
        dtype = self._save_dtype or torch.float32
        rows = [rows.detach().to("cpu", dtype, copy=True) for rows in self.rows]
        return embedding_of(self._placeholders.names, rows, self._placeholders.token_string)

    def save_beside(self, network: NetworkTrainable, *, bundled: bool) -> None:
        """Take a file name of its own beside the network's, and if `bundled` a place in its file too."""
        self.file_label = "_emb"
        if bundled:
            network.beside = lambda: bundle_keys(self.embedding(), self._placeholders.token_string)

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        embedding = self.embedding()
        if not all(map(is_finite, embedding.vectors.values())):
            raise UserError(
                f"`{path}` was not written: the vectors are not finite. Training has diverged (a lower embedding_lr "
                "helps), or the values need a wider save_precision"
            )
        write_embedding(path, embedding, metadata=metadata | self._header(minimal="ss_steps" not in metadata))

    def _header(self, minimal: bool) -> dict[str, str]:
        """What the file says about the vectors; no path of this machine is part of it."""
        token = {"ss_token_string": self._placeholders.token_string, "ss_num_vectors": str(len(self.rows[0]))}
        if minimal:
            return token
        own = self._initializer.metadata() if hasattr(self._initializer, "metadata") else {}
        far = torch.cat([travelled(rows.detach(), start) for rows, start in self._pairs()])
        starts = torch.cat([start.norm(dim=-1) for _, start in self._pairs()])
        return token | self._described | own | {
            "ss_learning_rate": str(self.learning_rate),
            "ss_init_norms": _listed(starts),
            "ss_final_norms": _listed(starts * far[:, 0]),
            "ss_cos_to_init": _listed(far[:, 1]),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        names = self._placeholders.names
        state = {f"rows.{name}": rows.detach() for name, rows in zip(names, self.rows, strict=True)}
        state |= {f"start.{name}": start for name, (_, start) in zip(names, self._pairs(), strict=True)}
        if self._history:
            state["history"] = torch.stack(self._history)
        return state | {"place": torch.tensor([self._steps, self._stride])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for context, rows in zip(self._contexts, self.rows, strict=True):
            start = state.get(f"start.{context.name}")
            if start is None or start.shape != rows.shape:
                found = "no vectors" if start is None else f"vectors of shape {tuple(start.shape)}"
                raise UserError(f"the state holds {found} for {context.name}, but {tuple(rows.shape)} are trained")
            rows.data.copy_(state[f"rows.{context.name}"])
            context.start = start.to(rows.device, copy=True)
        self._history = [measured.to(self.rows[0].device) for measured in state.get("history", ())]
        self._steps, self._stride = (int(value) for value in state["place"])

    def findings(self) -> Findings:
        moved = [rows for rows, start in self._pairs() if not torch.equal(rows.detach(), start)]
        change = [float((rows.detach() - start).pow(2).mean().sqrt()) for rows, start in self._pairs()]
        return Findings(
            moved=len(moved),
            tensors=len(self.rows),
            change=sorted(change)[len(change) // 2],
            lines=self._lines(),
            series=self._series(),
        )

    def _lines(self) -> list[str]:
        far = torch.cat([travelled(rows.detach(), start) for rows, start in self._pairs()]).tolist()
        starts = torch.cat([start.norm(dim=-1) for _, start in self._pairs()]).tolist()
        lines = [
            f"{label}: norm {norm:.3g} -> {norm * ratio:.3g} (x{ratio:.2f}), cosine to the start {cosine:.3f}"
            for label, norm, (ratio, cosine) in zip(self._labels, starts, far, strict=True)
        ]
        if self._pull is not None:
            lines.append(f"in the last step the pull to the start was {float(self._pull):.2g} times the loss' gradient")
        return lines

    def _series(self) -> dict[str, Series]:
        """Norm and angle to the start of every vector over the steps."""
        if not self._history:
            return {}
        curves = torch.stack(self._history).cpu()  # (points, vectors, 2)
        steps = [float(self._stride * (i + 1)) for i in range(len(curves))]
        angles = torch.rad2deg(torch.acos(curves[..., 1].clamp(-1, 1)))
        titled = {
            "embedding norms": (curves[..., 0], "norm / norm at the start"),
            "embedding angles": (angles, "angle to the start, degrees"),
        }
        return {
            title: Series(steps, _by_label(self._labels, values), "step", label)
            for title, (values, label) in titled.items()
        }

    def _pairs(self) -> list[tuple[nn.Parameter, Tensor]]:
        starts = [context.start for context in self._contexts]
        return [(rows, start) for rows, start in zip(self.rows, starts, strict=True) if start is not None]

    @property
    def _labels(self) -> list[str]:
        """A name for every vector: clip_l_0, clip_l_1, clip_g_0, ..."""
        names = zip(self._placeholders.names, self.rows, strict=True)
        return [f"{name}_{i}" for name, rows in names for i in range(len(rows))]


def travelled(rows: Tensor, start: Tensor) -> Tensor:
    """(n, 2): each vector's norm over its start's, and its cosine to the start."""
    ratio = rows.norm(dim=-1) / start.norm(dim=-1).clamp_min(1e-12)
    return torch.stack([ratio, F.cosine_similarity(rows, start, dim=-1)], dim=-1)


def travel_note(learning_rate: float, steps: int, size: float) -> str | None:
    """A warning where Adam, which moves a number by about the learning rate in each step, goes nowhere or too far.

    `size` is the root mean square of the start's numbers: about 1 for a text encoder's output, which needs 1 to 2 in
    all, and some hundredths for a word's own embedding. 4 leaves nothing of either.
    """
    reach = learning_rate * steps
    too_little = reach < 0.2 * min(size, 1.0)
    if not (too_little or reach > 4) or not math.isfinite(reach):
        return None
    what = "hardly move the vectors" if too_little else "carry the vectors far beyond what one concept needs"
    return (
        f"embedding_lr {learning_rate:g} over {steps} steps lets a number move by up to {reach:.3g} and will {what} "
        f"(the start's numbers are about {size:.2g}); 0.005 for 320 steps is usual"
    )


def without_folders(arguments: Mapping[str, str]) -> str:
    """An initializer's arguments as JSON, files by their names only: headers are read by strangers."""
    shown = {}
    for name, value in arguments.items():
        parts = [PurePath(part).name if "/" in part or "\\" in part else part for part in value.split(",")]
        shown[name] = ",".join(parts)
    return json.dumps(shown)


def _flat(gradient: Tensor | None, rows: Tensor) -> Tensor:
    return torch.zeros(rows.numel(), device=rows.device) if gradient is None else gradient.reshape(-1)


def _listed(values: Tensor) -> str:
    return ",".join(f"{value:.5g}" for value in values.tolist())


def _by_label(labels: Sequence[str], values: Tensor) -> dict[str, list[float]]:
    return {label: values[:, i].tolist() for i, label in enumerate(labels)}
