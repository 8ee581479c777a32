"""The proof of the verdict: what it counts."""

from __future__ import annotations

from dataclasses import asdict

from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from miniworld.prove.overfit import ARMS, command_line, table


def result(seed: int, best: float, last: float, overfitted: bool) -> dict:
    losses = {"held_out_best": 0.1, "held_out_last": 0.2, "fresh_best": best, "fresh_last": last}
    return {**asdict(ARMS["too long"]), "seed": seed, "best_step": 60 + seed, "overfitted": overfitted, **losses}


def test_the_table_counts_how_often_the_best_file_is_the_better_and_is_called_so():
    text = table([result(0, 0.1, 0.2, True), result(1, 0.2, 0.1, True), result(2, 0.1, 0.3, False)])
    row = text.splitlines()[2]
    assert "| 60 to 62 |" in row
    assert row.endswith("| 2 of 3 | 2 of 3 |")
    assert "gentle" not in text


def test_the_options_of_an_arm_are_options_of_the_trainer(tmp_path):
    words = command_line({**asdict(ARMS["gentle"]), "seed": 3}, tmp_path)
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="")
    assert settings["save_best"]
    assert (settings["seed"], settings["validation_seed"], settings["network_dim"]) == (3, 3, 4)
    assert not settings.explicit("validation_split")
