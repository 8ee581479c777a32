"""Cross Initialization: the mean of names, the cross step, and what the start must be like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from embeddings.cross_init import PRESETS, column_mean, create_initializer, crossed, mean_embeddings, split_halves
from embeddings.names import DEFAULT_LISTS, columns_of_names, filled, read_names
from library.errors import UserError
from library.models.family import Family
from library.models.placeholders import token_table
from library.models.tokenizers import build_tokenizer, find_vocabulary
from library.training.initializers import EncoderContext, starting_vectors
from miniworld.tiny import build
from tests.embeddings.conftest import Contexts, contexts_on, like_real_ones

NAMES = ["anna smith", "john jones", "mary ben", "ben john smith", "anna", "anna smith"]


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """The names with what files of names may hold: a byte order mark, CRLF, blank lines, an accent."""
    text = "\r\n".join([*NAMES[:3], "", "  ", *NAMES[3:], "anná"])
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    return tmp_path / "names.txt"


def start_of(ctx: EncoderContext, **arguments: str) -> torch.Tensor:
    return starting_vectors(create_initializer(ctx.args, **arguments), ctx)


def test_means_are_those_of_a_plain_loop_over_the_rule(names, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 3)
    table = token_table(ctx.text_encoder).weight
    listed = [*NAMES, "anná"]
    tokens = [ctx.tokenizer(name, add_special_tokens=False).input_ids for name in listed]
    expected = []
    for i in range(3):
        rows = [table[ids[i]].double() for ids in tokens if len(ids) > i]
        expected.append(torch.stack(rows).mean(dim=0).float())
    assert read_names(names) == listed
    means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 3))
    torch.testing.assert_close(means, torch.stack(expected), atol=1e-8, rtol=0)


def test_only_names_of_exactly_as_many_tokens_count_under_the_exact_policy():
    tokenize = {"a b": [1, 2], "c": [3], "d e f": [4, 5, 6]}.__getitem__
    assert columns_of_names(["a b", "c", "d e f"], tokenize, 2) == [[1, 3, 4], [2, 5]]
    assert columns_of_names(["a b", "c", "d e f"], tokenize, 2, exact=True) == [[1], [2]]


@pytest.mark.parametrize("family", list(Family))
def test_the_start_is_the_encoder_s_output_at_the_word_s_places(family, names, contexts: Contexts):
    for ctx in contexts(family, 2):
        start = start_of(ctx, names=str(names))
        means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
        with ctx.placeholders.rows[ctx.index].holding(means):
            hidden = ctx.conditioner.encode([ctx.token_string]).hidden[0, 1:3]
        before = 0 if ctx.index == 0 else ctx.conditioner.model.text_encoders[0].config.hidden_size
        torch.testing.assert_close(start, hidden[:, before : before + ctx.hidden_size], atol=1e-5, rtol=0)


def test_the_cross_step_is_the_transformer_s_own_arithmetic(names, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2)
    encoder, tokenizer = ctx.text_encoder, ctx.tokenizer
    table = token_table(encoder).weight
    means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
    e = torch.cat([table[[tokenizer.bos_token_id]], means, table[[tokenizer.eos_token_id]]])
    h = (e + encoder.embeddings.position_embedding.weight[: len(e)]).unsqueeze(0)
    mask = torch.full((len(e), len(e)), float("-inf")).triu(1)[None, None]
    for layer in encoder.encoder.layers:
        h = layer(h, attention_mask=mask)
        h = h[0] if isinstance(h, tuple) else h
    torch.testing.assert_close(crossed(ctx, means), encoder.final_layer_norm(h)[0, 1:3], atol=1e-5, rtol=0)


def test_what_follows_the_word_does_not_matter(contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2)
    means = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    bare = ctx.ids("{}", special=True)
    alone, padded = ctx.encode(bare[:-1], means)[1:3], ctx.encode(bare + [bare[-1]] * 73, means)[1:3]
    noise = torch.randint(0, 200, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    followed = ctx.encode(bare[:-1] + noise, means)[1:3]
    for other in (padded, followed, ctx.encode(bare, means)[1:3]):
        torch.testing.assert_close(other, alone, atol=1e-5, rtol=0)


def test_the_start_of_an_encoder_like_clip_has_the_norm_of_a_normalised_vector():
    (ctx,) = contexts_on(like_real_ones(build(Family.SD1)), 2, init_word="man")
    rows = token_table(ctx.text_encoder).weight.norm(dim=-1).mean()
    norms = start_of(ctx).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full((2,), 8.0), rtol=0.01, atol=0)
    assert norms.mean() / rows > 50


def test_a_crossed_vector_passes_the_encoder_almost_unchanged():
    """Why the output is a good start: read again, it dominates the residual stream."""
    (ctx,) = contexts_on(like_real_ones(build(Family.SD1)), 2, init_word="man")
    start = start_of(ctx)
    again = crossed(ctx, start)
    normalised = F.layer_norm(start, (ctx.hidden_size,))
    assert F.cosine_similarity(again, normalised, dim=-1).min() >= 0.85


def test_both_attentions_give_the_same_start(names, contexts: Contexts):
    starts = []
    for attention in ("sdpa", "eager"):
        (ctx,) = contexts(Family.SD1, 2)
        ctx.text_encoder.set_attn_implementation(attention)
        starts.append(start_of(ctx, names=str(names)))
    torch.testing.assert_close(*starts, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.9995), (torch.float16, 0.99999)])
def test_half_precision_encoders_give_nearly_the_same_start(dtype, least, names, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2)
    exact = start_of(ctx, names=str(names))
    (half,) = contexts(Family.SD1, 2)
    half.text_encoder.to(dtype)
    start = start_of(half, names=str(names))
    assert start.dtype == torch.float32
    assert F.cosine_similarity(start, exact, dim=-1).min() >= least


def test_the_layer_is_the_one_that_the_denoiser_reads(names, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2, clip_skip=2)
    ids = ctx.ids("{}", special=True)
    means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
    torch.testing.assert_close(start_of(ctx, names=str(names)), ctx.encode(ids, means)[1:3], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        start_of(ctx, names=str(names), layer="final"), ctx.encode_final(ids, means)[1:3], atol=1e-5, rtol=0
    )
    assert not torch.allclose(start_of(ctx, names=str(names)), start_of(ctx, names=str(names), layer="final"))
    raw = contexts(Family.SDXL, 2)[1]
    assert not torch.allclose(start_of(raw, names=str(names)), start_of(raw, names=str(names), layer="final"))


def test_the_order_of_the_names_does_not_matter(names, tmp_path, contexts: Contexts):
    (ctx,) = contexts()
    (tmp_path / "other.txt").write_text("\n".join(reversed(read_names(names))), encoding="utf-8")
    other = start_of(ctx, names=str(tmp_path / "other.txt"))
    torch.testing.assert_close(start_of(ctx, names=str(names)), other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_more_vectors_than_tokens_of_a_name_begin_again_or_are_an_error(count, names, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, count)
    start = start_of(ctx, names=str(names), fill="cycle")
    assert start.shape == (count, 32)
    assert len(start.unique(dim=0)) == count, "places differ, so equal means still give different vectors"
    assert filled([[1], [2]], 5, cycle=True) == [[1], [2], [1], [2], [1]]
    if count == 8:
        with pytest.raises(UserError, match=r"no name has a token for vector \d of 8"):
            start_of(ctx, names=str(names))


@pytest.mark.parametrize(("word", "used"), [("man", [0, 0]), ("black cat face", [0, 1])])
def test_a_word_is_crossed_as_its_tokens_repeated_or_cut(word, used, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2, init_word=word)
    ids = ctx.ids(word)
    initializer = create_initializer(ctx.args)
    expected = crossed(ctx, ctx.base_rows([ids[i] for i in used]))
    assert torch.equal(starting_vectors(initializer, ctx), expected)
    assert len(initializer.notes) == 1


def test_a_context_s_places_are_read_where_the_word_stands(names, contexts: Contexts):
    (ctx,) = contexts()
    means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
    within = start_of(ctx, names=str(names), context="a photo of a {} person")
    ids = ctx.ids("a photo of a {} person", special=True)
    assert torch.equal(within, ctx.encode(ids, means)[5:7])
    assert not torch.allclose(within, start_of(ctx, names=str(names)))


def test_the_default_lists_hold_plain_words_once_and_enough_of_them():
    for path in DEFAULT_LISTS:
        words = read_names(path)
        assert len(words) == len(set(words)) >= 250
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_each_default_name_is_one_token_of_clip():
    vocabulary = find_vocabulary(None, Path("nowhere/model.safetensors"))
    if vocabulary is None:
        pytest.skip("CLIP's vocabulary is not on this machine")
    tokenizer = build_tokenizer(vocabulary, None)
    for path in DEFAULT_LISTS:
        assert all(len(ids) == 1 for ids in tokenizer(read_names(path), add_special_tokens=False).input_ids)


def test_the_default_lists_are_two_columns_and_their_agreement_is_told(contexts: Contexts):
    (ctx,) = contexts()  # the tiny vocabulary knows only a few of the names
    initializer = create_initializer(ctx.args)
    starting_vectors(initializer, ctx)
    told = "\n".join(initializer.notes)
    assert "two halves of the names agree" in told
    assert "fewer than 50 names" in told
    assert set(initializer.metadata()) >= {"ss_names_sha256", "ss_names_count", "ss_split_half_cos_clip_l"}
    assert str(DEFAULT_LISTS[0]) not in str(initializer.metadata())


def test_halves_share_no_place_and_leave_none_out():
    columns = [list(range(7)), list(range(10, 20))]
    for column, first, second in zip(columns, *split_halves(columns), strict=True):
        assert sorted(first + second) == column


def test_a_column_s_mean_is_exact_in_double_precision():
    rows = torch.tensor([[1.0, 1e8], [1.0, 1.0], [1.0, -1e8]])
    assert column_mean(rows).tolist() == pytest.approx([1.0, 1 / 3])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"names": "missing.txt"}, "does not exist"),
        ({"names": "default", "columns": "a,b"}, "exclude each other"),
        ({"layer": "last"}, "must be one of conditioning, final"),
        ({"context": "a photo"}, "must hold {} once"),
        ({"preset": "slow"}, "must be one of paper, fast"),
        ({"reg_weight": "-1"}, "at least 0"),
        ({"norm_control": "clamp"}, "at least 0"),
        ({"name": "x"}, "not an argument"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, Any], said, contexts: Contexts):
    (ctx,) = contexts()
    with pytest.raises((ValueError, UserError), match=said.replace("{", r"\{").replace("}", r"\}")):
        start_of(ctx, **arguments)


def test_the_presets_are_the_paper_s_two_recipes():
    assert (PRESETS["paper"]["learning_rate"], PRESETS["paper"]["max_train_steps"]) == (5e-3, 320)
    assert (PRESETS["fast"]["learning_rate"], PRESETS["fast"]["max_train_steps"]) == (0.08, 25)
    assert create_initializer(None, preset="fast").defaults == PRESETS["fast"]
