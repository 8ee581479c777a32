"""What metrics look at: the pictures, and the networks of the request, each loaded when it is first needed."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from library.errors import UserError
from library.files import file_hash
from library.metrics.catalogue import Metric
from library.metrics.features import FeatureNetwork, FeatureStore
from library.metrics.request import Request

Loaded = TypeVar("Loaded")


@dataclass
class Evidence:
    """The pictures that were asked about, and the networks that look at them."""

    request: Request
    store: FeatureStore
    device: str = "cpu"
    resize: str = "clean"
    _loaded: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def generated(self) -> list[Path]:
        return [asked.path for asked in self.request.generated]

    @property
    def references(self) -> list[Path]:
        return self.request.references

    @cached_property
    def reference_hash(self) -> str:
        """sha256 over those of the references, whatever they are called; nothing where there are none."""
        hashes = sorted(map(file_hash, self.references))
        return hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else ""

    def references_of(self, metric: Metric) -> str:
        """The hash of what this metric compares with; nothing for one that looks at prompts alone."""
        return "" if metric.compares == "prompts" else self.reference_hash

    def path(self, name: str) -> Path:
        found = self.request.weights.find(name)
        if found is None:
            raise UserError(f"the weights {name} are missing")
        return found

    def once(self, key: str, load: Callable[[], Loaded]) -> Loaded:
        """What `load` makes, the first time; the same afterwards."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]

    def see(self, network: FeatureNetwork, pictures: Sequence[Path]) -> np.ndarray:
        """Features in the pictures' order: (pictures, dimensions) float64."""
        return self.store.of(network, pictures)

    def see_sets(self, network: FeatureNetwork) -> tuple[np.ndarray, np.ndarray]:
        """Features of the generated pictures and of the references, in an order that no file name changes."""
        mine, theirs = (sorted(paths, key=file_hash) for paths in (self.generated, self.references))
        return self.store.of(network, mine), self.store.of(network, theirs)

    # --- networks by the name of their weights; a network's file is imported when it is asked for

    def clip(self, name: str) -> Any:
        from library.metrics.networks.transformer import load_clip
        from library.metrics.preprocess import square_clip_preprocessing

        how = square_clip_preprocessing() if name == "clip_336" else None
        return self.once(name, lambda: load_clip(self.path(name), self.device, name, how))

    def inception(self, layer: int) -> FeatureNetwork:
        from library.metrics.networks.inception import inception_network, load_inception

        path = self.path("inception")
        model = self.once("inception", lambda: load_inception(path, self.device))
        return inception_network(model, layer, file_hash(path), self.resize, self.device)

    def images(self, name: str) -> FeatureNetwork:
        """The network that sees pictures with these weights: CLIP's picture side, DINO, CSD, or one of one's own."""
        if name in self.request.weights.own:
            return self.once(name, lambda: self._own(name))
        if name in ("dino", "dinov2"):
            from library.metrics.networks.transformer import load_vision

            return self.once(name, lambda: load_vision(self.path(name), self.device, name))
        if name == "csd":
            from library.metrics.networks.style import load_style

            return self.once(name, lambda: load_style(self.path(name), self.device))
        return self.clip(name).network

    def features_for_sets(self, name: str) -> FeatureNetwork:
        """The network of a distance between sets."""
        return self.inception(2048) if name == "inception" else self.images(name)

    def _own(self, name: str) -> FeatureNetwork:
        own = self.request.weights.own[name]
        try:
            see = importlib.import_module(own.module).feature_network(own.weights)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"[features.{name}] module = {own.module!r} offers no feature network ({error}); it must be a Python "
                "module with a function feature_network(path)"
            ) from error
        return FeatureNetwork(name, file_hash(own.weights), f"that of {own.module}", see)


def chosen_device(asked: str | None) -> str:
    """cuda where there is one, unless something else was asked for. Raises UserError where what was asked is absent."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("`--device cuda`: torch sees no GPU here; leave it out to use the CPU")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")
