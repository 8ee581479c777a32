"""Pictures side by side: a row for each, a column for each folder, under its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from library.image_files import discover, load
from restoration.image_folders import at_size, write_png

CELL = 192  # pixels
GAP, TITLE = 6, 22
MOST_ROWS = 12


def write_sheet(path: Path, columns: Mapping[str, Path]) -> int:
    """Write a sheet of the pictures that the last column has; returns how many rows it has.

    Where a folder lacks a picture its place stays empty.
    """
    files = {title: {file.stem: file for file in discover(folder)} for title, folder in columns.items()}
    names = sorted(files[list(columns)[-1]])[:MOST_ROWS]
    height, width = TITLE + len(names) * (CELL + GAP), len(columns) * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (title, mine) in enumerate(files.items()):
        left = column * (CELL + GAP)
        pen.text((left + 4, 4), title, fill="black")
        for row, name in enumerate(names):
            if name in mine:
                sheet.paste(Image.fromarray(fitted(load(mine[name]))), (left, TITLE + row * (CELL + GAP)))
    write_png(path, np.asarray(sheet))
    return len(names)


def fitted(pixels: np.ndarray) -> np.ndarray:
    """A picture inside a square cell, on white."""
    height, width = pixels.shape[:2]
    share = CELL / max(height, width)
    small = at_size(pixels, (max(1, round(width * share)), max(1, round(height * share))))
    cell = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - small.shape[0]) // 2, (CELL - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    return cell
