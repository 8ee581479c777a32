"""The frame of every page: nothing that a stranger wrote becomes a part of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import TemplateAssertionError, UndefinedError
from PIL import Image

from library.errors import UserError
from library.formatting import visible
from library.report.page import render, shortened, write_page
from library.report.pictures import data_uri
from library.report.plots import SERIES, label, new_figure, svg
from tests.library.report.hostile import HOSTILE, Page

ROOT = Path(__file__).resolve().parents[3]
ODD = """{% extends "frame.html" %}{% import "parts.html" as parts %}
{% block kind %}{{ text }}{% endblock %}
{% block body %}<p id="own" title="{{ text }}">{{ text }}</p>{{ plot }}
{{ parts.notice("bad", [text]) }}{{ parts.facts([(text, text, text)]) }}
{{ parts.table(text, [text], [[text], [text]]) }}
{{ parts.plot(plot, text, [text], [[text, 1]], text) }}{% endblock %}"""


def template(folder: Path, text: str) -> Path:
    (folder / "odd.html").write_text(text, encoding="utf-8")
    return folder / "odd.html"


def drawn(*texts: str):
    with new_figure() as (figure, axes):
        axes.set(title=label(texts[0]), xlabel=label(texts[-1]))
        lines = [axes.plot([0, 1], [1, 0], color=SERIES[0])[0] for _ in texts]
        axes.legend(lines, [label(text) for text in texts])
    return svg(figure, "".join(texts))


def test_hostile_texts_are_shown_literally_wherever_they_are(tmp_path: Path):
    path, plot = template(tmp_path, ODD), drawn(*HOSTILE)
    for text in HOSTILE:
        html = render(path, title=text, text=text, plot=plot)
        html.encode("utf-8")
        page = Page(html)
        page.refuse_anything_active()
        wanted = visible(shortened(text)) if len(text) > 2000 else visible(text)
        assert wanted in page.text, repr(text[:40])
        assert ("title", visible(text)) in page.attributes
        assert page.tags.count("h1") == page.tags.count("title") == 1


def test_safe_is_no_filter_here(tmp_path: Path):
    with pytest.raises(TemplateAssertionError, match="safe"):
        render(template(tmp_path, "{{ text | safe }}"), text="<b>")


def test_a_name_that_is_not_given_is_an_error(tmp_path: Path):
    with pytest.raises(UndefinedError):
        render(template(tmp_path, "{{ nothing }}"))


def test_markup_is_made_in_one_place_and_escaping_is_never_switched_off():
    ours = [p for p in ROOT.rglob("*.py") if not {".venv", "tests"} & set(p.relative_to(ROOT).parts)]
    assert [p.name for p in ours for _ in re.findall(r"\bMarkup\(", p.read_text("utf-8"))] == ["plots.py"]
    templates = list(ROOT.glob("library/**/templates/*.html"))
    assert templates
    for path in templates:
        assert not re.search(r"\|\s*safe|autoescape|tojson|xmlattr|urlize", path.read_text("utf-8")), path


def test_the_policy_forbids_scripts_and_everything_from_outside(tmp_path: Path):
    html = render(template(tmp_path, '{% extends "frame.html" %}'), title="t")
    assert 'content="default-src &#39;none&#39;; img-src data:; style-src &#39;unsafe-inline&#39;"' in html
    assert '<html lang="en">' in html


def test_a_figure_is_the_same_twice_and_speaks_in_the_colours_of_the_page():
    first, again = drawn("loss"), drawn("loss")
    assert first == again
    assert "var(--series-1)" in first
    assert "currentColor" in first
    assert "font-family" not in first
    assert not re.search(r"#0102\d\d|<style|<metadata", first)
    assert re.findall(r">loss<", first)  # text stays text


def test_letters_that_only_the_page_can_draw_are_no_warning(recwarn: pytest.WarningsRecorder):
    assert "\u732b" in drawn("\u732b")
    assert not recwarn


def test_two_figures_of_a_page_share_no_names():
    ids = re.findall(r' id="([^"]+)"', drawn("one")) + re.findall(r' id="([^"]+)"', drawn("two"))
    assert ids
    assert len(ids) == len(set(ids))


def test_a_picture_becomes_small_and_a_missing_one_nothing(tmp_path: Path):
    Image.effect_noise((1024, 512), 40).convert("RGB").save(tmp_path / "a.png")
    small = data_uri(tmp_path / "a.png")
    assert small is not None
    assert small.startswith("data:image/webp;base64,")
    assert len(small) < 30_000
    assert data_uri(tmp_path / "none.png") is None
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    assert data_uri(tmp_path / "cut.png") is None


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path):
    write_page(tmp_path / "a.html", "old")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match="could not be written"):
        write_page(tmp_path / "folder.html", "new")
    assert (tmp_path / "a.html").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "folder.html"]
