"""What reaches a new word's training: layers, pulls, files, clip_skip; each seen in what comes out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from embeddings.cross_init import create_initializer
from embeddings.names import DEFAULT_LISTS
from library.files import read_metadata
from library.models.embedding_files import Embedding, write_embedding
from library.models.family import Family
from library.training.trained.initializers import starting_vectors
from library.training.trained.placeholder_token import build_word
from miniworld.tiny import build
from tests.embeddings.conftest import contexts_on
from tests.library.training.trained.test_placeholder_token import ALONE
from tests.library.training.trained.test_textual_inversion import new_word


@pytest.mark.parametrize(("family", "skip"), [(Family.SD1, 1), (Family.SD1, 2), (Family.SDXL, None)])
def test_the_start_is_the_layer_that_transformers_own_states_say(family, skip):
    for ctx in contexts_on(build(family), 2, clip_skip=skip, init_word="man"):
        norm = getattr(ctx.text_encoder, "text_model", ctx.text_encoder).final_layer_norm
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        ids = torch.tensor([ctx.ids("{}", special=True)])
        with ctx.placeholders.rows[ctx.index].holding(ctx.base_rows(ctx.ids("man") * 2)), torch.no_grad():
            states = ctx.text_encoder(input_ids=ids, output_hidden_states=True)
        wanted = states.hidden_states[-2] if family is Family.SDXL else norm(states.hidden_states[-skip])
        for layer, hidden in (("conditioning", wanted), ("final", states.last_hidden_state)):
            start = starting_vectors(create_initializer(ctx.args, layer=layer), ctx)
            torch.testing.assert_close(start, hidden[0, 1:3], atol=1e-5, rtol=0)


def test_the_pull_is_added_up_over_the_encoders():
    rows, _ = new_word(Family.SDXL, reg_weight="0.5")
    with torch.no_grad():
        for own in rows.rows:
            own.add_(0.1)
    penalty = rows.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.5 * 0.1 * (32**0.5 + 40**0.5), rel=1e-4)


def test_sdxl_s_file_has_each_encoder_s_vectors_under_its_name(tmp_path):
    rows, _ = new_word(Family.SDXL)
    rows.save(tmp_path / "a.safetensors", {})
    saved = load_file(tmp_path / "a.safetensors")
    assert torch.equal(saved["clip_l"], rows.rows[0].detach())
    assert torch.equal(saved["clip_g"], rows.rows[1].detach())


def test_the_pull_of_the_paper_is_there_unless_it_is_changed():
    assert create_initializer(None).reg_weight == 1e-5


@pytest.mark.parametrize("file", ["a.safetensors", "learned_embeds.bin"])
def test_training_goes_on_from_all_vectors_of_the_file_also_of_single_numbered_ones(file, train, tmp_path):
    """The second is what the paper's own code writes; loaders elsewhere take only its first vector."""
    vectors = torch.tensor([[7.0], [-3.0]]).expand(2, 32).contiguous()
    write_embedding(
        tmp_path / file, Embedding({"emb_params": vectors}, "28017"), "split" if ".bin" in file else "kohya"
    )
    assert train(**ALONE, weights=tmp_path / file, max_train_steps=1) == 0
    assert (load_file(tmp_path / "out" / "t.safetensors")["emb_params"] - vectors).abs().max() <= 0.0111


def test_a_file_of_fewer_vectors_than_are_trained_is_refused(train, tmp_path, capfd):
    write_embedding(tmp_path / "a.bin", Embedding({"emb_params": torch.ones(1, 32)}, "28017"), "split")
    assert train(**ALONE, weights=tmp_path / "a.bin", max_train_steps=1) != 0
    assert "holds 1 vectors, but `num_vectors_per_token` is 2" in capfd.readouterr().err


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("precision", [{}, {"full_bf16": True, "mixed_precision": "bf16"}], ids=["fp32", "bf16"])
def test_the_first_step_moves_every_number_by_embedding_lr_whatever_the_batch_and_the_model_s_precision(
    batch, precision, train, tmp_path
):
    write_embedding(tmp_path / "a.safetensors", Embedding({"emb_params": torch.ones(2, 32)}))
    options = {**ALONE, **precision, "embedding_lr": 1e-3, "optimizer_args": ["weight_decay=0"]}
    assert train(**options, weights=tmp_path / "a.safetensors", train_batch_size=batch, max_train_steps=1) == 0
    moved = (load_file(tmp_path / "out" / "t.safetensors")["emb_params"].float() - 1).abs()
    assert moved.min() > 0, "in bfloat16 itself, 1 + 0.001 is 1"
    assert moved.median() == pytest.approx(1e-3, rel=1e-2)
    assert moved.max() <= 1e-3 * 1.01


def test_a_run_leaves_every_weight_of_the_model_as_it_was(train, monkeypatch):
    seen = []

    def remembering(settings, checked, model, *rest):
        state = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in model.modules.items()}
        seen.append((model, state))
        return build_word(settings, checked, model, *rest)

    monkeypatch.setattr("library.training.setup.build.build_word", remembering)
    assert train(**ALONE, max_train_steps=3) == 0
    ((model, before),) = seen
    assert {"unet", "vae"} < set(before)
    for name, module in model.modules.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in module.state_dict().items()), name


def test_the_pull_is_part_of_the_loss_and_clip_skip_of_the_start(train, tmp_path):
    ends = {}
    for name, more in {"none": {"reg_weight": 0}, "pull": {"reg_weight": 1000}, "skip": {"clip_skip": 2}}.items():
        assert train(**ALONE, **more, output_dir=tmp_path / name, max_train_steps=3) == 0
        ends[name] = load_file(tmp_path / name / "t.safetensors")["emb_params"]
    assert not torch.equal(ends["none"], ends["pull"])
    assert (ends["none"] - ends["skip"]).abs().max() > 0.1


class Draws:
    def initial_embeddings(self, ctx):
        return torch.randn(ctx.num_vectors, ctx.hidden_size)


def test_an_initializer_that_draws_leaves_the_generator_as_it_was():
    (ctx,) = contexts_on(build(Family.SD1), 2)
    state = torch.get_rng_state()
    starting_vectors(Draws(), ctx)
    assert torch.equal(torch.get_rng_state(), state)


def test_columns_are_for_the_vectors_in_their_order(tmp_path):
    (ctx,) = contexts_on(build(Family.SD1), 2)
    for name, words in (("a", "anna\nmary"), ("b", "smith\njones")):
        (tmp_path / name).write_text(words)
    initializer = create_initializer(ctx.args, columns=f"{tmp_path / 'a'},{tmp_path / 'b'}", cross="false")
    wanted = [ctx.base_rows(ctx.ids(words)).mean(0) for words in ("anna mary", "smith jones")]
    torch.testing.assert_close(starting_vectors(initializer, ctx), torch.stack(wanted))
    assert [path.stem for path in DEFAULT_LISTS] == ["given_names", "surnames"]


def test_norm_control_acts_after_each_step_and_the_header_tells_both_norms(tmp_path):
    rows, _ = new_word(norm_control="clamp:1.25")
    with torch.no_grad():
        rows.rows[0].mul_(3)
    rows.after_step()
    rows.save(tmp_path / "a.safetensors", {"ss_steps": "1"})
    header = read_metadata(tmp_path / "a.safetensors")
    before, after = (list(map(float, header[name].split(","))) for name in ("ss_init_norms", "ss_final_norms"))
    assert after == pytest.approx([1.25 * norm for norm in before], rel=1e-3)
