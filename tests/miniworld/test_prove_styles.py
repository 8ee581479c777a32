from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.errors import UserError
from miniworld.prove.ac_lora import FIRST, THEN
from miniworld.prove.arms import arm_key, base_key, command_line, describe_file, lora, measured_steps
from miniworld.prove.exam import merge
from miniworld.prove.lora import table
from miniworld.prove.measures import similarity
from miniworld.prove.results import Results, measure_what_is_missing
from miniworld.prove.sweep import arms
from miniworld.prove.tables import cell, write_between_marks
from miniworld.prove.verdict import SWEEP, report
from networks import ac_lora_report


def arm(style, method, dim, seed, end, **more):
    figures = {"best": end, "best_step": 600, "prior": 0.1, "frechet": 500.0, "similarity": 0.7, "style_score": 0.4}
    figures |= {"content_score": 0.8, "kilobytes": 100 * dim, "cpu_seconds": 100.0}
    return {"style": style, "method": method, "dim": dim, "steps": 600, "seed": seed, "end": end, **figures, **more}


def base(style):
    ceiling = {f"ceiling_{name}": 0.9 for name in ("frechet", "similarity", "style_score", "content_score")}
    untrained = {"end": 0.2, "best": 0.2, "best_step": 0, "prior": 0.03, "frechet": 2000.0}
    return base_key(style) | untrained | {"similarity": 0.5, "style_score": 0.0, "content_score": 0.9} | ceiling


def test_a_second_call_measures_only_what_is_missing(tmp_path):
    file = tmp_path / "arms.jsonl"
    keys = [arm_key("oil", lora(rank), 600, 0) for rank in (1, 4)]
    measured = []
    for count in (1, 2):
        measure_what_is_missing(Results(file), keys[:count], lambda key: measured.append(key["dim"]) or {"end": 0.1})
    assert measured == [1, 4]
    assert [json.loads(line)["dim"] for line in file.read_text().splitlines()] == [1, 4]


def test_an_arm_whose_line_was_cut_short_is_measured_again_and_the_file_stays_readable(tmp_path):
    file = tmp_path / "arms.jsonl"
    key = arm_key("oil", lora(1), 600, 0)
    file.write_text(json.dumps({**key, "end": 0.1})[:40])
    measure_what_is_missing(Results(file), [key], lambda key: {"end": 0.3})
    assert [found["end"] for found in Results(file).arms] == [0.3]


def test_an_arm_made_with_other_weights_is_measured_again(tmp_path):
    file, weights = tmp_path / "arms.jsonl", tmp_path / "unet.safetensors"
    for content, end in ((b"before", 0.1), (b"after it", 0.2)):
        weights.write_bytes(content)
        measure_what_is_missing(Results(file, [weights]), [base_key("oil")], lambda key, end=end: {"end": end})
    assert [arm["end"] for arm in Results(file, [weights]).arms] == [0.2]
    assert len(file.read_text().splitlines()) == 2


def test_no_arm_is_begun_after_the_time_is_over(tmp_path):
    results = Results(tmp_path / "arms.jsonl")
    measure_what_is_missing(results, [{"style": "oil"}], lambda key: {}, minutes=1e-9)
    assert not results.arms


def test_one_seed_of_everything_comes_before_the_next_seed():
    keys = list(arms([lora(1), lora(4)], ["oil", "comic"], 600, seeds=2))
    assert [key["method"] for key in keys[:2]] == ["base model"] * 2
    assert [key["seed"] for key in keys[2:]] == [0] * 4 + [1] * 4


def test_arms_of_different_settings_have_different_keys():
    keys = [arm_key(style, method, 600, 0) for style in ("oil", "comic") for method in FIRST + THEN]
    assert len({json.dumps(key) for key in keys}) == len(keys)


def test_the_held_out_loss_is_measured_where_files_are_written():
    assert measured_steps(600) == [60, 120, 180, 300, 480, 600]
    for steps in (5, 95, 200, 601):
        every = max(1, steps // 10)
        assert measured_steps(steps)[-1] == steps
        assert all(step % every == 0 for step in measured_steps(steps)[:-1])


@pytest.mark.parametrize("method", FIRST + THEN, ids=lambda method: method.label)
def test_every_option_of_an_arm_is_one_that_training_knows(method, tmp_path):
    settings = parse(command_line(method, tmp_path, 600, 3), *ALL_TRAIN_NETWORK, prog="arm", description="")
    assert not settings.warnings
    assert settings["network_module"] == method.module
    assert settings["seed"] == 3


def test_pictures_are_as_similar_as_their_features_point_the_same_way():
    truth = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert similarity(3 * truth, truth) == pytest.approx(1)
    assert similarity(truth.flip(0), truth) == pytest.approx(0)


def test_a_lora_file_is_merged_whether_the_last_factor_of_a_convolution_has_two_dimensions_or_four():
    layers: dict[str, nn.Linear | nn.Conv2d] = {
        "to_q": nn.Linear(6, 4, bias=False),
        "proj_in": nn.Conv2d(4, 4, 1, bias=False),
    }
    unet = nn.ModuleDict(layers)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    q, k = (torch.randn(4, 2), torch.randn(2, 6)), (torch.randn(4, 2), torch.randn(2, 4))
    tensors = {"lora_unet_to_q.lora_up.weight": q[0], "lora_unet_to_q.lora_down.weight": q[1]}
    tensors |= {"lora_unet_proj_in.lora_up.weight": k[0], "lora_unet_proj_in.lora_down.weight": k[1].view(2, 4, 1, 1)}
    tensors |= {f"lora_unet_{name}.alpha": torch.tensor(1.0) for name in unet}
    merge(unet, tensors, 4.0)
    for name, (up, down) in {"to_q": q, "proj_in": k}.items():
        assert torch.allclose(layers[name].weight.flatten(1) - before[name].flatten(1), 2.0 * up @ down, atol=1e-5)


def test_the_ranks_that_were_found_are_read_from_the_file(tmp_path):
    restarts = [
        {"epoch": e, "p": 0.9, "loss": 0.1, "mean_rank": mean, "ranks": {"a": 2}} for e, mean in ((1, 9.0), (16, 2.5))
    ]
    metadata = ac_lora_report.metadata(restarts, "product", "energy:0.999", {"a": 2, "b": 4})
    file = tmp_path / "network.safetensors"
    save_file({"a.lora_up.weight": torch.zeros(4, 2), "a.alpha": torch.tensor(2.0)}, file, metadata)
    found = describe_file(file)
    assert (found["restarts"], found["rank_found"], found["rank_in_file"]) == (2, 2.5, 3.0)
    assert found["parameters"] == 8


def test_a_cell_has_the_spread_of_two_or_more():
    assert cell([{"end": 0.1}], "end", 2) == "0.10"
    assert cell([{"end": 0.1}, {"end": 0.3}], "end", 2) == "0.20 ± 0.14"
    assert cell([{}], "rank_found", 1) == ""


def test_the_curve_has_a_row_for_each_style_and_rank_with_the_number_of_seeds():
    text = table([base("oil"), arm("oil", "LoRA", 4, 0, 0.1), arm("oil", "LoRA", 4, 1, 0.2)], 600)
    assert "| oil | 4 | 2 | 0.2000 | 0.1500 ± 0.0707 |" in text


def sweep(style, seed, ends):
    return [arm(style, "LoRA", rank, seed, end) for rank, end in zip(SWEEP, ends, strict=True)]


def test_the_tables_say_who_wins_whoever_it_is():
    found = [base("oil")]
    for seed, (largest, product, paper) in enumerate([(0.16, 0.12, 0.15), (0.20, 0.09, 0.18)]):
        found += sweep("oil", seed, ends=(0.10, 0.11, 0.12, largest))
        found += [arm("oil", "AC-LoRA product", 32, seed, product, rank_found=2.0, kilobytes=1600, cpu_seconds=50.0)]
        found += [arm("oil", "AC-LoRA paper", 32, seed, paper, rank_found=15.0, style_score=0.9)]
    text = report(found, 600)
    assert "ended at 1.05 (0.90-1.20) times the held-out loss of the best fixed rank, in 0.12 of the time" in text
    assert "Against a plain LoRA of rank 64 it ended at 0.60 (0.45-0.75) times the loss, with a file 4.0 times" in text
    assert "| AC-LoRA product 32 | 2 | 0.1050 ± 0.0212 |" in text
    assert "15.0 (15.0-15.0) of 32" in text
    assert "held-out loss at the end: LoRA 1;" in text
    assert "style: AC-LoRA paper 32;" in text


def test_nothing_is_compared_with_the_best_rank_before_all_ranks_of_the_sweep_are_measured():
    product = arm("oil", "AC-LoRA product", 32, 0, 0.1, rank_found=2.0)
    ranks = sweep("oil", 0, ends=(0.2, 0.2, 0.2, 0.2))
    assert "ac_mode" not in report([base("oil"), *ranks[:3], product], 600)
    assert "0.50" in report([base("oil"), *ranks, product], 600)


def test_a_table_without_ac_lora_makes_no_claim_about_it():
    text = report([base("oil"), arm("oil", "LoRA", 1, 0, 0.1)], 600)
    assert "ac_mode" not in text


def test_a_table_replaces_what_is_between_its_marks(tmp_path):
    file = tmp_path / "doc.md"
    file.write_text("before\n<!-- prove lora -->\nold\n<!-- end of prove lora -->\nafter\n")
    write_between_marks(file, "prove lora", "| new |\n")
    assert file.read_text() == "before\n<!-- prove lora -->\n\n| new |\n\n<!-- end of prove lora -->\nafter\n"
    with pytest.raises(UserError, match="no place for this table"):
        write_between_marks(file, "prove ac_lora", "")
