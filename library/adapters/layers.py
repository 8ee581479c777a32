"""A network file as layers, and what each layer adds to the weight it belongs to, whichever program wrote the file.

Read are LoRA (kohya's, PEFT's and ControlLoRA's names), LoCon with or without a third factor, LyCORIS' LoHa, LoKr and
full differences. All of them are products of two matrices, so that everything here works on the factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from library.adapters.layer_kinds import is_three_by_three
from library.adapters.peft_names import ADAPTER_METADATA, tells_sdxl, with_kohya_names
from library.errors import UserError
from library.files import Tensors, is_finite, read_tensors

PAIRS = (("lora_down", "lora_up"), ("lora_A", "lora_B"), ("down", "up"))  # kohya, PEFT, ControlLoRA
LOW_RANK = {f"{name}{weight}" for pair in PAIRS for name in pair for weight in (".weight", "")}
HADAMARD = {f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
KRONECKER = {f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
OTHERS = {
    "dora_scale": "DoRA (weight decomposition), which depends on the weight that it is applied to",
    "oft_blocks": "OFT, which turns weights instead of adding to them",
    "oft_diag": "diag-OFT, which turns weights instead of adding to them",
    "on_input": "(IA)3, which scales weights instead of adding to them",
    "a1.weight": "GLoRA, which depends on the weight that it is applied to",
    "diff_b": "a full difference with biases",
    "w_norm": "a network that trains normalisations",
    "b_norm": "a network that trains normalisations",
    "lora_magnitude_vector": "DoRA (weight decomposition), which depends on the weight that it is applied to",
}
_SUFFIXES = sorted(
    {*LOW_RANK, *HADAMARD, *KRONECKER, *OTHERS, "alpha", "diff", "lora_mid.weight"}, key=len, reverse=True
)


@dataclass(frozen=True)
class Update:
    """What a layer adds to its weight: `scale * up @ down`, the weight flattened to (out, in * kernel)."""

    up: Tensor  # (out, rank)
    down: Tensor  # (rank, in * kernel)
    scale: float  # alpha / rank, as a rule

    def dense(self) -> Tensor:
        """(out, in * kernel), in the type of the factors."""
        return self.scale * (self.up @ self.down)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Update:
        return Update(self.up.to(device, dtype), self.down.to(device, dtype), self.scale)


@dataclass(frozen=True)
class Layer:
    """One layer's tensors by what follows its name in the file: "lora_down.weight", "alpha", "hada_w1_a"."""

    name: str
    tensors: Tensors

    @property
    def pair(self) -> tuple[str, str] | None:
        """What the two factors of a LoRA are called here (down, up); None for every other kind."""
        for down, up in PAIRS:
            for weight in (".weight", ""):
                if f"{down}{weight}" in self.tensors and f"{up}{weight}" in self.tensors:
                    return f"{down}{weight}", f"{up}{weight}"
        return None

    @property
    def alpha(self) -> float | None:
        alpha = self.tensors.get("alpha")
        return None if alpha is None else float(alpha)


@dataclass
class NetworkFile:
    """A network file. `rest` are tensors that belong to no layer, such as embeddings that travel with a LoRA.

    `is_sdxl` None: nothing tells what it is for.
    """

    path: Path
    layers: dict[str, Layer]
    metadata: dict[str, str]
    rest: Tensors = field(default_factory=dict)
    is_sdxl: bool | None = None


def read_network(path: Path | str, *, is_sdxl: bool | None = None) -> NetworkFile:
    """Sort a file's tensors by layer, under kohya's names whoever wrote it; `is_sdxl` is for files that do not tell.

    Raises `UserError` where it is missing, damaged, or no network known here.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    tensors = with_kohya_names(tensors, metadata, path, is_sdxl=is_sdxl)
    metadata.pop(ADAPTER_METADATA, None)  # of names that are no more; its alphas are tensors now
    if is_sdxl is None:
        is_sdxl = tells_sdxl(tensors, metadata)
    layers: dict[str, Layer] = {}
    rest: Tensors = {}
    for key, tensor in tensors.items():
        suffix = next((s for s in _SUFFIXES if key.endswith(f".{s}")), None)
        if suffix is None or key.startswith("bundle_emb."):
            rest[key] = tensor
            continue
        name = key[: -len(suffix) - 1]
        layers.setdefault(name, Layer(name, {})).tensors[suffix] = tensor
    if not any(_is_known(layer) for layer in layers.values()):
        other = next(
            (OTHERS[suffix] for layer in layers.values() for suffix in layer.tensors if suffix in OTHERS), None
        )
        examples = ", ".join(f"`{name}`" for name in list(tensors)[:3])
        raise UserError(
            f"`{path}` is {other}; that cannot be read here"
            if other
            else f"`{path}` is no LoRA: its tensors are named {examples}; give a network file (LoRA, LoCon, LoHa, LoKr)"
        )
    for layer in layers.values():
        _refuse_what_is_no_sum(layer, path)
        if not all(map(is_finite, layer.tensors.values())):
            raise UserError(f"`{path}`: the layer `{layer.name}` holds values that are not finite; the file is damaged")
    return NetworkFile(path, layers, metadata, rest, is_sdxl)


def update_of(layer: Layer) -> Update:
    """A layer's update, in float32 or the wider type of its tensors. Raises `UserError` if the shapes do not agree."""
    try:
        return _update({suffix: tensor for suffix, tensor in layer.tensors.items() if suffix != "alpha"}, layer)
    except (RuntimeError, KeyError) as error:
        shapes = ", ".join(f"{suffix} {tuple(tensor.shape)}" for suffix, tensor in layer.tensors.items())
        raise UserError(f"the layer `{layer.name}` is not whole: it has {shapes}; get the file again") from error


def kernel_of(layer: Layer) -> tuple[int, ...]:
    """(height, width) of the convolution that a layer changes, () of a matrix.

    Where the tensors do not say it (LoHa and LoKr may be flattened), the layer's name does; a 1x1 convolution counts as
    a matrix then, which every reader accepts.
    """
    for suffix in ("lora_mid.weight", "hada_t1", "lokr_t2", "diff", *(layer.pair or ()), "lokr_w2"):
        if suffix in layer.tensors:
            return tuple(layer.tensors[suffix].shape[2:])
    return (3, 3) if is_three_by_three(layer.name) else ()


def _update(tensors: Tensors, layer: Layer) -> Update:
    wide = {suffix: tensor if tensor.dtype == torch.float64 else tensor.float() for suffix, tensor in tensors.items()}
    if layer.pair:
        down, up = (wide[name] for name in layer.pair)
        up = up.flatten(1)  # (out, rank[, 1, 1])
        rank = down.shape[0]
        if "lora_mid.weight" in wide:
            mid = wide["lora_mid.weight"]  # (rank, rank, height, width), between two 1x1 convolutions
            down = torch.einsum("pq...,qi->pi...", mid, down.flatten(1))
        if up.shape[1] != rank:
            raise RuntimeError("the factors have two ranks")
        return Update(up, down.flatten(1), _scale(layer, rank))
    if "hada_w1_a" in wide:
        return _hadamard(wide, layer)
    if any(suffix in KRONECKER for suffix in wide):
        return _kronecker(wide, layer)
    return _whole(wide["diff"].flatten(1), 1.0)


def _hadamard(wide: Tensors, layer: Layer) -> Update:
    """LoHa, (A1 B1) * (A2 B2) entry by entry: a product whose inner indexes are all pairs of theirs."""
    rank = wide["hada_w1_b"].shape[0]
    if "hada_t1" in wide:
        first = _tucker(wide["hada_t1"], wide["hada_w1_a"], wide["hada_w1_b"])
        second = _tucker(wide["hada_t2"], wide["hada_w2_a"], wide["hada_w2_b"])
        return _whole((first * second).flatten(1), _scale(layer, rank))
    up = torch.einsum("op,oq->opq", wide["hada_w1_a"], wide["hada_w2_a"]).flatten(1)
    down = torch.einsum("pi,qi->pqi", wide["hada_w1_b"], wide["hada_w2_b"]).flatten(0, 1)
    return Update(up, down, _scale(layer, rank))


def _kronecker(wide: Tensors, layer: Layer) -> Update:
    """LoKr, the Kronecker product of W1 (b x a) and W2, either of which may be a product itself."""
    ranks = [wide[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in wide]
    scale = _scale(layer, ranks[0]) if ranks else 1.0  # two whole matrices: alpha means nothing
    first = wide["lokr_w1"] if "lokr_w1" in wide else wide["lokr_w1_a"] @ wide["lokr_w1_b"]
    if "lokr_t2" in wide:
        second = _tucker(wide["lokr_t2"], wide["lokr_w2_a"], wide["lokr_w2_b"]).flatten(1)
    elif "lokr_w2" in wide:
        second = wide["lokr_w2"].flatten(1)
    else:
        left, right = wide["lokr_w2_a"].contiguous(), wide["lokr_w2_b"].flatten(1).contiguous()
        diagonal = torch.eye(first.shape[1], dtype=first.dtype)
        return Update(torch.kron(first, left), torch.kron(diagonal, right), scale)
    return _whole(torch.kron(first.contiguous(), second.contiguous()), scale)


def _tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(out, in, height, width) of a core (p, q, height, width), left (p, out) and right (q, in)."""
    return torch.einsum("pq...,po,qi->oi...", core, left, right)


def _whole(matrix: Tensor, scale: float) -> Update:
    """A matrix as a product with the identity on its shorter side."""
    rows, columns = matrix.shape
    if rows < columns:
        return Update(torch.eye(rows, dtype=matrix.dtype), matrix, scale)
    return Update(matrix, torch.eye(columns, dtype=matrix.dtype), scale)


def _scale(layer: Layer, rank: int) -> float:
    return 1.0 if layer.alpha is None else layer.alpha / rank


def _is_known(layer: Layer) -> bool:
    return bool(layer.pair) or not layer.tensors.keys().isdisjoint({"hada_w1_a", "diff", *KRONECKER})


def _refuse_what_is_no_sum(layer: Layer, path: Path) -> None:
    other = next((OTHERS[suffix] for suffix in layer.tensors if suffix in OTHERS), None)
    if other:
        raise UserError(f"`{path}`: the layer `{layer.name}` is {other}; that cannot be merged or resized here")
    if not _is_known(layer):
        found = ", ".join(layer.tensors)
        raise UserError(f"`{path}`: the layer `{layer.name}` is not whole: it has only {found}; get the file again")
