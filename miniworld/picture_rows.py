"""Rows of pictures, each with its label on the left: the sheets that pages show."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LABEL_WIDTH = 132  # pixels
FONT_SIZE = 15
LINE_HEIGHT = 18
LETTERS = 16
"""What fits on a line of `LABEL_WIDTH`."""


def labelled_rows(rows: Mapping[str, np.ndarray]) -> Image.Image:
    """One picture of {label: strip}; strips are (height, width, 3) uint8 of one width."""
    strips = np.concatenate(list(rows.values()))
    sheet = Image.new("RGB", (LABEL_WIDTH + strips.shape[1], strips.shape[0]), "white")
    sheet.paste(Image.fromarray(strips), (LABEL_WIDTH, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_SIZE)
    top = 0
    for label, strip in rows.items():
        lines = textwrap.wrap(label, LETTERS)
        first = top + (strip.shape[0] - len(lines) * LINE_HEIGHT) // 2
        for number, line in enumerate(lines):
            pen.text((8, first + number * LINE_HEIGHT), line, "black", font)
        top += strip.shape[0]
    return sheet
