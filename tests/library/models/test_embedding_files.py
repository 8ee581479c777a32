"""Embedding files of every layout: read whole or refused, and written as other programs expect them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch

from embeddings.commands.convert import convert
from library.errors import UserError
from library.files import write_nested, write_tensors
from library.models.embedding_files import (
    ONLY,
    Embedding,
    bundle_keys,
    read_bundle,
    read_embedding,
    usable_stem,
    vectors_for,
    write_embedding,
)
from library.models.family import Family
from tests.library.models.readers import (
    RULES,
    bundled_by_a1111,
    by_a1111,
    by_comfyui,
    by_diffusers,
    by_sd_scripts,
    content_of,
)
from tests.library.training.trained.test_textual_inversion import new_word

ROWS = torch.arange(8.0).view(2, 4)


def one(rows: torch.Tensor = ROWS, token: str = "zwx") -> Embedding:
    return Embedding({ONLY: rows}, token)


def pair() -> Embedding:
    return Embedding({"clip_l": ROWS, "clip_g": torch.arange(12.0).view(2, 6)}, "zwx")


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "a1111", "split"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".bin"])
def test_every_layout_comes_back_as_it_was_written(layout, ending, tmp_path):
    if (layout, ending) == ("a1111", ".safetensors"):
        with pytest.raises(UserError, match=r"written as \.pt"):
            write_embedding(tmp_path / "a.safetensors", one(), layout)
        return
    (path,) = write_embedding(tmp_path / f"a{ending}", one(), layout)
    back = read_embedding(path)
    assert torch.equal(back.vectors[ONLY], ROWS)
    assert back.token == ("" if layout == "kohya" else "zwx")
    assert back.count == 2


@pytest.mark.parametrize("program", RULES)
@pytest.mark.parametrize("layout", ["kohya", "diffusers", "a1111"])
def test_other_programs_read_all_vectors_of_what_is_written(layout, program, tmp_path):
    (path,) = write_embedding(tmp_path / "a.pt", one(), layout)
    assert same(RULES[program](content_of(path), Family.SD1), [ROWS])


@pytest.mark.parametrize("program", RULES)
def test_sdxl_s_pair_is_read_by_its_two_names(program, tmp_path):
    (path,) = write_embedding(tmp_path / "a.safetensors", pair())
    assert same(RULES[program](content_of(path), Family.SDXL), list(pair().vectors.values()))
    assert same(list(read_embedding(path).vectors.values()), list(pair().vectors.values()))


@pytest.mark.parametrize("family", list(Family))
def test_what_training_saves_is_read_whole_by_four_programs(family, tmp_path):
    rows, _ = new_word(family)
    rows.save(tmp_path / "zwx.safetensors", {"ss_steps": "1"})
    trained = [parameter.detach() for parameter in rows.rows]
    assert {len(vectors) for vectors in trained} == {2}
    for rule in RULES.values():
        assert same(rule(content_of(tmp_path / "zwx.safetensors"), family), trained)
    files = [tmp_path / "zwx.safetensors"]
    if family is Family.SDXL:  # diffusers reads a file for each text encoder
        saved = read_embedding(files[0])
        files = write_embedding(tmp_path / "d.safetensors", Embedding(saved.vectors, "zwx"), "diffusers")
    assert same(by_diffusers(files, family, "zwx"), trained)


def test_what_others_cut_or_refuse_is_read_whole_by_all_of_them_after_conversion(tmp_path):
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    torch.save({"zwx_v0": rows[0], "zwx_v1": rows[1]}, tmp_path / "learned_embeds.bin")
    single = content_of(tmp_path / "learned_embeds.bin")
    with pytest.raises(AssertionError, match="multiple terms"):
        by_a1111(single, Family.SD1)
    for rule in (by_comfyui, by_sd_scripts):
        assert same(rule(single, Family.SD1), [rows[:1]]), "only the first vector: why files are converted"
    with pytest.raises(ValueError, match="zwx_v0"):
        by_diffusers([tmp_path / "learned_embeds.bin"], Family.SD1, None)
    convert([str(tmp_path / "learned_embeds.bin"), str(tmp_path / "zwx.safetensors")])
    for rule in RULES.values():
        assert same(rule(content_of(tmp_path / "zwx.safetensors"), Family.SD1), [rows])
    assert same(by_diffusers([tmp_path / "zwx.safetensors"], Family.SD1, "zwx"), [rows])
    convert([str(tmp_path / "zwx.safetensors"), str(tmp_path / "back.bin"), "--layout", "split"])
    back = content_of(tmp_path / "back.bin")
    assert list(back) == list(single), "the word is not lost on the way"
    assert all(torch.equal(back[name], vector) for name, vector in single.items())


def test_sdxl_s_pair_becomes_two_files_for_diffusers_and_is_refused_where_there_is_no_place(tmp_path):
    files = write_embedding(tmp_path / "learned_embeds.safetensors", pair(), "diffusers")
    assert [file.name for file in files] == ["learned_embeds.safetensors", "learned_embeds_2.safetensors"]
    assert torch.equal(read_embedding(files[1]).vectors[ONLY], pair().vectors["clip_g"])
    for layout in ("a1111", "split"):
        with pytest.raises(UserError, match="one text encoder, not SDXL's two"):
            write_embedding(tmp_path / "a.pt", pair(), layout)


def official(width: int = 1024, token: str = "28017") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"{token}_v{i}": torch.randn(width, generator=generator) for i in range(2)}


def test_numbered_single_vectors_are_put_together_and_go_back_bit_for_bit(tmp_path):
    torch.save(official(), tmp_path / "learned_embeds.bin")
    embedding = read_embedding(tmp_path / "learned_embeds.bin")
    assert embedding.token == "28017"
    assert embedding.vectors[ONLY].shape == (2, 1024)
    (kohya,) = write_embedding(tmp_path / "28017.safetensors", embedding)
    (back,) = write_embedding(tmp_path / "back.bin", Embedding(read_embedding(kohya).vectors, "28017"), "split")
    again = content_of(back)
    assert list(again) == ["28017_v0", "28017_v1"]
    assert all(torch.equal(again[name], tensor) for name, tensor in official().items())


def test_the_order_of_numbered_vectors_is_their_number(tmp_path):
    rows = {f"x_v{i}": torch.full((4,), float(i)) for i in (10, *range(10))}
    torch.save(rows, tmp_path / "a.bin")
    assert read_embedding(tmp_path / "a.bin").vectors[ONLY][:, 0].tolist() == list(range(11))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"x_v0": torch.zeros(4), "x_v2": torch.zeros(4)}, "not numbered"),
        ({"x_v0": torch.zeros(4), "y_v1": torch.zeros(4)}, "not numbered"),
        ({"x": torch.zeros(4), "y": torch.zeros(4)}, "not numbered"),
        ({"x_v0": torch.zeros(4), "x_v1": torch.zeros(5)}, "mixes vectors of 4 and 5"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(2, 4)}, "not an embedding file"),
        ({"a": torch.zeros(1, 2, 4)}, "not a list of vectors"),
        ({"a": torch.full((2, 4), float("nan"))}, "not finite"),
        ({"clip_l": torch.zeros(2, 4), "clip_g": torch.zeros(1, 6)}, "different numbers of vectors"),
        ({"string_to_param": {"*": torch.zeros(1, 4), "x": torch.zeros(1, 4)}}, "2 embeddings"),
    ],
)
def test_what_is_no_embedding_is_refused_and_never_cut(content, said, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=said):
        read_embedding(tmp_path / "a.pt")


def test_a_file_of_another_model_is_refused_with_both_widths(tmp_path):
    torch.save(official(), tmp_path / "a.bin")
    embedding = read_embedding(tmp_path / "a.bin")
    assert vectors_for(embedding, {"clip_h": 1024}, "a.bin")[0].shape == (2, 1024)
    with pytest.raises(UserError, match=r"1024 numbers, but the text encoder clip_l of this model has 768"):
        vectors_for(embedding, {"clip_l": 768}, "a.bin")
    with pytest.raises(UserError, match=r"needs vectors for clip_l \(768 numbers\) and clip_g \(1280 numbers\)"):
        vectors_for(embedding, {"clip_l": 768, "clip_g": 1280}, "a.bin")
    with pytest.raises(UserError, match="of another model"):
        vectors_for(pair(), {"clip_l": 4}, "a.bin")


def test_one_that_runs_code_is_never_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return Path.write_text, (tmp_path / "ran", "x")

    content = io.BytesIO()
    pickle.dump({"emb_params": Runs()}, content)
    (tmp_path / "a.pt").write_bytes(content.getvalue())
    with pytest.raises(UserError, match="could run any program"):
        read_embedding(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_a_lora_file_carries_embeddings_by_the_names_that_user_interfaces_look_for(family, tmp_path):
    embedding = pair() if family is Family.SDXL else one()
    vectors = list(embedding.vectors.values())
    weights = {"lora_unet_x.lora_down.weight": torch.zeros(2, 4)}
    write_tensors(tmp_path / "lora.safetensors", weights | bundle_keys(embedding, "my.face"))
    content = content_of(tmp_path / "lora.safetensors")
    keys = ["clip_l", "clip_g"] if family is Family.SDXL else ["string_to_param.*"]
    assert set(content) == {*weights, *(f"bundle_emb.my_face.{key}" for key in keys)}
    bundled = bundled_by_a1111(content)
    assert list(bundled) == ["my_face"]
    assert same(by_a1111(bundled["my_face"], family), vectors)
    assert same(by_comfyui(content, family), vectors)
    (back,) = read_bundle(tmp_path / "lora.safetensors")
    assert back.token == "my_face"
    assert all(torch.equal(back.vectors[name], rows) for name, rows in embedding.vectors.items())
    assert read_embedding(tmp_path / "lora.safetensors").token == "my_face"


def test_a_file_of_a_network_without_embeddings_carries_none(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(2, 4)})
    assert read_bundle(tmp_path / "a.safetensors") == []


def test_nested_content_keeps_its_name(tmp_path):
    write_nested(tmp_path / "a.pt", {"string_to_param": {"*": ROWS}, "name": "face", "step": 3})
    assert read_embedding(tmp_path / "a.pt").token == "face"


@pytest.mark.parametrize(
    ("name", "usable"), [("<face>", "face"), ("my face [2]", "my_face_2"), ("ok-1.2", "ok-1.2"), ("<>", "embedding")]
)
def test_file_names_become_words_that_prompts_can_hold(name, usable):
    assert usable_stem(name) == usable


@pytest.mark.parametrize("as_now", [True, False])
def test_the_parameter_dict_of_the_first_programs_is_read_and_what_hides_in_it_is_not(as_now, tmp_path):
    vectors = torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})
    vars(vectors).update(forward="print", _keys=3) if not as_now else None
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": vectors}, tmp_path / "a.pt")
    embedding = read_embedding(tmp_path / "a.pt")
    assert torch.equal(embedding.vectors["emb_params"], ROWS)
    assert not embedding.vectors["emb_params"].requires_grad


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_vectors_of_eight_bits_are_read_exactly_as_numbers_of_sixteen(dtype, tmp_path):
    small = ROWS.to(dtype)
    write_tensors(tmp_path / "a.safetensors", {f"zwx_v{i}": row for i, row in enumerate(small)})
    vectors = read_embedding(tmp_path / "a.safetensors").vectors["emb_params"]
    assert vectors.dtype == torch.float16
    assert torch.equal(vectors.float(), small.float())
    write_tensors(tmp_path / "b.safetensors", {"emb_params": torch.full((1, 4), float("nan")).to(dtype)})
    with pytest.raises(UserError, match="not finite"):
        read_embedding(tmp_path / "b.safetensors")
