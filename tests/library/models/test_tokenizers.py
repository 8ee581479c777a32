"""The vocabulary is found where it may lie, and asked for over the network only where it is nowhere."""

from __future__ import annotations

import gzip
import logging
import sys
from pathlib import Path

import pytest

from library.errors import UserError
from library.models import tokenizers
from library.models.family import Family
from library.models.tokenizers import build_tokenizer, family_tokenizers, packed_vocabulary, vocabulary_of
from miniworld.tiny import WORDS, tiny_tokenizer

CAPTION = "a photo of a red cat, smiling 漢字!"


def ids(tokenizer: tokenizers.CLIPTokenizer, caption: str = CAPTION) -> list[int]:
    return tokenizer(caption, add_special_tokens=False).input_ids


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in packed_vocabulary(tiny_tokenizer()).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model file's path on a machine that has no vocabulary anywhere, and no network."""

    def no_network(*_: str) -> str:
        raise ConnectionError("there is no network")

    monkeypatch.setattr(tokenizers, "hf_hub_download", no_network)
    monkeypatch.setattr(tokenizers, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(tokenizers, "_PACKAGES", ())
    return tmp_path / "models" / "model.safetensors"


def test_without_a_vocabulary_one_sentence_lists_every_way_to_get_it(bare: Path) -> None:
    with pytest.raises(UserError) as error:
        family_tokenizers(Family.SD1, None, None, bare)
    for way in (
        "tokenizer_cache_dir",
        "folder `tokenizer` beside",
        "hf download",
        "open_clip_torch",
        "diffusers folder",
    ):
        assert way in str(error.value)


@pytest.mark.parametrize(
    "place", ["given folder", "folder of the given folder", "sd-scripts' name in the given folder", "beside the model"]
)
def test_a_folder_with_the_two_files_is_found(place: str, bare: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = {
        "given folder": cache,
        "folder of the given folder": cache / "tokenizer",
        "sd-scripts' name in the given folder": cache / "openai_clip-vit-large-patch14",
        "beside the model": bare.parent / "tokenizer",
    }[place]
    write_vocabulary(folder)
    found = family_tokenizers(Family.SD1, None, cache, bare)
    assert ids(found[0]) == ids(tiny_tokenizer())


def test_the_hub_cache_is_looked_up_by_repository(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_vocabulary(tmp_path / "snapshot")

    def cached(repository: str, name: str) -> str | None:
        return str(folder / Path(name).name) if repository == "stabilityai/stable-diffusion-2-1" else None

    monkeypatch.setattr(tokenizers, "try_to_load_from_cache", cached)
    assert ids(family_tokenizers(Family.SD2, None, None, bare)[0]) == ids(tiny_tokenizer("!"))


def test_the_hub_is_asked_only_where_the_vocabulary_is_nowhere_on_the_machine(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = write_vocabulary(tmp_path / "fetched")
    asked = []

    def fetch(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(folder / name)

    monkeypatch.setattr(tokenizers, "hf_hub_download", fetch)
    assert ids(family_tokenizers(Family.SD1, None, None, bare)[0]) == ids(tiny_tokenizer())
    assert asked == [("openai/clip-vit-large-patch14", name) for name in ("vocab.json", "merges.txt")]
    assert "was fetched from openai/clip-vit-large-patch14" in caplog.text
    family_tokenizers(Family.SD1, None, folder, bare)
    assert len(asked) == 2


def test_an_installed_packages_vocabulary_is_read_without_importing_the_package(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "clip_for_a_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    merges = vocabulary_of(tiny_tokenizer())[1]
    text = "\n".join(["a version line", *(" ".join(pair) for pair in merges), ""])
    (package / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(tokenizers, "_PACKAGES", ("not_installed_at_all", "clip_for_a_test"))
    monkeypatch.setattr(tokenizers, "_BPE_MERGES", len(merges))
    assert ids(family_tokenizers(Family.SD1, None, None, bare)[0]) == ids(tiny_tokenizer())
    assert "clip_for_a_test" not in sys.modules


def test_damaged_files_are_named(bare: Path, tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "cache")
    (folder / "vocab.json").write_text('{"a": 0', encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.json.*cannot be read"):
        family_tokenizers(Family.SD1, None, folder, bare)


@pytest.mark.parametrize(
    ("family", "pads"), [(Family.SD1, ["end"]), (Family.SD2, [0]), (Family.SDXL, ["end", 0])], ids=lambda x: str(x)
)
def test_each_family_pads_as_it_was_trained(family: Family, pads: list[object], bare: Path) -> None:
    found = family_tokenizers(family, packed_vocabulary(tiny_tokenizer()), None, bare)
    assert [t.pad_token_id for t in found] == [t.eos_token_id if pad == "end" else pad for t, pad in zip(found, pads)]  # noqa: B905


def test_an_exclamation_mark_is_padding_where_it_pads_as_in_the_published_tokenizers(tmp_path: Path) -> None:
    assert ids(tiny_tokenizer("!"), "cat!")[-1] == 0
    assert ids(tiny_tokenizer(), "cat!")[-1] == 256  # the byte "!" that ends a word
    tiny_tokenizer("!").save_pretrained(tmp_path)
    assert ids(tokenizers.load_tokenizer(tmp_path), "cat!") == ids(tiny_tokenizer("!"), "cat!")


def test_a_tokenizer_survives_being_packed_as_two_texts() -> None:
    texts = packed_vocabulary(tiny_tokenizer())
    assert texts["merges.txt"].startswith("#version")
    again = family_tokenizers(Family.SD1, texts, None, Path("model.safetensors"))[0]
    assert ids(again) == ids(tiny_tokenizer())
    assert again.get_vocab() == tiny_tokenizer().get_vocab()


def test_every_word_of_the_tiny_tokenizer_is_one_token() -> None:
    tokenizer = build_tokenizer(vocabulary_of(tiny_tokenizer()), None)
    assert [word for word in WORDS if len(ids(tokenizer, word)) != 1] == []
    assert str(tokenizer.decode(ids(tokenizer, CAPTION))).replace(" ", "") == CAPTION.replace(" ", "")
