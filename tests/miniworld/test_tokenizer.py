from __future__ import annotations

import json

import pytest
from transformers import CLIPTokenizer

from miniworld.captions import VOCABULARY
from miniworld.tokenizer import END, START, learn_merges, token_ids, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(VOCABULARY, folder)
    return folder


def test_every_word_of_the_world_is_one_token(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    lengths = {word: len(ids) - 2 for word, ids in zip(VOCABULARY, tokenizer(list(VOCABULARY)).input_ids, strict=True)}
    assert {word for word, length in lengths.items() if length != 1} == set()


def test_any_text_survives_encoding_and_decoding(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    for text in ("a sks zebra, 8k!", "café über 東京", "x" * 30):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_captions_start_end_and_are_padded_as_in_stable_diffusion(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    ids = token_ids(tokenizer, ["a red circle"])[0].tolist()
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert len(ids) == 77
    assert ids[0] == vocabulary[START] == len(tokenizer) - 2
    assert set(ids[4:]) == {vocabulary[END]} == {len(tokenizer) - 1}


def test_all_files_that_readers_of_clip_tokenizers_expect_are_written(folder):
    assert {file.name for file in folder.iterdir()} >= {
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_merges_depend_on_the_word_list_alone_not_on_its_order():
    assert learn_merges(["red", "bed", "reed"]) == learn_merges(["reed", "red", "bed", "red"])
