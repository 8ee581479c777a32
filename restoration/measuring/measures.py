"""What is measured of a folder of restored pictures, and what is reported where a measure lacks what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from library.config.spec import declared, spec_of
from library.errors import UserError
from library.files import file_hash
from library.image_files import discover, load
from library.metrics.catalogue import SOURCES
from library.metrics.distances import frechet_distance
from library.metrics.networks.inception import inception_network, load_inception
from library.metrics.networks.lpips import load_lpips
from library.metrics.quality import psnr, ssim
from library.metrics.weights import Weights
from restoration.image_folders import at_size, to_tensor
from restoration.measuring.identity import Embedder, cosine, face_network, likeness
from restoration.options import EVALUATION

TO_ORIGINAL = "identity to the original"
"""A face network's cosine with the undamaged picture: what the paper calls identity, if the network is ArcFace."""

TO_REFERENCES = "likeness to the references"
"""Its cosine with the mean of the person's references. Higher for who was tuned on them; no figure of the paper."""

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


@spec_of(EVALUATION)
class Tools:
    """What the measures need beside pictures; each may be absent."""

    lpips_weights: Path | None = declared
    lpips_heads: Path | None = declared
    fid_model: Path | None = declared
    identity_model: Path | None = declared
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
    attempts = {"LPIPS": _lpips, "FID": _fid, TO_ORIGINAL: _identity, TO_REFERENCES: _likeness}
    for name, attempt in attempts.items():
        try:
            attempt(result, pairs, references, tools)
        except NotMeasured as reason:
            result.missing[name] = str(reason)
    return result


class NotMeasured(Exception):
    """A measure lacks something; the text is the line that would give it."""


def _lpips(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    given = {"alexnet": tools.lpips_weights, "lpips_heads": tools.lpips_heads}
    weights = Weights({name: path for name, path in given.items() if path is not None})
    alexnet, heads = weights.find("alexnet"), weights.find("lpips_heads")
    if alexnet is None or heads is None:
        options = {"lpips_weights": (alexnet, "alexnet"), "lpips_heads": (heads, "lpips_heads")}
        gets = [f"give --{option} ({SOURCES[name].url})" for option, (path, name) in options.items() if path is None]
        raise NotMeasured(" and ".join(gets))
    network = load_lpips(alexnet, heads)
    tensors = {name: (to_tensor(a)[None], to_tensor(b)[None]) for name, (a, b) in pairs.items()}
    result.add("LPIPS", {name: float(network.distance(a, b)) for name, (a, b) in tensors.items()})


def _fid(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    if tools.fid_model is None:
        raise NotMeasured(f"give --fid_model ({SOURCES['inception'].url})")
    network = inception_network(load_inception(tools.fid_model), 2048, file_hash(tools.fid_model))

    @torch.no_grad()
    def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([network.see([Image.fromarray(picture)]).double().numpy() for picture in pictures])

    mine, theirs = features([a for a, _ in pairs.values()]), features([b for _, b in pairs.values()])
    result.means["FID"] = frechet_distance(mine, theirs)


def _identity(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    """The paper's identity, to the original of each picture."""
    embed = _embedder(tools)
    result.add(TO_ORIGINAL, {name: cosine(embed(mine), embed(original)) for name, (mine, original) in pairs.items()})


def _likeness(result: Measures, pairs: Pairs, references: Sequence[np.ndarray], tools: Tools) -> None:
    """How much each picture looks like the person in general."""
    embed = _embedder(tools)
    if not references:
        raise NotMeasured("give --identity_refs, pictures of the person")
    values = likeness(embed, [mine for mine, _ in pairs.values()], references)
    result.add(TO_REFERENCES, dict(zip(pairs, values, strict=True)))


def _embedder(tools: Tools) -> Embedder:
    if tools.embed is not None:
        return tools.embed
    if tools.identity_model is None:
        raise NotMeasured("give --identity_model, an ArcFace .onnx or face_recognition_sface_2021dec.onnx of OpenCV")
    return face_network(tools.identity_model)
