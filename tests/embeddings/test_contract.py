"""What every embedding initializer must do. A new one is tested by being added to the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from library.errors import UserError
from library.models.embedding_files import embedding_of, write_embedding
from library.models.family import Family
from library.models.placeholders import token_table
from library.training.trained.initializers import EncoderContext, create_initializer, starting_vectors
from library.training.trained.plugins import import_plugin
from tests.embeddings.conftest import Contexts

NAMES = "anna smith\njohn jones\nmary ben\nben john smith\nanna\n"
INITIALIZERS: dict[str, dict[str, str]] = {
    "embeddings.from_word": {"init_word": "cat"},
    "embeddings.random": {},
    "embeddings.from_file": {"file": "vectors.safetensors"},
    "embeddings.cross_init": {"names": "names.txt"},
    "embeddings.cross_init#word": {"_init_word": "man"},
    "embeddings.cross_init#mean": {"names": "names.txt", "cross": "false"},
    "tests.embeddings.third_party": {"value": "0.5"},
}
"""Import path (and a mark to list it twice) -> arguments; a word with "_" is an option of the run."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """start(name, contexts) -> the initializer and its vectors for each encoder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text(NAMES, encoding="utf-8")

    def run(name: str, contexts: list[EncoderContext]) -> tuple[Any, list[torch.Tensor]]:
        arguments = {key: value for key, value in INITIALIZERS[name].items() if not key.startswith("_")}
        if "file" in arguments:
            rows = [torch.randn(ctx.num_vectors, ctx.hidden_size) for ctx in contexts]
            write_embedding(arguments["file"], embedding_of([ctx.name for ctx in contexts], rows, "x"))
        module = import_plugin(name.partition("#")[0], "embedding_initializer", ("create_initializer",))
        initializer = create_initializer(module, arguments, contexts[0].args)
        return initializer, [starting_vectors(initializer, ctx) for ctx in contexts]

    return run


def options_of(name: str) -> dict[str, Any]:
    return {key[1:]: value for key, value in INITIALIZERS[name].items() if key.startswith("_")}


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("name", INITIALIZERS)
def test_vectors_fit_every_family_and_nothing_else_has_changed(name, family, start, contexts: Contexts):
    shown = contexts(family, 2, **options_of(name))
    model = shown[0].conditioner.model
    encoder: Any = model.text_encoders[0].train()
    encoder.encoder.layers[1].eval().requires_grad_(True)  # modes and flags of its parts may differ
    modes = [module.training for module in encoder.modules()]
    before = [{k: v.clone() for k, v in encoder.state_dict().items()} for encoder in model.text_encoders]
    flags = [p.requires_grad for encoder in model.text_encoders for p in encoder.parameters()]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    if "file" in INITIALIZERS[name]:
        shown[0].args.seed = 1  # the test itself draws the file's vectors
        torch.manual_seed(11)
    _, vectors = start(name, shown)
    assert [tuple(v.shape) for v in vectors] == [(2, ctx.hidden_size) for ctx in shown]
    assert all(v.dtype == torch.float32 and v.isfinite().all() and not v.requires_grad for v in vectors)
    for encoder, kept in zip(model.text_encoders, before, strict=True):
        assert all(torch.equal(tensor, kept[key]) for key, tensor in encoder.state_dict().items())
    assert flags == [p.requires_grad for encoder in model.text_encoders for p in encoder.parameters()]
    assert modes == [module.training for module in model.text_encoders[0].modules()]
    if "file" not in INITIALIZERS[name]:
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_the_same_arguments_give_the_same_start(name, start, contexts: Contexts):
    torch.manual_seed(0)
    first = start(name, contexts(Family.SD1, 2, **options_of(name)))[1]
    torch.manual_seed(0)
    again = start(name, contexts(Family.SD1, 2, **options_of(name)))[1]
    assert torch.equal(first[0], again[0])


@pytest.mark.parametrize("name", INITIALIZERS)
def test_hooks_that_are_there_answer_in_the_contract_s_types(name, start, contexts: Contexts):
    (ctx,) = contexts(Family.SD1, 2, **options_of(name))
    initializer, (vectors,) = start(name, [ctx])
    ctx.start = vectors.clone()
    rows = torch.nn.Parameter(vectors + 0.1)
    if hasattr(initializer, "regularization"):
        penalty = initializer.regularization(ctx, rows)
        assert penalty is None or (penalty.ndim == 0 and penalty.isfinite())
    if hasattr(initializer, "after_step"):
        initializer.after_step(ctx, rows.data, 1)
        assert rows.isfinite().all()
    metadata = initializer.metadata() if hasattr(initializer, "metadata") else {}
    assert all(isinstance(text, str) for pair in metadata.items() for text in pair)


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if "#" not in name])
def test_an_unknown_argument_is_refused_with_the_nearest_known_one(name):
    module = import_plugin(name, "embedding_initializer", ("create_initializer",))
    with pytest.raises(UserError, match=r"no option `reg_wieght`|`reg_wieght` is not an argument"):
        create_initializer(module, {"reg_wieght": "1"}, None)


class Misbehaving:
    """An initializer that does one thing wrong."""

    def __init__(self, what: str) -> None:
        self.what = what

    def initial_embeddings(self, ctx: EncoderContext) -> Any:
        if self.what == "writes":
            token_table(ctx.text_encoder).weight.data[0] += 1
        rows = torch.zeros(ctx.num_vectors, ctx.hidden_size)
        return {"shape": rows[:, 1:], "nan": rows * float("nan"), "none": None}.get(self.what, rows)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("shape", r"vectors \(2, 31\) for clip_l, but \(2, 32\) are needed"),
        ("nan", "not finite"),
        ("none", "NoneType"),
        ("writes", "changed the text encoder's own token embeddings"),
    ],
)
def test_a_wrong_answer_is_refused_with_what_is_needed(what, said, contexts: Contexts):
    (ctx,) = contexts()
    before = token_table(ctx.text_encoder).weight.clone()
    with pytest.raises(UserError, match=said):
        starting_vectors(Misbehaving(what), ctx)
    assert torch.equal(token_table(ctx.text_encoder).weight, before)
