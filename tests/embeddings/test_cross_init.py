"""Cross Initialization: the mean of names, the cross step, and what the start must be like."""

from __future__ import annotations

import gzip
import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from embeddings.cross_init import PRESETS, column_mean, create_initializer, crossed, mean_embeddings, split_halves
from embeddings.names import DEFAULT_LISTS, columns_of_names, filled, read_names
from library.errors import UserError
from library.models.family import Family
from library.models.placeholders import token_table
from library.models.tokenizers import build_tokenizer, find_vocabulary
from library.training.trained.initializers import EncoderContext, starting_vectors
from miniworld.tiny import build
from tests.embeddings.conftest import Contexts, contexts_on, like_real_ones

GOLDEN = Path(__file__).parents[1] / "golden"
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
    table = token_table(ctx.text_encoder).weight.tolist()
    listed = [*NAMES, "anná"]
    tokens = [ctx.tokenizer(name, add_special_tokens=False).input_ids for name in listed]
    expected = []
    for i in range(3):
        rows = [table[ids[i]] for ids in tokens if len(ids) > i]
        expected.append([math.fsum(numbers) / len(rows) for numbers in zip(*rows, strict=True)])
    assert read_names(names) == listed
    means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 3))
    assert torch.equal(means, torch.tensor(expected)), "not one bit apart"


def test_only_names_of_exactly_as_many_tokens_count_under_the_exact_policy():
    tokenize = {"a b": [1, 2], "c": [3], "d e f": [4, 5, 6]}.__getitem__
    assert columns_of_names(["a b", "c", "d e f"], tokenize, 2) == [[1, 3, 4], [2, 5]]
    assert columns_of_names(["a b", "c", "d e f"], tokenize, 2, exact=True) == [[1], [2]]


@pytest.mark.parametrize(("family", "skip"), [*((family, None) for family in Family), (Family.SD1, 2), (Family.SD2, 2)])
def test_the_start_is_what_the_trainer_reads_at_the_word_s_places(family, skip, names, contexts: Contexts):
    for ctx in contexts(family, 2, clip_skip=skip):
        start = start_of(ctx, names=str(names))
        means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
        with ctx.placeholders.rows[ctx.index].holding(means):
            hidden = ctx.conditioner.encode([ctx.token_string]).hidden[0, 1:3]
        before = 0 if ctx.index == 0 else ctx.conditioner.model.text_encoders[0].config.hidden_size
        torch.testing.assert_close(start, hidden[:, before : before + ctx.hidden_size], atol=1e-5, rtol=0)


def layers_by_hand(encoder: Any, e: torch.Tensor, skip: int = 0) -> torch.Tensor:
    """(tokens, width) through a CLIP text tower without its final norm and its last `skip` layers, in float64."""
    tower = deepcopy(getattr(encoder, "text_model", encoder)).double()
    heads = tower.config.num_attention_heads
    h = e.double() + tower.embeddings.position_embedding.weight[: len(e)]
    after = torch.full((len(e), len(e)), float("-inf"), dtype=torch.float64).triu(1)  # what a token cannot see
    for layer in tower.encoder.layers[: len(tower.encoder.layers) - skip]:
        attention, x = layer.self_attn, layer.layer_norm1(h)
        q, k, v = (
            part(x).unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, tokens, width / heads)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + after).softmax(dim=-1)
        h = h + attention.out_proj((weights @ v).transpose(0, 1).flatten(1))
        h = h + layer.mlp(layer.layer_norm2(h))
    return h


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", list(Family))
def test_the_cross_step_is_the_tower_s_arithmetic_in_float64_with_both_attentions(
    family, attention, names, contexts: Contexts
):
    for ctx in contexts(family, 2):
        encoder, tokenizer = ctx.text_encoder, ctx.tokenizer
        encoder.set_attn_implementation(attention)
        table = token_table(encoder).weight
        means = mean_embeddings(ctx, columns_of_names(read_names(names), ctx.ids, 2))
        e = torch.cat([table[[tokenizer.bos_token_id]], means, table[[tokenizer.eos_token_id]]])
        norm = deepcopy(getattr(encoder, "text_model", encoder).final_layer_norm).double()
        final = norm(layers_by_hand(encoder, e))
        read = layers_by_hand(encoder, e, skip=1) if family is Family.SDXL else final
        torch.testing.assert_close(crossed(ctx, means), read[1:3].float(), atol=1e-5, rtol=0)
        torch.testing.assert_close(crossed(ctx, means, "final"), final[1:3].float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", list(Family))
def test_what_follows_the_word_does_not_matter(family, contexts: Contexts):
    noise = torch.randint(0, 200, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    for ctx in contexts(family, 2):
        means = torch.randn(2, ctx.hidden_size, generator=torch.Generator().manual_seed(1))
        bare = ctx.ids("{}", special=True)
        alone = ctx.encode(bare[:-1], means)[1:3]
        padded = bare + [ctx.tokenizer.pad_token_id] * (77 - len(bare))
        for ids in (bare, padded, bare[:-1] + noise):
            torch.testing.assert_close(ctx.encode(ids, means)[1:3], alone, atol=1e-5, rtol=0)


def test_the_start_of_an_encoder_like_clip_has_the_norm_of_a_normalised_vector():
    (ctx,) = contexts_on(like_real_ones(build(Family.SD1)), 2, init_word="man")
    rows = token_table(ctx.text_encoder).weight.norm(dim=-1).mean()
    norms = start_of(ctx).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full((2,), 8.0), rtol=0.01, atol=0)
    assert norms.mean() / rows > 50


@pytest.mark.parametrize("of_names", [False, True], ids=["word", "names"])
def test_a_crossed_vector_passes_the_encoder_almost_unchanged(of_names, names):
    """Why the output is a good start: read again, it dominates the residual stream."""
    (ctx,) = contexts_on(like_real_ones(build(Family.SD1)), 2, init_word="man")
    start = start_of(ctx, **({"names": str(names)} if of_names else {}))
    normalised = F.layer_norm(start, (ctx.hidden_size,))
    for context in ("{}", "a photo of {}"):
        again = crossed(ctx, start, context=context)
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
        longest = max(len(ctx.ids(name)) for name in read_names(names))
        with pytest.raises(UserError, match=f"no name has a token for vector {longest + 1} of 8"):
            start_of(ctx, names=str(names))


@pytest.mark.parametrize(("word", "used"), [("man", [0, 0]), ("black cat face", [0, 1])])
def test_a_word_is_crossed_as_its_tokens_repeated_or_cut(word, used, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2, init_word=word)
    ids = ctx.ids(word)
    initializer = create_initializer(ctx.args)
    expected = crossed(ctx, ctx.base_rows([ids[i] for i in used]))
    assert torch.equal(starting_vectors(initializer, ctx), expected)
    assert len(initializer.notes) == 1


def test_a_context_s_places_are_read_where_the_word_is(names, contexts: Contexts):
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


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, int]]:
    """What CLIP's own vocabulary makes of the default lists: {list: {word: id}}."""
    return json.loads(gzip.decompress((GOLDEN / "name_tokens.json.gz").read_bytes()))


def test_each_default_name_is_one_token_of_clip(recorded):
    vocabulary = find_vocabulary(None, Path("nowhere/model.safetensors"))
    tokenizer = build_tokenizer(vocabulary, None) if vocabulary else None  # not on every machine
    for path in DEFAULT_LISTS:
        words, ids = read_names(path), recorded[path.stem]
        assert list(ids) == words, "a name was changed: record its token again, with CLIP's vocabulary"
        assert len(set(ids.values())) == len(words)
        assert all(512 <= token < 49406 for token in ids.values()), "neither a single byte nor a mark"
        if tokenizer is not None:
            found = tokenizer(words, add_special_tokens=False).input_ids
            assert found == [[token] for token in ids.values()]


class WithClipsTokens(EncoderContext):
    """A context whose tokenizer knows the default names by CLIP's own ids."""

    recorded: ClassVar[dict[str, int]] = {}

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return [self.recorded[text]] if text in self.recorded else super().ids(text, special=special)


def test_the_whole_default_lists_are_used_and_their_halves_agreement_is_a_number(recorded, monkeypatch):
    model = like_real_ones(build(Family.SD1), vocab_size=49408)
    (ctx,) = contexts_on(model, 2)
    known = WithClipsTokens(ctx.conditioner, ctx.placeholders, 0, None, ctx.args)
    monkeypatch.setattr(WithClipsTokens, "recorded", recorded["given_names"] | recorded["surnames"])
    initializer = create_initializer(ctx.args)
    starting_vectors(initializer, known)
    facts = initializer.metadata()
    assert facts["ss_names_count"] == "311,295"
    cosines = [float(text) for text in facts["ss_split_half_cos_clip_l"].split(",")]
    assert len(cosines) == 2
    assert all(0 < cosine < 1 for cosine in cosines)
    assert "fewer than 50" not in "\n".join(initializer.notes)


def test_the_default_lists_are_two_columns_and_their_agreement_is_reported(contexts: Contexts):
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
def test_wrong_arguments_are_reported(arguments: dict[str, Any], said, contexts: Contexts):
    (ctx,) = contexts()
    with pytest.raises((ValueError, UserError), match=said.replace("{", r"\{").replace("}", r"\}")):
        start_of(ctx, **arguments)


def test_the_presets_are_the_paper_s_two_recipes():
    assert (PRESETS["paper"]["learning_rate"], PRESETS["paper"]["max_train_steps"]) == (5e-3, 320)
    assert (PRESETS["fast"]["learning_rate"], PRESETS["fast"]["max_train_steps"]) == (0.08, 25)
    assert create_initializer(None, preset="fast").defaults == PRESETS["fast"]
