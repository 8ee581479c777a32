"""`python -m embeddings convert IN [IN_2] OUT`: an embedding from any layout to another.

IN may be a LoRA file that carries embeddings: OUT is then a folder, and each is written to a file of its name. Two
inputs are the two files that diffusers writes for SDXL (CLIP-L first), which become one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from library.console import show
from library.errors import UserError

WIDTHS = {"sd1": {"clip_l": 768}, "sd2": {"clip_h": 1024}, "sdxl": {"clip_l": 768, "clip_g": 1280}}


def convert(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m embeddings convert", description=__doc__)
    parser.add_argument("input", type=Path, nargs="+", metavar="IN", help="embedding file, LoRA file, or two files")
    parser.add_argument("output", type=Path, metavar="OUT", help="file to write; a folder where IN is a LoRA file")
    parser.add_argument("--layout", default="kohya", choices=("kohya", "diffusers", "a1111", "split"))
    parser.add_argument("--token", help="the word, where the layout stores one (else the one that IN names)")
    parser.add_argument("--model", choices=tuple(WIDTHS), help="refuse vectors that are not of this model")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    arguments = parser.parse_args(argv)
    from library.models.embedding_files import Embedding, read_bundle, read_embedding, vectors_for, write_embedding
    from library.path_safety import stem_of_text

    first = arguments.input[0]
    if len(arguments.input) > 2:
        raise UserError(f"{len(arguments.input)} inputs are given; give one file, or SDXL's two")
    bundled = read_bundle(first) if len(arguments.input) == 1 else []
    if bundled:
        targets, stems = [], set()
        ending = ".pt" if arguments.layout == "a1111" else ".safetensors"
        # A word is anybody's text: a file is named after it, in OUT and nowhere else. Words that are names come first.
        for embedding in sorted(bundled, key=lambda one: stem_of_text(one.token) != one.token):
            stem = stem_of_text(embedding.token, stems)
            second = [f"{stem}_2"] if arguments.layout == "diffusers" and len(embedding.vectors) > 1 else []
            stems.update(name.lower() for name in (stem, *second))
            targets.append((embedding, arguments.output / f"{stem}{ending}"))
    elif len(arguments.input) == 2:
        parts = [read_embedding(file) for file in arguments.input]
        vectors = {name: next(iter(p.vectors.values())) for name, p in zip(WIDTHS["sdxl"], parts, strict=True)}
        targets = [(Embedding(vectors, parts[0].token, parts[0].metadata), arguments.output)]
    else:
        targets = [(read_embedding(first), arguments.output)]
    taken = [target for _, target in targets if target.is_file()]
    if taken and not arguments.overwrite:
        raise UserError(f"{taken[0]} exists already; give another name, or add --overwrite to replace it")
    for embedding, target in targets:
        if arguments.model:
            vectors_for(embedding, WIDTHS[arguments.model], first)
        named = arguments.token or embedding.token or embedding.metadata.get("ss_token_string")
        embedding.token = named or target.stem
        metadata = own_metadata(embedding.metadata)
        if named:  # kept beside the vectors, for a layout that has no place for it, so that it is there on the way back
            metadata["ss_token_string"] = named
        for file in write_embedding(target, embedding, arguments.layout, metadata):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in embedding.vectors.items())
            show(f"Wrote {file}: {shapes}, token {embedding.token}")


def own_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """What the file says about the embedding, without what only described a network beside it."""
    return {name: text for name, text in metadata.items() if not name.startswith(("ss_network", "sshs_"))}
