"""A new word's vectors as a trainable: rows only, in float32, held, measured, resumed and saved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embeddings.cross_init import create_initializer
from library.errors import UserError
from library.files import read_metadata, read_tensors
from library.models.family import Family, StableDiffusion
from library.models.placeholders import ExpandingConditioner, Placeholders, token_table
from library.training.optim.optimizers import Optimizers
from library.training.trained.initializers import EncoderContext, starting_vectors
from library.training.trained.textual_inversion import (
    MOST_POINTS,
    EmbeddingRows,
    travel_note,
    travelled,
    without_folders,
)
from miniworld.tiny import build

CPU = torch.device("cpu")


def new_word(
    family: Family = Family.SD1, rate: float = 0.01, model: StableDiffusion | None = None, **arguments: str
) -> tuple[EmbeddingRows, ExpandingConditioner]:
    """A crossed word of two vectors on a frozen tiny model."""
    model = model or build(family)
    for module in model.modules.values():
        module.requires_grad_(False).eval()
    placeholders = Placeholders(model, "zwx", 2)
    conditioner = ExpandingConditioner(model, placeholders)
    args = SimpleNamespace(reg_weight=None, init_word="man")
    contexts = [EncoderContext(conditioner, placeholders, i, "man", args) for i in range(len(model.text_encoders))]
    initializer = create_initializer(args, **arguments)
    starts = [starting_vectors(initializer, context) for context in contexts]
    return EmbeddingRows(initializer, contexts, starts, rate, CPU), conditioner


def loss_of(conditioner: ExpandingConditioner, step: int = 0) -> Tensor:
    """Something that pulls the word's sentence towards a target that differs from step to step."""
    text = conditioner.encode(["a photo of zwx", "a zwx person"], grad=True)
    target = torch.randn(text.hidden.shape, generator=torch.Generator().manual_seed(step))
    loss = (text.hidden.float() - target).square().mean()
    return loss if text.pooled is None else loss + text.pooled.float().square().mean()


def adamw(rows: EmbeddingRows, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(rows.parameter_groups(), **{"weight_decay": 0.01, **options})


def take_steps(rows: EmbeddingRows, conditioner: ExpandingConditioner, optimizer: Any, steps: Iterable[int]) -> None:
    for step in steps:
        optimizer.zero_grad()
        penalty = rows.penalty()
        total = loss_of(conditioner, step)
        (total if penalty is None else total + penalty).backward()
        rows.gradients_ready()
        optimizer.step()
        rows.after_step()


@pytest.mark.parametrize("family", list(Family))
def test_only_the_rows_change(family):
    rows, conditioner = new_word(family)
    model = conditioner.model
    before = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in model.modules.items()}
    starts = [parameter.detach().clone() for parameter in rows.rows]
    take_steps(rows, conditioner, adamw(rows), range(3))
    for name, module in model.modules.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in module.state_dict().items())
    for parameter, start in zip(rows.rows, starts, strict=True):
        assert (parameter.detach() != start).all(), "every encoder's rows get a gradient"


def test_rows_alone_go_the_way_of_the_whole_matrix_with_its_other_rows_put_back():
    """What textual inversion does elsewhere: train the matrix, restore all rows but the new ones after each step."""
    weight, steps = 0.01, 60
    rows, conditioner = new_word(reg_weight=str(weight))
    take_steps(rows, conditioner, adamw(rows), range(steps))

    _, other = new_word(reg_weight=str(weight))
    model = other.model
    (encoder,) = model.text_encoders
    first = other._placeholders.rows[0].first
    start = other._placeholders.rows[0].rows.detach().clone()
    other._placeholders.remove()
    old = token_table(encoder).weight.detach().clone()
    encoder.set_input_embeddings(nn.Embedding.from_pretrained(torch.cat([old, start]), freeze=False))
    matrix = token_table(encoder).weight
    optimizer = torch.optim.AdamW([matrix], lr=0.01, weight_decay=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        far = matrix[first:] - start
        pull = ((far.square().sum(-1) + 1e-12).sqrt() - 1e-6).mean()
        (loss_of(other, step) + weight * pull).backward()
        optimizer.step()
        with torch.no_grad():
            matrix[:first] = old
    torch.testing.assert_close(rows.rows[0].detach(), matrix[first:].detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_the_optimizer_holds_two_numbers_for_each_of_a_row(family):
    rows, conditioner = new_word(family)
    optimizer = adamw(rows)
    take_steps(rows, conditioner, optimizer, range(1))
    for parameter in rows.rows:
        moments = [value for value in optimizer.state[parameter].values() if value.ndim]
        assert sum(value.numel() for value in moments) == 2 * parameter.numel()


def test_weight_decay_alone_shortens_the_vectors_by_its_own_rule():
    rows, _ = new_word()
    optimizer = adamw(rows)
    before = rows.rows[0].detach().norm(dim=-1)
    for _ in range(20):
        rows.rows[0].grad = torch.zeros_like(rows.rows[0])
        optimizer.step()
    torch.testing.assert_close(rows.rows[0].detach().norm(dim=-1), before * (1 - 0.01 * 0.01) ** 20, rtol=1e-5, atol=0)


@pytest.mark.parametrize("copies", [1, 8])
def test_adam_s_first_step_moves_every_number_by_the_learning_rate_whatever_the_batch(copies):
    rows, conditioner = new_word(rate=0.005, reg_weight="0")
    start = rows.rows[0].detach().clone()
    hidden = conditioner.encode(["a photo of zwx"] * copies, grad=True).hidden
    direction = torch.randn(hidden.shape[1:], generator=torch.Generator().manual_seed(4))
    (hidden * direction).sum(dim=(1, 2)).mean().backward()
    gradient = rows.rows[0].grad
    assert gradient is not None
    clear = gradient.abs() > 1e-5
    adamw(rows, weight_decay=0.0).step()
    moved = (rows.rows[0].detach() - start).abs()[clear]
    assert len(moved) > 32
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("steady", "low", "high"), [(0.0, 0.05, 0.3), (0.5, 0.4, 1.1), (50.0, 0.95, 1.1)])
def test_no_number_travels_further_than_rate_times_steps(steady, low, high):
    """320 gradients of noise (of standard deviation 1) with a part that is the same in every step."""
    rows, _ = new_word(rate=0.005)
    start = rows.rows[0].detach().clone()
    optimizer = adamw(rows, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(320):
        rows.rows[0].grad = torch.randn(start.shape, generator=generator) + steady
        optimizer.step()
    assert low <= (rows.rows[0].detach() - start).abs().max() / (0.005 * 320) <= high


def word_towards_one_target(weight: str, steps: int) -> EmbeddingRows:
    """A crossed word after steps towards the same target, at the paper's rate and weight decay."""
    rows, _ = new_word(rate=0.005, reg_weight=weight)
    (context,) = rows._contexts
    ids = torch.tensor([context.ids("a photo of {} person", special=True)])
    target = torch.randn(len(ids[0]), 32, generator=torch.Generator().manual_seed(0))
    optimizer = adamw(rows)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (context.text_encoder(input_ids=ids).last_hidden_state[0] - target).square().mean()
        penalty = rows.penalty()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        rows.after_step()
    return rows


def test_a_strong_pull_holds_the_start_over_the_paper_s_320_steps_and_without_one_it_is_left():
    """Without a pull a number here goes up to 1.4 times rate x steps: Adam's second moment lags behind a gradient that
    grows all the way, so the bound above is one for gradients that do not."""
    held, free = word_towards_one_target("0.1", 320), word_towards_one_target("0", 320)
    start = held._contexts[0].start
    assert start is not None
    assert travelled(held.rows[0].detach(), start)[:, 1].min() >= 0.995
    assert travelled(free.rows[0].detach(), start)[:, 1].max() <= 0.97
    assert 1.1 < (free.rows[0].detach() - start).abs().max() / (0.005 * 320) < 1.5


def test_a_pull_of_no_weight_is_bit_for_bit_no_pull():
    ends = {}
    for weight in ("0", "1e-5", "none"):
        rows, conditioner = new_word(reg_weight="0" if weight == "none" else weight)
        if weight == "none":
            rows._initializer = object()  # one that knows of no pull
        take_steps(rows, conditioner, adamw(rows), range(5))
        ends[weight] = rows.rows[0].detach()
    assert torch.equal(ends["0"], ends["none"])
    assert not torch.equal(ends["0"], ends["1e-5"])


def test_the_pull_s_share_of_the_gradient_is_measured():
    rows, conditioner = new_word(reg_weight="0.5")
    with torch.no_grad():
        rows.rows[0].add_(0.1)
    loss = torch.autograd.grad(loss_of(conditioner), rows.rows)[0].norm()
    penalty = rows.penalty()
    assert penalty is not None
    (loss_of(conditioner) + penalty).backward()
    rows.gradients_ready()
    pull = 0.5 / 2 * 2**0.5  # each of two vectors is pulled with half of the weight
    assert float(rows.after_step()["embedding/pull_ratio"]) == pytest.approx(pull / float(loss), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_stay_in_float32_beside_a_model_in_half_precision_and_all_of_them_move(dtype):
    model = build(Family.SD1)
    model.to("cpu", dtype)
    rows, conditioner = new_word(model=model, rate=1e-3)
    assert rows.rows[0].dtype == torch.float32
    start = rows.rows[0].detach().clone()
    take_steps(rows, conditioner, adamw(rows, weight_decay=0.0), range(1))
    moved = (rows.rows[0].detach() != start).float().mean()
    assert moved == 1.0 if dtype is torch.bfloat16 else moved > 0.9  # float16 has gradients that are zero


def test_rows_in_bfloat16_would_lose_most_of_such_a_step():
    """Why they are never in the model's precision: a step of 1e-3 is less than half of what 1.0 is rounded to."""
    rows, _ = new_word()
    start = rows.rows[0].detach().to(torch.bfloat16)
    assert ((start + torch.full_like(start, 1e-3)) != start).float().mean() < 0.5


def test_clipping_sees_the_rows_only():
    rows, conditioner = new_word()
    loss_of(conditioner).backward()
    own = rows.rows[0].grad.norm()  # type: ignore[union-attr]
    optimizers = Optimizers(adamw(rows), None, rows.group_names, 1e-3)
    norm = optimizers.clip(rows.clipped_parameters())
    torch.testing.assert_close(norm, own)
    before = rows.rows[0].detach().clone()
    torch.optim.SGD(rows.rows, lr=0.01).step()  # without Adam's own scale: rate x the clipped norm
    torch.testing.assert_close((rows.rows[0].detach() - before).norm(), torch.tensor(0.01 * 1e-3), rtol=1e-2, atol=0)


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_ten_steps_and_ten_more_from_its_state_are_twenty_steps(family):
    whole, conditioner = new_word(family, reg_weight="0.1")
    optimizer = adamw(whole)
    take_steps(whole, conditioner, optimizer, range(10))
    state = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    moments = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    halfway = optimizer.state_dict()
    halfway = {"state": {k: {n: v.clone() for n, v in s.items()} for k, s in halfway["state"].items()}}
    halfway["param_groups"] = moments
    take_steps(whole, conditioner, optimizer, range(10, 20))

    resumed, other = new_word(family, names="default", cross="false", reg_weight="0.1")  # it would start elsewhere
    resumed.load_state_dict(state)
    again = adamw(resumed)
    again.load_state_dict(halfway)
    take_steps(resumed, other, again, range(10, 20))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for one, other_one in zip(whole.rows, resumed.rows, strict=True):
        for name, moment in optimizer.state[one].items():
            assert torch.equal(moment, again.state[other_one][name]), name


def test_a_state_of_other_vectors_is_refused():
    rows, _ = new_word()
    state = rows.state_dict()
    with pytest.raises(UserError, match=r"shape \(1, 32\) for clip_l, but \(2, 32\) are trained"):
        rows.load_state_dict(state | {"start.clip_l": state["start.clip_l"][:1]})


def test_every_step_s_figures_are_norm_and_cosine_of_every_vector():
    rows, conditioner = new_word(Family.SDXL)
    take_steps(rows, conditioner, adamw(rows), range(1))
    figures = rows.after_step()
    names = [f"{encoder}_{i}" for encoder in ("clip_l", "clip_g") for i in range(2)]
    assert {f"embedding/{n}/{what}" for n in names for what in ("norm_ratio", "cosine")} <= set(figures)
    start = rows._contexts[1].start
    assert start is not None
    expected = rows.rows[1].detach()[1].norm() / start[1].norm()
    torch.testing.assert_close(figures["embedding/clip_g_1/norm_ratio"], expected)


def test_curves_cover_the_run_with_a_bounded_number_of_points():
    rows, _ = new_word(reg_weight="0")
    for _ in range(2 * MOST_POINTS + 10):
        rows.after_step()
    series = rows.findings().series["embedding norms"]
    assert len(series.x) <= MOST_POINTS
    assert series.x[0] < 10 < 2 * MOST_POINTS - 10 < series.x[-1]
    assert set(series.lines) == {"clip_l_0", "clip_l_1"}


def test_a_word_that_did_not_move_says_so():
    rows, conditioner = new_word()
    assert rows.findings().moved == 0
    take_steps(rows, conditioner, adamw(rows), range(1))
    found = rows.findings()
    assert (found.moved, found.tensors) == (1, 1)
    assert "cosine to the start" in found.lines[0]


@pytest.mark.parametrize(
    ("rate", "steps", "size", "said"),
    [
        (1e-6, 1600, 1.0, "hardly move"),
        (0.005, 320, 1.0, None),
        (0.08, 25, 1.0, None),
        (0.04, 320, 1.0, "far beyond"),
        (0.0005, 320, 1.0, "hardly move"),
        (0.001, 199, 1.0, "hardly move"),  # of a crossed start: less than 0.2
        (0.001, 201, 1.0, None),
        (0.01, 399, 1.0, None),
        (0.01, 401, 1.0, "far beyond"),  # more than 4, of any start
        (0.01, 401, 0.014, "far beyond"),
        (0.0005, 320, 0.014, None),  # a word's own embedding is small: it trebles its norm on the way
    ],
)
def test_rates_and_lengths_that_do_not_go_together_are_reported(rate, steps, size, said):
    note = travel_note(rate, steps, size)
    assert (note is None) == (said is None)
    assert said is None or said in str(note)
    rows, _ = new_word(rate=rate)
    size = float(rows.rows[0].detach().square().mean().sqrt())
    note = travel_note(rate, steps, size)
    assert rows.announce(1, steps) == ([note] if note else [])
    rows.start_step = steps
    assert len(rows.announce(1, steps)) == 1, "no step is left"


def test_the_header_tells_what_was_done_and_no_folder_of_this_machine(tmp_path):
    rows, conditioner = new_word()
    rows._described = {"ss_initializer_args": without_folders({"names": "/home/me/names.txt", "columns": "a/b.txt,c"})}
    take_steps(rows, conditioner, adamw(rows), range(2))
    rows.save(tmp_path / "face.safetensors", {"ss_steps": "2"})
    header = read_metadata(tmp_path / "face.safetensors")
    assert header["ss_initializer_args"] == '{"names": "names.txt", "columns": "b.txt,c"}'
    assert header["ss_token_string"] == "zwx"
    assert header["ss_learning_rate"] == "0.01"
    assert len(header["ss_init_norms"].split(",")) == len(header["ss_cos_to_init"].split(",")) == 2
    assert "/" not in "".join(header.values())
    tensors, _ = read_tensors(tmp_path / "face.safetensors")
    assert torch.equal(tensors["emb_params"], rows.rows[0].detach())


def test_vectors_that_are_not_finite_are_not_written(tmp_path):
    rows, _ = new_word()
    with torch.no_grad():
        rows.rows[0][0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        rows.save(tmp_path / "face.safetensors", {})
    assert not list(tmp_path.iterdir())
