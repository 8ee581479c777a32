from __future__ import annotations

import pytest

from miniworld.check import CheckLine, describe, shares, table
from miniworld.facts import Facts
from miniworld.questions import asked, prompt, questions


def test_shares_count_each_head_over_the_pictures_that_were_asked():
    wanted = [{"colour": "red", "shape": "star"}, {"colour": "blue"}]
    seen = [{"colour": "red", "shape": "ring"}, {"colour": "blue", "shape": "star"}]
    assert shares(wanted, seen) == {"colour": (2, 1.0), "shape": (1, 0.0)}


def test_a_line_is_missed_only_below_its_threshold():
    assert CheckLine("shape", 10, 0.79, 1.0, 0.80).missed
    assert not CheckLine("shape", 10, 0.80, 1.0, 0.80).missed
    assert not CheckLine("eye_colour", 10, 0.1, 1.0, None).missed


def test_the_table_names_what_was_missed():
    lines = table({"name": (40, 0.5), "skin": (50, 0.9)}, {"name": (40, 1.0), "skin": (50, 0.98)})
    assert [(line.asked, line.missed) for line in lines] == [("name", True), ("skin", False)]
    result = {
        "lines": [vars(line) for line in lines],
        "missed": ["name"],
        "vae_psnr": 30.0,
        "latent_std": [1.0] * 4,
        "output_norm": 11.3,
        "row_norm": 0.3,
        "norm_ratio": 37.7,
        "seconds_in_batch_of_16": 0.2,
        "seconds_alone": 0.5,
    }
    assert "missed: name" in describe(result)


def test_questions_are_the_same_every_time_and_say_what_they_ask():
    counts = {"shape": 3, "object": 3, "face": 3, "named": 2}
    first, second = questions(counts), questions(counts)
    assert [question.prompt for question in first] == [question.prompt for question in second]
    for question in first:
        for head in ("colour", "shape", "object", "place", "hair_colour", "name"):
            if head in question.asked:
                assert question.asked[head] in question.prompt


@pytest.mark.parametrize("glasses", ["none", "square"])
def test_a_face_prompt_leaves_nothing_unsaid(glasses):
    facts = Facts(
        kind="face", background="red", gender="man", skin="tan", hair_style="short", hair_colour="blond",
        eye_colour="blue", expression="sad", glasses=glasses, beard="none", hat="none",
    )  # fmt: skip
    text = prompt(facts)
    assert text.startswith("a photo of a tan man with short blond hair")
    assert text.endswith("sad, red background")
    assert ("square glasses" in text) == (glasses == "square")
    assert asked(facts)["glasses"] == glasses
