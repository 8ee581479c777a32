"""The nearest reference of each picture, and when it is too near."""

from __future__ import annotations

from library.metrics.copying import Copying, MostAlike
from library.metrics.evaluation import copying_lines


def test_a_picture_nearer_to_a_reference_than_references_are_to_each_other_is_suspect():
    found = [MostAlike("a.png", "1.png", 0.97), MostAlike("b.png", "2.png", 0.85), MostAlike("c.png", "1.png", 0.4)]
    copying = Copying("dino", found, among_references=0.9)
    assert [one.file for one in copying.suspects] == ["a.png"]
    lines = copying_lines(copying, shown=2).splitlines()
    assert lines == [
        "nearest references, cosines of dino (two references: at most 0.900)",
        "  a.png ~ 1.png  0.970",
        "  b.png ~ 2.png  0.850",
        "  1 of 3 pictures is more like a reference than any two references are like each other: a copy?",
    ]


def test_a_single_reference_accuses_nobody():
    assert Copying("dino", [MostAlike("a.png", "1.png", 0.999)], among_references=None).suspects == []
