"""Figures as part of a page: matplotlib's SVG, brought to the page's own type, ink and colours.

Figures are drawn in the colours named here, which are not real ones: in the page each becomes a variable of its style,
so that a figure is right in light and in dark. Text stays text. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from library.formatting import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#010101", "#010102", "#010103"
SERIES = tuple(f"#0102{number:02x}" for number in range(1, 7))
"""Colours of lines. Tell lines apart by `DASHES` too: nothing is shown by colour alone."""
DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))

_VARIABLES = {INK: "currentColor", SOFT: "var(--soft)", GRID: "var(--grid)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(url\(#|^#)([^)]+)")


@contextmanager
def new_figure(width: float = 9, height: float = 3.2) -> Iterator[tuple[Figure, Axes]]:
    """A figure of that many inches (72 px each on the page) with one pair of axes in the page's manner.

    Draw inside the block, and give texts through `label`.
    """
    with stacked_figure((1,), width, height) as (figure, axes):
        yield figure, axes[0]


@contextmanager
def stacked_figure(
    heights: Sequence[float], width: float = 9, height: float = 4.4
) -> Iterator[tuple[Figure, list[Axes]]]:
    """The same with several pairs of axes over one x, one below the other; `heights` are relative."""
    import matplotlib  # a second of import: only where something is drawn
    from matplotlib.figure import Figure  # not pyplot: no window system, nothing global

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        yield figure, list(axes[:, 0])


def label(text: str, longest: int = 60) -> str:
    """A text for a figure: cut to a length, never read as a formula."""
    shown = visible(text.replace("\n", " ").replace("\t", " "))
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    shown = shown.replace("$", r"\$")
    return "\u200a" + shown if shown.startswith("_") else shown  # matplotlib hides labels that begin so


def svg(figure: Figure, description: str) -> Markup:
    """The figure for a page; `description` is what someone who does not see it reads. The only markup that is made
    outside of the templates."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that matplotlib's font lacks: the page's fonts draw them
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Markup(_for_a_page(buffer.getvalue(), visible(description)))


def _for_a_page(drawn: bytes, description: str) -> str:
    """Matplotlib's file as an element of a page: no style of its own, names that occur once, the page's colours."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(drawn)
    for parent in root.iter():
        for child in [c for c in parent if c.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    _rename_ids(root, prefix="f" + hashlib.sha256(drawn + description.encode()).hexdigest()[:8])
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            element.set(name, _in_our_colours(value))
        if "style" in element.attrib:
            element.set("style", _in_our_type(element.attrib["style"]))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"class": "plot", "role": "img", "aria-label": description})
    text = ElementTree.tostring(root, encoding="unicode")
    return text.replace(f' xmlns="{_SVG}"', "").replace(f' xmlns:xlink="{_LINK}"', "")


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep the names that something refers to, with a prefix: two figures of a page must not share one."""
    for element in root.iter():
        link = element.attrib.pop(f"{{{_LINK}}}href", None)
        if link is not None:
            element.set("href", link)
    used = {found[2] for e in root.iter() for value in e.attrib.values() for found in _REFERENCE.finditer(value)}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                del element.attrib[name]
                if value in used:
                    element.set("id", f"{prefix}-{value}")
            elif not value.startswith("data:"):
                element.set(name, _REFERENCE.sub(rf"\g<1>{prefix}-\g<2>", value))


def _in_our_colours(value: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), value)


def _in_our_type(style: str) -> str:
    """Without matplotlib's fonts, so that the page's holds."""
    return re.sub(r"font-family:[^;]*;?\s*", "", style).strip()


_STYLE: Any = {
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
}
