"""The cache of text embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from library.data.caches.cache_entry import write_entry
from library.data.caches.text_encoder_cache import TextCache
from library.errors import UserError
from library.models.text import TextEmbeddings


class Letters:
    """A stand-in for a text encoder: the first letters' codes. Keeps what it was asked."""

    def __init__(self, pooled: bool = False):
        self.asked: list[str] = []
        self.pooled = pooled

    def __call__(self, captions) -> TextEmbeddings:
        self.asked += captions
        codes = [[float(ord(letter)) for letter in f"{caption:<8}"[:8]] for caption in captions]
        hidden = torch.tensor(codes)[:, :, None].repeat(1, 1, 3)
        return TextEmbeddings(hidden, hidden[:, 0] if self.pooled else None)


def test_each_caption_is_encoded_once_and_comes_back_in_order():
    encode = Letters()
    cache = TextCache(encode)
    first = cache.embeddings(["cat", "dog", "cat", ""])
    assert encode.asked == ["cat", "dog", ""]
    again = cache.embeddings(["dog", "cat"])
    assert encode.asked == ["cat", "dog", ""]
    assert torch.equal(again.hidden, first.hidden[[1, 0]])
    assert torch.equal(again.hidden, Letters()(["dog", "cat"]).hidden)
    assert again.pooled is None


@pytest.mark.parametrize("pooled", [False, True])
def test_embeddings_on_disk_outlive_the_text_encoder(tmp_path: Path, pooled: bool):
    captions = ["кошка", "猫" * 100, 'a "cat"', ""]
    expected = TextCache(Letters(pooled)).embeddings(captions)
    assert TextCache(Letters(pooled), text_hash="x", folder=tmp_path / "c").fill(captions, progress=False) == 4
    second = TextCache(None, text_hash="x", folder=tmp_path / "c")
    assert second.fill(captions, progress=False) == 0
    found = second.embeddings(captions)
    assert torch.equal(found.hidden, expected.hidden)
    assert (found.pooled is not None) == pooled
    if found.pooled is not None and expected.pooled is not None:
        assert torch.equal(found.pooled, expected.pooled)


@pytest.mark.parametrize(
    "other",
    [{"text_hash": "y"}, {"clip_skip": 2}, {"max_token_length": 150}, {"dtype": torch.half}, {"weighted": True}],
)
def test_another_encoder_or_setting_is_not_answered_from_this_cache(tmp_path: Path, other: dict):
    TextCache(Letters(), text_hash="x", folder=tmp_path).fill(["cat"], progress=False)
    encode = Letters()
    TextCache(encode, **{"text_hash": "x", "folder": tmp_path, **other}).embeddings(["cat"])
    assert encode.asked == ["cat"]


def test_a_damaged_file_is_made_again(tmp_path: Path):
    TextCache(Letters(), folder=tmp_path).fill(["cat", "dog"], progress=False)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    encode = Letters()
    assert TextCache(encode, folder=tmp_path).fill(["cat", "dog"], progress=False) == 2
    assert TextCache(None, folder=tmp_path).embeddings(["cat"]).hidden.isfinite().all()


@pytest.mark.parametrize("broken", ["hidden", "pooled"])
def test_a_file_that_holds_nan_is_made_again(tmp_path: Path, broken: str):
    TextCache(Letters(), folder=tmp_path).fill(["cat", "dog"], progress=False)
    for path in tmp_path.iterdir():
        tensors = {"pooled": torch.ones(1, 2)} | load_file(path)
        write_entry(path, tensors | {broken: torch.full_like(tensors[broken], torch.nan)})
    assert TextCache(Letters(), folder=tmp_path).fill(["cat", "dog"], progress=False) == 2
    assert TextCache(None, folder=tmp_path).embeddings(["cat"]).hidden.isfinite().all()


def test_a_file_of_another_caption_or_with_a_flipped_bit_is_made_again_and_counted(tmp_path: Path):
    TextCache(Letters(), folder=tmp_path).fill(["cat", "dog", "boat"], progress=False)
    expected = TextCache(None, folder=tmp_path).embeddings(["cat", "dog", "boat"]).hidden
    one, other, third = sorted(tmp_path.iterdir())
    one.write_bytes(other.read_bytes())
    content = bytearray(third.read_bytes())
    content[-3] ^= 1
    third.write_bytes(content)
    cache = TextCache(Letters(), folder=tmp_path)
    assert cache.fill(["cat", "dog", "boat"], progress=False) == cache.damaged == 2
    write_entry(third, {"hidden": torch.zeros(1, 8, 2)})
    cache = TextCache(Letters(), folder=tmp_path, shape=(8, 3))
    assert cache.fill(["cat", "dog", "boat"], progress=False) == cache.damaged == 1
    assert torch.equal(TextCache(None, folder=tmp_path).embeddings(["cat", "dog", "boat"]).hidden, expected)


def test_captions_that_keep_changing_do_not_fill_the_memory():
    encode = Letters()
    row = 8 * 3 * 4  # bytes of one embedding
    cache = TextCache(encode, room=3 * row)
    for i in range(10):
        cache.embeddings([f"cat {i}"])
    assert cache.bytes == 3 * row
    cache.embeddings(["cat 9"])
    assert len(encode.asked) == 10
    many = [f"dog {i}" for i in range(9)]
    assert cache.embeddings(many).hidden.shape[0] == 9  # more than there is room for


def test_what_was_filled_in_is_not_dropped():
    encode = Letters()
    cache = TextCache(encode, room=1)
    captions = [f"cat {i}" for i in range(20)]
    cache.fill(captions, batch_size=7, progress=False)
    cache.encode = None
    assert cache.embeddings(captions).hidden.shape[0] == 20


def test_a_cached_row_owns_its_memory():
    cache = TextCache(Letters())
    cache.fill([f"cat {i}" for i in range(8)], progress=False)
    row = cache.kept["cat 3"].hidden
    assert row.untyped_storage().nbytes() == row.nbytes


def test_embeddings_that_are_not_finite_name_the_caption():
    cache = TextCache(lambda captions: TextEmbeddings(torch.full((len(captions), 2, 2), torch.nan)))
    with pytest.raises(UserError, match="a strange caption"):
        cache.embeddings(["a strange caption"])
