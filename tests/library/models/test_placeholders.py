"""New words in tokenizers and text encoders: nothing that was there changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from library.errors import UserError
from library.models.family import Family
from library.models.placeholders import (
    ExpandingConditioner,
    Placeholders,
    add_tokens,
    placeholder_tokens,
    refuse_known_tokens,
    token_table,
)
from library.models.text import TextConditioner
from miniworld.tiny import build, tiny_tokenizer


@pytest.mark.parametrize("family", list(Family))
def test_new_tokens_follow_the_old_ones_and_the_tables_stay_as_they_are(family):
    model = build(family)
    lengths = [len(tokenizer) for tokenizer in model.tokenizers]
    tables = [token_table(encoder).weight.clone() for encoder in model.text_encoders]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    placeholders = Placeholders(model, "zwx", 3)
    assert torch.equal(torch.get_rng_state(), state)
    for index, (length, table) in enumerate(zip(lengths, tables, strict=True)):
        assert placeholders.ids(index) == [length, length + 1, length + 2]
        now = token_table(model.text_encoders[index]).weight
        assert now.shape == table.shape
        assert torch.equal(now, table)


@pytest.mark.parametrize("known", ["cat", "Cat", "a", "ca"])  # "ca" only begins words
def test_a_word_that_the_tokenizer_knows_is_refused_before_anything_is_written(known):
    model = build(Family.SDXL)
    lengths = [len(tokenizer) for tokenizer in model.tokenizers]
    with pytest.raises(UserError, match=f"knows '{known}' already"):
        Placeholders(model, known, 1)
    assert [len(tokenizer) for tokenizer in model.tokenizers] == lengths
    assert "forward" not in vars(token_table(model.text_encoders[0]))


def test_a_second_vector_s_name_that_is_taken_is_refused_too():
    tokenizer = tiny_tokenizer()
    add_tokens(tokenizer, ["zwx_1"])
    with pytest.raises(UserError, match="knows 'zwx_1' already"):
        refuse_known_tokens(tokenizer, placeholder_tokens("zwx", 2))


@pytest.mark.parametrize(("token", "count"), [("", 1), ("two words", 1), ("tab\there", 1), ("zwx", 0), ("zwx", 76)])
def test_token_strings_that_cannot_be_a_word_are_refused(token, count):
    with pytest.raises(UserError):
        placeholder_tokens(token, count)


def test_tokens_match_whole_words_in_their_own_case_only():
    tokenizer = tiny_tokenizer()
    first = add_tokens(tokenizer, ["MyFace"])
    found = tokenizer("a photo of MyFace, MyFaces and myface", add_special_tokens=False).input_ids
    assert found.count(first) == 1
    assert found[3] == first


def test_a_caption_names_the_word_once_and_all_its_tokens_are_read():
    placeholders = Placeholders(build(Family.SD1), "zwx", 2)
    assert placeholders.expand("a photo of zwx, zwx_3 and (zwx)") == "a photo of zwx zwx_1, zwx_3 and (zwx zwx_1)"
    assert placeholders.expand("zwx zwx_1 again") == "zwx zwx_1 again", "written out already"
    assert placeholders.expand("zwxy") == "zwxy"


def test_a_single_token_in_angle_brackets_stays_one_token():
    model = build(Family.SD1)
    placeholders = Placeholders(model, "<face>", 1)
    ids = model.tokenizers[0](placeholders.expand("a photo of <face> person"), add_special_tokens=False).input_ids
    assert ids[3] == placeholders.ids(0)[0]
    assert len(ids) == 5


@pytest.mark.parametrize("family", list(Family))
def test_rows_are_read_where_the_word_is_and_nowhere_else(family):
    model = build(family)
    captions = ["a photo of a cat", "a red zwx"]
    plain = TextConditioner(model).encode(captions[:1])
    placeholders = Placeholders(model, "zwx", 2)
    conditioner = ExpandingConditioner(model, placeholders)
    assert torch.equal(conditioner.encode(captions[:1]).hidden, plain.hidden)
    zeros = conditioner.encode(captions).hidden
    for rows in placeholders.rows:
        rows.rows = torch.ones_like(rows.rows)
    ones = conditioner.encode(captions).hidden
    assert torch.equal(ones[0], zeros[0])
    assert torch.equal(ones[1, :3], zeros[1, :3]), "what stands before the word cannot see it"
    assert not torch.allclose(ones[1, 3], zeros[1, 3])


def test_only_the_rows_get_a_gradient_also_through_checkpointed_layers():
    def gradients(checkpointed: bool) -> torch.Tensor:
        model = build(Family.SD1)
        (encoder,) = model.text_encoders
        encoder.requires_grad_(False)
        placeholders = Placeholders(model, "zwx", 2)
        rows = torch.nn.Parameter(torch.linspace(-1, 1, 2 * 32).view(2, 32))
        placeholders.rows[0].rows = rows
        if checkpointed:
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
            encoder.train()
        ExpandingConditioner(model, placeholders).encode(["a zwx cat"], grad=True).hidden.square().sum().backward()
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert rows.grad is not None
        return rows.grad

    assert gradients(False).abs().min() > 0
    torch.testing.assert_close(gradients(True), gradients(False))


def test_removing_the_rows_gives_the_table_back():
    model = build(Family.SD1)
    placeholders = Placeholders(model, "zwx", 1)
    placeholders.remove()
    with pytest.raises(IndexError):
        model.text_encoders[0](input_ids=torch.tensor([placeholders.ids(0)]))


def test_the_pooled_embedding_is_taken_at_the_end_token_although_new_ids_are_larger():
    model = build(Family.SDXL)
    encoder: Any = model.text_encoders[1]
    tokenizer = model.tokenizers[1]
    encoder.text_model.eos_token_id = 2  # as from SDXL's own config: transformers then pools at the largest id
    placeholders = Placeholders(model, "zwx", 1)
    placeholders.rows[1].rows = torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    pooled = ExpandingConditioner(model, placeholders).encode(["a zwx cat"]).pooled
    ids = tokenizer("a zwx cat").input_ids
    with torch.no_grad():
        out = encoder(input_ids=torch.tensor([ids]))
        at_the_end = encoder.text_projection(out.last_hidden_state[0, ids.index(tokenizer.eos_token_id)])
    assert pooled is not None
    torch.testing.assert_close(pooled[0], at_the_end, atol=1e-5, rtol=0)
    assert not torch.allclose(out.text_embeds[0], at_the_end), "its own pooling is what must not be used"
