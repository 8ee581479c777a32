"""Finding CLIP's vocabulary: on this machine first, and only where it is nowhere here, on the Hugging Face Hub.

All families share one vocabulary of 49,408 tokens and differ in what they pad with: the end token, or "!" (id 0) for
SD2 and the second encoder of SDXL.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from transformers import CLIPTokenizer

from library.errors import UserError
from library.models.family import Family

logger = logging.getLogger(__name__)

Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]

_PAD_TOKENS: dict[Family, tuple[str | None, ...]] = {
    Family.SD1: (None,),
    Family.SD2: ("!",),
    Family.SDXL: (None, "!"),
}
# Repositories of the Hugging Face Hub that hold the vocabulary, as (name, folder); looked up in the local cache only.
_HUB_PLACES = (
    ("openai/clip-vit-large-patch14", ""),
    ("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer/"),
    ("runwayml/stable-diffusion-v1-5", "tokenizer/"),
    ("stabilityai/stable-diffusion-2-1", "tokenizer/"),
    ("stabilityai/stable-diffusion-2", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer/"),
)
_BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's own form, which these packages carry
_PACKAGES = ("open_clip", "clip")
_BPE_MERGES = 49152 - 256 - 2  # the file lists more merges than CLIP uses


def family_tokenizers(
    family: Family, packed: Mapping[str, str] | None, cache_dir: Path | None, model_path: Path
) -> list[CLIPTokenizer]:
    """The family's tokenizers for a single file at `model_path`.

    `packed` is {"vocab.json": text, "merges.txt": text} from the file's own metadata; without it the vocabulary is
    looked for in `cache_dir`, beside the file, in the Hugging Face cache, in installed packages, and then on the Hub.
    """
    vocabulary = _from_texts(packed["vocab.json"], packed["merges.txt"]) if packed else None
    vocabulary = vocabulary or find_vocabulary(cache_dir, model_path) or _from_hub()
    if vocabulary is None:
        raise UserError(
            f"'{model_path}' carries no tokenizer, and CLIP's vocabulary is neither on this machine nor could it be "
            "fetched from the Hugging Face Hub. Give a folder with "
            "`vocab.json` and `merges.txt` as `tokenizer_cache_dir`, or put them into a folder `tokenizer` beside the "
            "model, or run `hf download openai/clip-vit-large-patch14 vocab.json merges.txt` once, or "
            "`pip install --no-deps open_clip_torch`, or use the model as a diffusers folder."
        )
    return [build_tokenizer(vocabulary, pad) for pad in _PAD_TOKENS[family]]


def build_tokenizer(vocabulary: Vocabulary, pad_token: str | None) -> CLIPTokenizer:
    """A CLIPTokenizer that pads with `pad_token`, or with the end token.

    A padding token counts as a mark: where "!" pads, every "!" in a caption becomes id 0. The published tokenizers, and
    so sd-scripts and diffusers, do the same.
    """
    tokens, merges = vocabulary
    padding = {"pad_token": pad_token} if pad_token is not None else {}
    # Its annotation asks for texts; what it hands to the tokenizer library must be pairs.
    pairs: Any = list(merges)
    return CLIPTokenizer(vocab=dict(tokens), merges=pairs, model_max_length=77, **padding)


def find_vocabulary(cache_dir: Path | None, model_path: Path) -> Vocabulary | None:
    """The first vocabulary found in the places that `family_tokenizers` names."""
    for folder in _folders(cache_dir, model_path):
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _read(folder / "vocab.json", folder / "merges.txt")
    for repository, inside in _HUB_PLACES:
        vocab = try_to_load_from_cache(repository, f"{inside}vocab.json")
        merges = try_to_load_from_cache(repository, f"{inside}merges.txt")
        if isinstance(vocab, str) and isinstance(merges, str):
            return _read(Path(vocab), Path(merges))
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a package's files without running it
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / _BPE_FILE).is_file():
                return read_bpe_file(Path(folder) / _BPE_FILE)
    return None


def _from_hub() -> Vocabulary | None:
    """Fetch the vocabulary's two files (1.4 MB) into the Hugging Face cache; None where that cannot be."""
    repository, inside = _HUB_PLACES[0]
    try:
        vocab, merges = (hf_hub_download(repository, f"{inside}{name}") for name in ("vocab.json", "merges.txt"))
    except Exception:  # no network, a proxy, offline mode, a full disk: each raises its own, and all mean the same here
        return None
    logger.info(f"CLIP's vocabulary was fetched from {repository} and is in the Hugging Face cache now")
    return _read(Path(vocab), Path(merges))


def read_bpe_file(path: Path) -> Vocabulary:
    """The vocabulary in OpenAI's form: a list of merges; tokens are bytes, bytes that end a word, merges, two marks."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [_pair(line) for line in lines[1 : 1 + _BPE_MERGES]]
    return vocabulary_of_merges(merges), merges


def vocabulary_of_merges(merges: list[tuple[str, str]]) -> dict[str, int]:
    """CLIP's numbering of tokens, which follows from the merges alone.

    Byte-level BPE writes every byte as one letter: printable ones as themselves, the others as U+0100 and up.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    joined = ["".join(pair) for pair in merges]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def packed_vocabulary(tokenizer: CLIPTokenizer) -> dict[str, str]:
    """A tokenizer as the two texts that `family_tokenizers` takes as `packed`, and that older readers know as files."""
    tokens, merges = vocabulary_of(tokenizer)
    return {
        "vocab.json": json.dumps(tokens, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]),
    }


def vocabulary_of(tokenizer: CLIPTokenizer) -> Vocabulary:
    """What a tokenizer was built from; tokens that were added later are not in it."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return model["vocab"], [_pair(pair) if isinstance(pair, str) else (pair[0], pair[1]) for pair in model["merges"]]


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """A tokenizer from its folder in a diffusers model."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer in '{folder}' cannot be loaded: {error}") from error


def _folders(cache_dir: Path | None, model_path: Path) -> list[Path]:
    """Where a vocabulary may lie as two files; sd-scripts writes the cache with "/" replaced by "_"."""
    folders = []
    if cache_dir is not None:
        folders += [cache_dir, cache_dir / "tokenizer"]
        folders += [cache_dir / name.replace("/", "_") for name, _ in _HUB_PLACES]
    return [*folders, model_path.parent / "tokenizer"]


def _read(vocab: Path, merges: Path) -> Vocabulary:
    try:
        return _from_texts(vocab.read_text(encoding="utf-8"), merges.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"The tokenizer files '{vocab}' and '{merges}' cannot be read: {error}.") from error


def _from_texts(vocab: str, merges: str) -> Vocabulary:
    lines = merges.split("\n")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    return json.loads(vocab), [_pair(line) for line in lines if line.strip()]


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right
