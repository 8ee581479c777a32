"""What is measured of a folder of restored pictures, and what is said where a measure lacks what it needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from library.data.images import discover, load
from library.errors import UserError
from library.metrics.distances import frechet_distance
from library.metrics.quality import psnr, ssim
from restoration.identity import Embedder, face_network, likeness
from restoration.pictures import at_size, to_tensor

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name: a picture and its original, uint8 of one size."""


@dataclass
class Measures:
    """Means over the pictures of a folder, and each picture's own values. `missing` says how to measure the rest."""

    means: dict[str, float] = field(default_factory=dict)
    each: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, measure: str, values: Mapping[str, float]) -> None:
        self.means[measure] = float(np.mean(list(values.values())))
        for name, value in values.items():
            self.each.setdefault(name, {})[measure] = value


@dataclass(frozen=True)
class Tools:
    """What the measures need beside pictures; each may be absent."""

    lpips: bool = False
    lpips_weights: Path | None = None
    fid_model: Path | None = None
    identity_model: Path | None = None
    embed: Embedder | None = None
    """Instead of `identity_model`: a network of one's own."""


def paired(folder: Path, originals: Path) -> Pairs:
    """The pictures of both folders that have the same name before the ending; originals at the pictures' size."""
    mine = {path.stem: path for path in discover(folder)}
    theirs = {path.stem: path for path in discover(originals)}
    names = sorted(mine.keys() & theirs.keys())
    if not names:
        raise UserError(
            f"no picture in '{folder}' has the name of one in '{originals}'; a restored picture keeps its name, so "
            "give the folder with the originals of the same names"
        )
    pairs = {}
    for name in names:
        picture = load(mine[name])
        pairs[name] = (picture, at_size(load(theirs[name]), (picture.shape[1], picture.shape[0])))
    return pairs


def measure(pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> Measures:
    """PSNR and SSIM always; LPIPS, FID and identity where there is what they need."""
    result = Measures()
    tensors = {name: (to_tensor(a)[None], to_tensor(b)[None]) for name, (a, b) in pairs.items()}
    result.add("PSNR", {name: float(psnr(a, b)) for name, (a, b) in tensors.items()})
    result.add("SSIM", {name: float(ssim(a, b)) for name, (a, b) in tensors.items()})
    for name, attempt in (("LPIPS", _lpips), ("FID", _fid), ("identity", _identity)):
        try:
            attempt(result, pairs, references, tools)
        except NotMeasured as reason:
            result.missing[name] = str(reason)
    return result


class NotMeasured(Exception):
    """A measure lacks something; the text is the line that would give it."""


def _lpips(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    if not tools.lpips:
        raise NotMeasured("add --lpips (needs `python -m pip install lpips`)")
    try:
        package: Any = importlib.import_module("lpips")
    except (ImportError, RuntimeError) as error:
        raise NotMeasured(f"python -m pip install lpips torchvision ({error})") from None
    try:
        network = package.LPIPS(net="alex", pnet_rand=tools.lpips_weights is not None, verbose=False).eval()
    except OSError as error:  # it wants to download what it does not find
        raise NotMeasured(f"give --lpips_weights alexnet-owt-7be5be79.pth ({error})") from None
    if tools.lpips_weights is not None:
        weights = torch.load(tools.lpips_weights, map_location="cpu", weights_only=True)
        slices = {n: t for n, t in weights.items() if n.startswith("features.")}
        own = [name for name in network.net.state_dict() if name.split(".")[0].startswith("slice")]
        network.net.load_state_dict(dict(zip(own, slices.values(), strict=True)))
    with torch.no_grad():
        values = {
            name: float(network(to_tensor(a)[None] * 2 - 1, to_tensor(b)[None] * 2 - 1))
            for name, (a, b) in pairs.items()
        }
    result.add("LPIPS", values)


def _fid(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    if tools.fid_model is None:
        raise NotMeasured("give --fid_model inception-2015-12-05.pt (nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch)")
    if not tools.fid_model.is_file():
        raise UserError(f"`fid_model = {tools.fid_model}` does not exist; give a TorchScript Inception")
    network: Any = torch.jit.load(str(tools.fid_model), map_location="cpu").eval()

    @torch.no_grad()
    def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for picture in pictures:
            image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
            try:
                answer = network(image, return_features=True)
            except RuntimeError:  # a network that knows no such argument gives features at once
                answer = network(image)
            rows.append(answer.reshape(-1).double().numpy())
        return np.stack(rows)

    mine, theirs = features([a for a, _ in pairs.values()]), features([b for _, b in pairs.values()])
    result.means["FID"] = frechet_distance(mine, theirs)


def _identity(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    if tools.embed is None and tools.identity_model is None:
        raise NotMeasured("give --identity_model, an ArcFace .onnx or face_recognition_sface_2021dec.onnx of OpenCV")
    if not references:
        raise NotMeasured("give --identity_refs, pictures of the person")
    embed: Callable[[np.ndarray], np.ndarray] = tools.embed or face_network(tools.identity_model or Path())
    values = likeness(embed, [a for a, _ in pairs.values()], references)
    result.add("identity", dict(zip(pairs, values, strict=True)))
