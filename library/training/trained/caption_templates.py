"""Captions for the pictures of a new word: sentences with the word in them, another one each time.

A picture that is learnt under one sentence only binds the word to that sentence. Which one a sample gets in an epoch
is drawn from the sample's own generator, like everything else that belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from library.config.spec import declared, spec
from library.data.batches import Batch
from library.data.dataset import Dataset
from library.training.work import BatchSource

OBJECT_TEMPLATES = (
    *("a photo of a {}", "a photo of the {}", "a photo of one {}", "a photo of my {}", "a picture of a {}"),
    *("a picture of the {}", "an image of a {}", "a snapshot of the {}", "a close-up photo of a {}"),
    *("a close-up of the {}", "a cropped photo of the {}", "a small photo of a {}", "a large picture of the {}"),
    *("a bright photo of a {}", "a bright picture of the {}", "a dark photo of the {}", "a dim picture of a {}"),
    *("a sharp photo of a {}", "a blurry photo of the {}", "a clear photo of the {}", "a grainy photo of a {}"),
    *("a good photo of a {}", "a bad photo of the {}", "a simple picture of the {}"),
)
STYLE_TEMPLATES = (
    *("a picture in the style of {}", "a painting in the style of {}", "a drawing in the style of {}"),
    *("an image in the style of {}", "artwork in the style of {}", "an illustration in the style of {}"),
    *("a small painting in the style of {}", "a large painting in the style of {}", "a sketch in the style of {}"),
    *("a bright painting in the style of {}", "a dark painting in the style of {}", "a print in the style of {}"),
    *("a close-up painting in the style of {}", "a detailed painting in the style of {}"),
    *("a simple painting in the style of {}", "a good painting in the style of {}"),
)
ITSELF = ("{}",)


@spec
class CaptionSpec:
    """The options on captions of a new word; field names are the options'."""

    use_object_template: bool = declared
    use_style_template: bool = declared
    caption_template: Sequence[str] | None = declared

    @property
    def templates(self) -> Sequence[str]:
        if self.use_style_template:
            return STYLE_TEMPLATES
        return OBJECT_TEMPLATES if self.use_object_template else ITSELF

    @property
    def replaces_captions(self) -> bool:
        return bool(self.use_object_template or self.use_style_template or self.caption_template)


def one_of(texts: Sequence[str], generator: torch.Generator) -> str:
    return texts[int(torch.randint(len(texts), (), generator=generator))]


class TemplateBatches:
    """Batches of another source, with captions made of templates.

    Regularisation pictures keep their captions, and a caption that was dropped for a sample stays empty.
    """

    def __init__(self, source: BatchSource, dataset: Dataset, spec: CaptionSpec, token_string: str) -> None:
        self._source, self._spec, self._token_string = source, spec, token_string
        self._kept = {name for name, picture in dataset.named.items() if picture.subset.is_reg}
        self._captioned = {name for name, picture in dataset.named.items() if picture.caption}

    @property
    def steps_per_epoch(self) -> int:
        return self._source.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Sequence[Batch]]:
        for micro_batches in self._source.epoch(epoch, start):
            for batch in micro_batches:
                batch.captions = [self._caption(batch, i) for i in range(len(batch))]
            yield micro_batches

    def _caption(self, batch: Batch, i: int) -> str:
        name, caption = batch.sample_ids[i].rpartition("#")[0], batch.captions[i]
        dropped = not caption and name in self._captioned
        if dropped or name in self._kept:
            return caption
        template = one_of(self._spec.templates, batch.generator(i, "template"))
        phrase = one_of(self._spec.caption_template or ITSELF, batch.generator(i, "phrase"))
        return template.replace("{}", phrase).replace("{}", self._token_string)
