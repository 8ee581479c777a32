"""The frame of every page: one HTML file that needs nothing else and runs nothing.

    html = render(Path(__file__).parent / "templates" / "run.html", title="...", facts=...)
    write_page(path, html)

A template extends "frame.html" (blocks `head_facts` and `body`) and may import "parts.html" (tables, facts, strips).
Pictures come from `pictures.data_uri`, figures from `plots.svg`.

Two walls keep strangers' texts (captions, prompts, names of files) from becoming a part of the page. Everything is
escaped: there is no `|safe`, and the only markup that is believed is the SVG that `plots.svg` made. And the policy in
the page's head allows no script and no file beside it, whatever were in it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from library.atomic import atomic
from library.formatting import file_size, number, visible

TEMPLATES = Path(__file__).parent / "templates"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LONGEST = 2000
"""Characters of a text that are shown; who wants the rest finds it in the run's files."""


def render(template: Path, **context: Any) -> str:
    """The page that `template`, a file, makes of `context`. Raises where the template names what is not there."""
    environment = _environment(template.parent)
    return environment.get_template(template.name).render(policy=POLICY, **context)


def write_page(path: Path, html: str) -> None:
    """Write a page whole or not at all. Raises `UserError` where the disk is full or the folder cannot be written."""
    with atomic(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text that is too long to be read on a page, and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"


@cache
def _environment(theirs: Path) -> Environment:
    """Reads templates from the folder `theirs`, then from ours."""
    environment = Environment(
        autoescape=True,
        loader=ChoiceLoader([FileSystemLoader(theirs), FileSystemLoader(TEMPLATES)]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    del environment.filters["safe"]  # a template that uses it cannot even be read
    environment.filters |= {"shortened": shortened, "bytes": file_size, "figure": number}
    return environment


def _shown(value: Any) -> Any:
    """What every {{ expression }} passes through before it is escaped."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value
