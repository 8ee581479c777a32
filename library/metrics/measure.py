"""The metrics, each a function of the evidence, and measuring all that were asked for.

What cannot be measured becomes a figure that says why; one metric's weights that cannot be read stop no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from library.errors import UserError
from library.metrics.catalogue import METRICS, Metric
from library.metrics.distances import (
    frechet_distance,
    gaussian_kernel,
    kernel_distance,
    likeness,
    likeness_of_folders,
    likeness_to_mean,
    squared_mmd,
    unit,
)
from library.metrics.evidence import Evidence
from library.metrics.figures import NOT_COMPARABLE, MetricFigure, of_pictures
from library.metrics.preprocess import open_picture
from library.metrics.quality import psnr, ssim
from library.metrics.statistics import frechet_at_equal_n, permutation_p
from library.metrics.weight_files import weight_facts

DEPICTS = "A photo depicts "
"""What CLIPScore puts before a caption (Hessel et al. 2021, section 3)."""


@dataclass
class Measurement:
    """What a metric found: values of pictures, or one of the whole set."""

    values: dict[Path, float] = field(default_factory=dict)
    value: float | None = None
    preprocessing: str = ""
    p: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    note: str | None = None


def measure(evidence: Evidence) -> list[MetricFigure]:
    """Every metric of the request, in its order."""
    return [_measured(metric, evidence) for metric in evidence.request.metrics]


def _measured(metric: Metric, evidence: Evidence) -> MetricFigure:
    reason = evidence.request.reason(metric)
    if reason is not None:
        return MetricFigure(metric, not_measured=reason)
    began = time.perf_counter()
    try:
        found = function_of(metric)(evidence)
        weights = {name: weight_facts(evidence.path(name)) for name in metric.needs}
    except UserError as error:
        return MetricFigure(metric, not_measured=f"because {error}")
    if metric.of_sets:
        figure = MetricFigure(metric, found.value, n_pictures=len(evidence.generated))
        figure.n_prompts = len({asked.prompt for asked in evidence.request.generated if asked.prompt})
    elif not found.values:
        return MetricFigure(metric, not_measured=f"because {found.note or 'no picture has a value'}")
    else:
        figure = of_pictures(metric, evidence.request.generated, found.values)
    figure.weights, figure.references = weights, evidence.references_of(metric)
    figure.preprocessing, figure.p = found.preprocessing, found.p
    figure.more, figure.note, figure.seconds = found.more, found.note, time.perf_counter() - began
    return figure


def function_of(metric: Metric) -> Callable[[Evidence], Measurement]:
    """The function of a metric; those of a network of one's own are made for it."""
    if metric.name in FUNCTIONS:
        return FUNCTIONS[metric.name]
    (network,) = metric.needs
    if not metric.of_sets:
        return lambda evidence: likeness_to_references(evidence, network)
    distance = kid if metric.name.startswith("kid_") else fid
    return lambda evidence: distance(evidence, network)


# --- of pictures and prompts


def clip_t(evidence: Evidence, weights: str = "clip", before: str = "") -> Measurement:
    """The cosine of each picture with its prompt."""
    clip = evidence.clip(weights)
    asked = [one for one in evidence.request.generated if one.prompt]
    texts = sorted({f"{before}{one.prompt}" for one in asked})
    read = dict(zip(texts, unit(clip.read(texts)), strict=True))
    seen = unit(evidence.see(clip.network, [one.path for one in asked]))
    cosines = {one.path: float(row @ read[f"{before}{one.prompt}"]) for one, row in zip(asked, seen, strict=True)}
    mean = float(np.mean(list(cosines.values())))
    more = {"times_100": 100 * mean, "truncated_prompts": clip.truncated(texts)}
    return Measurement(cosines, preprocessing=clip.network.preprocessing, more=more)


def clip_t_hessel(evidence: Evidence) -> Measurement:
    """CLIPScore: 2.5 max(cos, 0) with "A photo depicts " before the prompt."""
    found = clip_t(evidence, before=DEPICTS)
    return Measurement(
        {path: 2.5 * max(cosine, 0.0) for path, cosine in found.values.items()},
        preprocessing=found.preprocessing,
        note=NOT_COMPARABLE,
    )


def pickscore(evidence: Evidence) -> Measurement:
    """The cosine in PickScore's CLIP times its learnt scale: how much people would like it for its prompt."""
    found, scale = clip_t(evidence, "pickscore"), evidence.clip("pickscore").scale
    values = {path: scale * cosine for path, cosine in found.values.items()}
    return Measurement(
        values, preprocessing=found.preprocessing, more={"truncated_prompts": found.more["truncated_prompts"]}
    )


def image_reward(evidence: Evidence) -> Measurement:
    """ImageReward of each picture for its prompt: a signed score, about 0 on average and 1 in deviation."""
    from library.metrics.networks.image_reward import load_image_reward

    path, words = evidence.path("image_reward"), evidence.path("bert_vocabulary")
    network = evidence.once("image_reward", lambda: load_image_reward(path, words, evidence.device))
    asked = [one for one in evidence.request.generated if one.prompt]
    size, values = evidence.store.batch_size, dict[Path, float]()
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        rewards = network.score([open_picture(one.path) for one in part], [str(one.prompt) for one in part])
        values |= {one.path: reward for one, reward in zip(part, rewards, strict=True)}
    return Measurement(values, preprocessing=network.preprocessing)


# --- of pictures and references


def likeness_to_references(evidence: Evidence, weights: str) -> Measurement:
    """Each picture's mean cosine with all references."""
    network = evidence.images(weights)
    seen, theirs = evidence.see(network, evidence.generated), evidence.see(network, evidence.references)
    values = dict(zip(evidence.generated, likeness(seen, theirs).tolist(), strict=True))
    return Measurement(values, preprocessing=network.preprocessing)


def folder_likeness(evidence: Evidence, weights: str) -> Measurement:
    """The cosine of the two folders' mean directions."""
    network = evidence.images(weights)
    value = likeness_of_folders(*evidence.see_sets(network))
    return Measurement(value=value, preprocessing=network.preprocessing, note=NOT_COMPARABLE)


def identity(evidence: Evidence) -> Measurement:
    """Each face's cosine with the mean direction of the references' faces."""
    from library.metrics.networks.identity import load_faces

    paths = evidence.path("face_detector"), evidence.path("face")
    faces = evidence.once("faces", lambda: load_faces(*paths))
    references = [row for path in evidence.references if (row := faces.read(open_picture(path))) is not None]
    if not references:
        return Measurement(note="no face was found in the references; identity is of pictures of one person")
    found = {path: faces.read(open_picture(path)) for path in evidence.generated}
    seen = {path: row for path, row in found.items() if row is not None}
    more = {"pictures_without_a_face": len(found) - len(seen), "references_with_a_face": len(references)}
    if not seen:
        return Measurement(note="no face was found in the generated pictures")
    values = dict(zip(seen, likeness_to_mean(list(seen.values()), references).tolist(), strict=True))
    return Measurement(values, preprocessing=faces.preprocessing, more=more)


# --- of two sets


def kid(evidence: Evidence, weights: str = "inception") -> Measurement:
    """1000 x the unbiased kernel distance of all pictures; may be below 0. With the p of a permutation test."""
    network = evidence.features_for_sets(weights)
    mine, theirs = evidence.see_sets(network)
    distance = kernel_distance(mine, theirs)
    return Measurement(value=1000 * distance, p=permutation_p(mine, theirs), preprocessing=network.preprocessing)


def cmmd(evidence: Evidence) -> Measurement:
    """1000 x the unbiased discrepancy of unit CLIP embeddings; `biased` is what the published code computes."""
    network = evidence.images("clip_336")
    mine, theirs = (unit(rows) for rows in evidence.see_sets(network))
    kernels = gaussian_kernel(mine, mine), gaussian_kernel(theirs, theirs), gaussian_kernel(mine, theirs)
    more = {"biased": 1000 * squared_mmd(*kernels, unbiased=False)}
    return Measurement(value=1000 * squared_mmd(*kernels), preprocessing=network.preprocessing, more=more)


def fid(evidence: Evidence, weights: str = "inception") -> Measurement:
    """The Fréchet distance at as many pictures as half of the references, beside its floors at the same number."""
    network = evidence.features_for_sets(weights)
    mine, theirs = evidence.see_sets(network)
    base = evidence.see(network, evidence.request.base) if evidence.request.base else None
    equal = frechet_at_equal_n(mine, theirs, base)
    everything = frechet_distance(mine, theirs)
    more: dict[str, Any] = {"all_pictures": everything, "all_n": [len(mine), len(theirs)]}
    if equal is None:
        note = "all pictures; too few for floors at an equal number"
        return Measurement(value=everything, preprocessing=network.preprocessing, more=more, note=note)
    more |= {"n": equal.n, "halves_of_the_reference": equal.halves, "base_model": equal.base}
    note = f"at n = {equal.n}; halves of the reference {equal.halves:.4g}"
    note += f", base model {equal.base:.4g}" if equal.base is not None else ""
    return Measurement(value=equal.generated, preprocessing=network.preprocessing, more=more, note=note)


def fid_of_layer(evidence: Evidence, layer: int) -> Measurement:
    """The Fréchet distance in an early layer of Inception, over all pictures."""
    network = evidence.inception(layer)
    value = frechet_distance(*evidence.see_sets(network))
    return Measurement(value=value, preprocessing=network.preprocessing, note=NOT_COMPARABLE)


# --- of pairs of pictures


def _pairs(evidence: Evidence) -> Iterator[tuple[Path, torch.Tensor, torch.Tensor]]:
    """Each generated picture and its original at the same size: (1, 3, height, width) in [0, 1]."""
    for path, original in evidence.request.pairs:
        picture, truth = open_picture(path), open_picture(original)
        if truth.size != picture.size:
            truth = truth.resize(picture.size, Image.Resampling.BICUBIC)
        yield path, _as_tensor(picture), _as_tensor(truth)


def _as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def of_pairs(
    how: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], variant: str
) -> Callable[[Evidence], Measurement]:
    """A metric that compares a picture with its original."""

    def function(evidence: Evidence) -> Measurement:
        return Measurement({path: float(how(a, b)) for path, a, b in _pairs(evidence)}, preprocessing=variant)

    return function


def lpips(evidence: Evidence) -> Measurement:
    """LPIPS of AlexNet between each picture and its original."""
    from library.metrics.networks.lpips import load_lpips

    paths = evidence.path("alexnet"), evidence.path("lpips_heads")
    network = evidence.once("lpips", lambda: load_lpips(*paths, evidence.device))
    return of_pairs(network.distance, "colours in -1..1, no resizing")(evidence)


FUNCTIONS: Mapping[str, Callable[[Evidence], Measurement]] = {
    "clip_t": clip_t,
    "clip_i": lambda evidence: likeness_to_references(evidence, "clip"),
    "dino": lambda evidence: likeness_to_references(evidence, "dino"),
    "dinov2": lambda evidence: likeness_to_references(evidence, "dinov2"),
    "style": lambda evidence: likeness_to_references(evidence, "csd"),
    "pickscore": pickscore,
    "image_reward": image_reward,
    "identity": identity,
    "kid": kid,
    "cmmd": cmmd,
    "fid": fid,
    "lpips": lpips,
    "psnr": of_pairs(psnr, "colours in 0..1, all channels at once"),
    "ssim": of_pairs(ssim, "Wang 2004: Gaussian of 11 pixels, sigma 1.5, mean of RGB, edges left out"),
    "fid_64": lambda evidence: fid_of_layer(evidence, 64),
    "fid_192": lambda evidence: fid_of_layer(evidence, 192),
    "clip_t_hessel": clip_t_hessel,
    "clip_folders": lambda evidence: folder_likeness(evidence, "clip"),
    "dino_folders": lambda evidence: folder_likeness(evidence, "dino"),
}
assert METRICS.keys() <= FUNCTIONS.keys()
