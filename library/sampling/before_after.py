"""One sheet that shows what a training did: every sample prompt drawn before it and after it, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from library.atomic import atomic
from library.image_files import open_image

MARGIN = 12
TEXT = (70, 70, 70)
PAPER = (255, 255, 255)


def write_before_after(before: Sequence[Path], after: Sequence[Path], path: Path, *, across: int = 4) -> None:
    """Write the sheet: `before[i]` and `after[i]` are pictures of the same prompt, which is under them.

    `across` pairs are in a row. The prompts come from the pictures' own text chunks.
    """
    pairs = [(open_image(b), open_image(a)) for b, a in zip(before, after, strict=True)]
    width = max(picture.width for pair in pairs for picture in pair)
    height = max(picture.height for pair in pairs for picture in pair)
    scale = max(1, 256 // width)  # small models' pictures are enlarged to be looked at
    width, height = width * scale, height * scale
    size = max(12, width // 15)
    font = ImageFont.load_default(size=size)
    line_height = round(size * 1.25)
    captions = [_wrapped(str(a.info.get("prompt", "")), font, 2 * width)[:3] for _, a in pairs]
    cell = (2 * width + MARGIN, height + line_height * 3 + MARGIN)
    across = min(across, len(pairs))
    rows = -(-len(pairs) // across)
    head = line_height + MARGIN
    sheet = Image.new("RGB", (across * (cell[0] + MARGIN) + MARGIN, rows * (cell[1] + MARGIN) + head), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (first, last) in enumerate(pairs):
        left = MARGIN + (index % across) * (cell[0] + MARGIN)
        top = head + (index // across) * (cell[1] + MARGIN)
        if index < across:
            draw.text((left, MARGIN // 2), "before", TEXT, font)
            draw.text((left + width, MARGIN // 2), "after", TEXT, font)
        for picture, offset in ((first, 0), (last, width)):
            enlarged = picture.convert("RGB").resize(
                (picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC
            )
            sheet.paste(enlarged, (left + offset, top))
        for number, line in enumerate(captions[index]):
            draw.text((left, top + height + 4 + number * line_height), line, TEXT, font)
    with atomic(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
