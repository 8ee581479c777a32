"""Captions to embeddings: the layers that each family reads. That ids are cut into sd-scripts' chunks is compared in
tests/golden_table/prompts.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from library.errors import ConfigError
from library.models.family import Family, StableDiffusion
from library.models.text import TextConditioner, TextEmbeddings, rejoined
from miniworld.tiny import build

CAPTIONS = ["a photo of a red cat", "sks"]
LONG = "red cat on a stone bridge, " * 20  # 7 tokens each


def test_chunks_are_joined_to_one_sequence_with_one_start_and_one_end() -> None:
    hidden = torch.arange(3 * 77, dtype=torch.float32).reshape(1, 3, 77, 1)
    positions = rejoined(hidden).flatten().int().tolist()
    assert positions == [0, *range(1, 76), *range(78, 153), *range(155, 230), 230]


@pytest.mark.parametrize(("length", "tokens"), [(None, 77), (75, 77), (150, 152), (225, 227)])
def test_the_sequence_is_as_long_as_asked(
    length: int | None, tokens: int, models: dict[Family, StableDiffusion]
) -> None:
    conditioner = TextConditioner(models[Family.SD1], max_token_length=length)
    assert conditioner.encode([LONG, "sks"]).hidden.shape == (2, tokens, 32)


def test_the_first_chunk_of_a_long_caption_is_what_a_short_encoder_sees(models: dict[Family, StableDiffusion]) -> None:
    short = TextConditioner(models[Family.SD1]).encode([LONG]).hidden
    long = TextConditioner(models[Family.SD1], max_token_length=225).encode([LONG]).hidden
    assert torch.allclose(long[:, :76], short[:, :76], atol=1e-6)


def test_captions_that_do_not_fit_are_counted_once_each(models: dict[Family, StableDiffusion]) -> None:
    conditioner = TextConditioner(models[Family.SD1])
    conditioner.encode([LONG, "sks", LONG])
    conditioner.encode([LONG, LONG + "x"])
    assert conditioner.truncated == 2
    roomy = TextConditioner(models[Family.SD1], max_token_length=225)
    roomy.encode([LONG])
    assert roomy.truncated == 0


@torch.no_grad()
def layers(model: StableDiffusion, index: int = 0) -> tuple[list[torch.Tensor], torch.nn.Module]:
    """Every hidden state before the final norm, run layer by layer, and the norm."""
    encoder: Any = model.text_encoders[index]
    encoder = getattr(encoder, "text_model", encoder)
    ids = TextConditioner(model).tokens(CAPTIONS, index)[:, 0]
    states = [encoder.embeddings(input_ids=ids)]
    causal = torch.full((77, 77), float("-inf")).triu(1)[None, None]
    for layer in encoder.encoder.layers:
        out = layer(states[-1], attention_mask=causal)
        states.append(out[0] if isinstance(out, tuple) else out)
    return states, encoder.final_layer_norm


@pytest.mark.parametrize("family", [Family.SD1, Family.SD2])
@pytest.mark.parametrize("clip_skip", [None, 1, 2, 3])
def test_clip_skip_counts_layers_from_the_last_and_keeps_the_final_norm(
    family: Family, clip_skip: int | None, models: dict[Family, StableDiffusion]
) -> None:
    states, norm = layers(models[family])
    got = TextConditioner(models[family], clip_skip=clip_skip).encode(CAPTIONS)
    assert torch.allclose(got.hidden, norm(states[-(clip_skip or 1)]), atol=1e-5)
    assert got.pooled is None


def test_clip_skip_beyond_the_layers_is_refused(models: dict[Family, StableDiffusion]) -> None:
    for wrong in (0, 4):
        with pytest.raises(ConfigError, match=f"`clip_skip` {wrong} does not fit: the text encoder has 3 layers"):
            TextConditioner(models[Family.SD1], clip_skip=wrong)


def test_a_length_that_is_no_multiple_of_75_is_refused(models: dict[Family, StableDiffusion]) -> None:
    with pytest.raises(ConfigError, match="`max_token_length` 77 is not a multiple of 75"):
        TextConditioner(models[Family.SD1], max_token_length=77)


@pytest.mark.parametrize("length", [75, 225])
def test_sdxl_reads_the_last_but_one_layer_of_both_encoders_without_norm(
    length: int, models: dict[Family, StableDiffusion]
) -> None:
    model = models[Family.SDXL]
    got = TextConditioner(model, max_token_length=length, clip_skip=2).encode(CAPTIONS).hidden
    expected = torch.cat([layers(model, 0)[0][-2], layers(model, 1)[0][-2]], dim=-1)
    assert got.shape == (2, length + 2, 72)
    assert torch.allclose(got[:, :76], expected[:, :76], atol=1e-5)


def test_sdxl_pools_the_projected_end_token_of_the_first_chunk(models: dict[Family, StableDiffusion]) -> None:
    model = models[Family.SDXL]
    states, norm = layers(model, 1)
    ends = [7, 2]  # start, six or one words, end
    projection = model.text_encoders[1].get_parameter("text_projection.weight")
    expected = torch.stack([norm(states[-1])[row, end] for row, end in enumerate(ends)]) @ projection.T
    for length in (75, 225):
        pooled = TextConditioner(model, max_token_length=length).encode(CAPTIONS).pooled
        assert pooled is not None
        assert torch.allclose(pooled, expected, atol=1e-5)


def test_the_end_token_is_found_by_its_id_when_added_tokens_have_higher_ones() -> None:
    model = build(Family.SDXL)
    for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True):
        tokenizer.add_tokens(["newword"])
        encoder.resize_token_embeddings(len(tokenizer))
    conditioner = TextConditioner(model)
    plain, added = conditioner.encode(["cat"]).pooled, conditioner.encode(["cat newword"]).pooled
    assert plain is not None
    assert added is not None
    end = conditioner.tokens(["cat newword"], 1)[0, 0].tolist().index(model.tokenizers[1].eos_token_id)
    assert end == 3
    last = model.text_encoders[1](input_ids=conditioner.tokens(["cat newword"], 1)[0]).last_hidden_state
    projection = model.text_encoders[1].get_parameter("text_projection.weight")
    assert torch.allclose(added[0], projection @ last[0, end], atol=1e-5)


@pytest.mark.parametrize("family", Family)
def test_gradients_flow_to_the_text_encoders_only_when_asked(family: Family) -> None:
    model = build(family)
    for encoder in model.text_encoders:
        encoder.requires_grad_(True)
    conditioner = TextConditioner(model)
    assert not conditioner.encode(CAPTIONS, grad=False).hidden.requires_grad
    conditioner.encode(CAPTIONS, grad=True).hidden.square().mean().backward()
    for encoder in model.text_encoders:
        gradient = encoder.get_input_embeddings().weight.grad
        assert isinstance(gradient, torch.Tensor)
        assert gradient.abs().sum() > 0


def test_a_caption_is_embedded_the_same_in_any_company(models: dict[Family, StableDiffusion]) -> None:
    conditioner = TextConditioner(models[Family.SDXL])
    alone, together = conditioner.encode(CAPTIONS[:1]), conditioner.encode([LONG, *CAPTIONS])
    assert torch.allclose(alone.hidden[0], together.hidden[1], atol=1e-6)


def test_embeddings_are_sliced_joined_and_moved_with_their_pooled_part() -> None:
    whole = TextEmbeddings(torch.randn(4, 77, 8), torch.randn(4, 5))
    again = TextEmbeddings.join([whole[:1], whole[1:]])
    assert again.pooled is not None
    assert whole.pooled is not None
    assert torch.equal(again.hidden, whole.hidden)
    assert torch.equal(again.pooled, whole.pooled)
    half = whole.to("cpu", torch.float16)
    assert half.pooled is not None
    assert (half.hidden.dtype, half.pooled.dtype, len(half)) == (torch.float16, torch.float16, 4)


def test_weights_multiply_the_embeddings_of_their_tokens_alone(models: dict[Family, StableDiffusion]) -> None:
    """The encoder reads the same tokens; rows of weighted ones are scaled, start, end, padding and `pooled` are not."""
    for family in (Family.SD1, Family.SDXL):
        model = models[family]
        plain = TextConditioner(model, max_token_length=150).encode(["a red cat sits", "sks"])
        weighted = TextConditioner(model, max_token_length=150, weighted=True).encode(["a (red cat:1.5) sits", "sks"])
        ratio = weighted.hidden / plain.hidden
        before, inside = (
            len(model.tokenizers[0](text, add_special_tokens=False).input_ids) for text in ("a", "red cat")
        )
        expected = torch.ones(2, 152)
        expected[0, 1 + before : 1 + before + inside] = 1.5
        torch.testing.assert_close(ratio, expected[..., None].expand_as(ratio), atol=1e-4, rtol=1e-4)
        if plain.pooled is not None and weighted.pooled is not None:
            assert torch.equal(plain.pooled, weighted.pooled)


def test_brackets_are_text_unless_captions_are_weighted(models: dict[Family, StableDiffusion]) -> None:
    plain = TextConditioner(models[Family.SD1])
    assert not torch.equal(plain.tokens(["(cat:1.5)"]), plain.tokens(["cat"]))
    weighted = TextConditioner(models[Family.SD1], weighted=True)
    assert torch.equal(weighted.tokens(["(cat:1.5)"]), plain.tokens(["cat"]))
    assert torch.equal(weighted.tokens([r"\(cat\)"]), plain.tokens(["(cat)"]))
