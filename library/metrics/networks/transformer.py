"""CLIP, DINO and DINOv2 from folders as on the Hugging Face Hub, with weights read safely and nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, CLIPModel, Dinov2Model, ViTModel
from transformers.utils import logging

from library.errors import UserError
from library.files import Tensors, read_tensors
from library.metrics.features import FeatureNetwork
from library.metrics.preprocess import Preprocessing, clip_preprocessing, imagenet_preprocessing
from library.metrics.weight_files import hash_of, weight_files
from library.models.tokenizers import build_tokenizer, find_vocabulary, load_tokenizer


def build(folder: Path, classes: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """A model of its folder in float32, of the class for its `model_type`; names of older files are understood.

    Raises UserError where it is another kind of model, tensors are missing, or a file cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder / 'config.json'}' cannot be read: {error}") from error
    if config.model_type not in classes:
        raise UserError(f"'{folder}' is a model of type {config.model_type}; {' or '.join(classes)} is needed")
    tensors: Tensors = {}
    for path in weight_files(folder):
        tensors |= read_tensors(path)[0]
    return from_tensors(classes[config.model_type], config, tensors, folder, **arguments)


def from_tensors(model_class: Any, config: Any, tensors: Tensors, source: Path, **arguments: Any) -> nn.Module:
    """A model in float32 with all its tensors from `tensors`; what it does not know is left out."""
    bar = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, loaded = model_class.from_pretrained(
            None, config=config, state_dict=tensors, dtype=torch.float32, output_loading_info=True, **arguments
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"'{source}' does not fit its config: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    # A pooling layer is behind what is read here, and many files have none.
    if absent := sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler.")):
        raise UserError(f"'{source}' lacks {len(absent)} tensors of a {model.config.model_type}, the first {absent[0]}")
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Clip:
    """A CLIP model: pictures and texts in one space. Embeddings are not of unit length."""

    network: FeatureNetwork
    """Its picture side."""
    model: Any
    tokenizer: Any
    device: str

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, dimensions) float64. What is longer than the model reads is cut."""
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        found = self.model.get_text_features(words.input_ids, attention_mask=words.attention_mask)
        return found.pooler_output.double().cpu().numpy()

    def truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the model reads."""
        length = self.model.config.text_config.max_position_embeddings
        return sum(len(ids) > length for ids in self.tokenizer(list(texts), verbose=False).input_ids)

    @property
    def scale(self) -> float:
        """What PickScore multiplies cosines with."""
        return float(self.model.logit_scale.exp())


def load_clip(folder: Path, device: str, name: str = "clip", preprocessing: Preprocessing | None = None) -> Clip:
    """Raises UserError where weights or words cannot be read."""
    model: Any = build(folder, {"clip": CLIPModel}).to(device)
    how = preprocessing or clip_preprocessing(model.config.vision_config.image_size)

    def see(images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([how.prepare(image) for image in images]).to(device)
        return model.get_image_features(pixels).pooler_output

    network = FeatureNetwork(name, hash_of(weight_files(folder)), how.name, see)
    return Clip(network, model, _tokenizer(folder), device)


def _tokenizer(folder: Path) -> Any:
    if any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        return load_tokenizer(folder)
    vocabulary = find_vocabulary(None, folder / "model")
    if vocabulary is None:
        raise UserError(f"'{folder}' has no words; put CLIP's vocab.json and merges.txt beside its weights")
    return build_tokenizer(vocabulary, None)


VISION = {"vit": ViTModel, "dinov2": Dinov2Model}


def load_vision(folder: Path, device: str, name: str) -> FeatureNetwork:
    """A vision transformer whose feature is its class token behind the last norm: DINO's ViT, DINOv2."""
    model: Any = build(folder, VISION).to(device)
    how = imagenet_preprocessing()

    def see(images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([how.prepare(image) for image in images]).to(device)
        return model(pixels).last_hidden_state[:, 0]

    return FeatureNetwork(name, hash_of(weight_files(folder)), how.name, see)
