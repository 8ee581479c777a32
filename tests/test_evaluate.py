"""evaluate.py from the command line: what it measures, what it says where it cannot, and what it never does."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from evaluate import main
from library.metrics import weights
from library.metrics.networks.transformer import load_clip
from library.metrics.preprocess import open_picture
from tests.library.metrics import tiny_networks

PROMPTS = ("a red boat", "a green tree", "a photo of a dog", "a blue house")


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no torchvision, and nothing that happens to lie in this machine's caches."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(weights, "in_hub_cache", lambda source: None)
    monkeypatch.setattr(weights, "_in_torchmetrics", lambda: None)


def write_pictures(folder: Path, count: int, seed: int, prompts: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        if prompts:
            (folder / f"{number:02d}.txt").write_text(prompts[number % len(prompts)], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file with every kind of tiny network but Inception and faces."""
    folder = tmp_path_factory.mktemp("networks")
    reward, words = tiny_networks.write_image_reward(folder / "reward")
    alexnet, heads = tiny_networks.write_alexnet(folder / "alexnet")
    csd = folder / "csd.bin"
    torch.save(tiny_networks.random_tensors(tiny_networks.openai_vit_shapes()), csd)
    paths = {
        "clip": tiny_networks.write_clip(folder / "clip"),
        "clip_336": tiny_networks.write_clip(folder / "clip_336", side=336),
        "pickscore": tiny_networks.write_clip(folder / "pickscore", seed=1),
        "dino": tiny_networks.write_vision(folder / "dino", "dino"),
        "dinov2": tiny_networks.write_vision(folder / "dinov2", "dinov2"),
        **{"csd": csd, "image_reward": reward, "bert_vocabulary": words, "alexnet": alexnet, "lpips_heads": heads},
    }
    lines = ["[weights]", *(f"{name} = '{path}'" for name, path in paths.items())]
    lines += ["[features.judge]", "module = 'miniworld.judge'", "weights = 'miniworld/judge.safetensors'"]
    (folder / "w.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder / "w.toml"


def evaluate(
    folder: Path, *words: object, code: int = 0, output: str = "eval.json", **options: object
) -> dict[str, Any]:
    argv = [str(word) for word in words]
    for name, value in {"output": folder / output, **options}.items():
        argv += [f"--{name}", str(value)]
    assert main(argv) == code
    return json.loads((folder / output).read_text(encoding="utf-8")) if (folder / output).exists() else {}


def test_without_weights_all_is_reported_to_be_missing_and_nothing_is_fetched(tmp_path: Path, capfd, monkeypatch):
    generated = write_pictures(tmp_path / "out", 4, 0, PROMPTS)
    reference = write_pictures(tmp_path / "refs", 5, 1)
    (reference / "00.png").rename(reference / "a.png")
    for number in range(1, 4):
        (reference / f"0{number}.png").rename(reference / f"b{number}.png")
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **how: asked.append(address))
    facts = evaluate(tmp_path, generated=generated, reference=reference)
    assert asked == []
    assert all(list(figure) == ["not_measured"] for figure in facts["metrics"].values())
    assert len(facts["metrics"]) == 14
    said = capfd.readouterr().out
    assert (
        "fid: not measured, because the Inception weights are missing; to get it, download "
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth and set weights.inception\n"
    ) in said


def test_every_metric_whose_network_is_there_is_measured(tmp_path: Path, networks: Path, capfd):
    generated = write_pictures(tmp_path / "out", 8, 0, PROMPTS)
    reference = write_pictures(tmp_path / "refs", 6, 1)
    facts = evaluate(tmp_path, "--paper_table", generated=generated, reference=reference, weights=networks)
    measured = {name: figure for name, figure in facts["metrics"].items() if "value" in figure}
    assert facts["metrics"].keys() - measured.keys() == {"fid", "kid", "fid_64", "fid_192", "identity"}
    assert (measured["clip_t"]["n_pictures"], measured["clip_t"]["n_prompts"]) == (8, 4)
    low, high = measured["dino"]["interval"]
    assert low < measured["dino"]["value"] < high
    assert measured["dino_folders"]["note"] == "not comparable"
    assert measured["fid_judge"]["n"] == 3
    assert len(measured["style"]["weights"]["csd"]["sha256"]) == 64
    assert facts["pictures"][0].keys() >= {"file", "sha256", "prompt", "clip_t", "image_reward", "lpips", "psnr"}
    assert len(facts["copying"]["pictures"]) == 8
    said = capfd.readouterr().out
    assert "fewer than 8 prompts" in said
    assert "not comparable" in said


def test_clip_t_is_the_cosine_of_picture_and_prompt(tmp_path: Path, networks: Path):
    generated = write_pictures(tmp_path / "out", 4, 0, PROMPTS)
    facts = evaluate(tmp_path, generated=generated, weights=networks, metrics="clip_t")
    clip = load_clip(networks.parent / "clip", "cpu")
    direct = []
    for number, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            picture = clip.network.see([open_picture(generated / f"{number:02d}.png")])[0].double()
        text = torch.from_numpy(clip.read([prompt]))[0]
        direct.append(float(picture @ text / (picture.norm() * text.norm())))
    assert [row["clip_t"] for row in facts["pictures"]] == pytest.approx(direct, abs=1e-5)
    assert facts["metrics"]["clip_t"]["value"] == pytest.approx(np.mean(direct), abs=1e-5)
    assert facts["metrics"]["clip_t"]["truncated_prompts"] == 0


def test_names_of_files_and_the_size_of_batches_change_nothing(tmp_path: Path, networks: Path):
    generated = write_pictures(tmp_path / "out", 8, 0, PROMPTS)
    reference = write_pictures(tmp_path / "refs", 6, 1)
    other = tmp_path / "shuffled"
    other.mkdir()
    for old, new in zip(range(8), (3, 1, 7, 0, 5, 2, 6, 4), strict=True):
        for ending in (".png", ".txt"):
            shutil.copy(generated / f"{old:02d}{ending}", other / f"{new:02d}{ending}")
    asked: dict[str, Any] = {"reference": reference, "weights": networks}
    asked["metrics"] = "clip_t,clip_i,dino,dinov2,style,pickscore,image_reward,judge,kid_judge,fid_judge,cmmd"
    one = evaluate(tmp_path, generated=generated, batch_size=1, **asked)["metrics"]
    eight = evaluate(tmp_path, generated=other, batch_size=8, output="other.json", **asked)["metrics"]
    for name, figure in one.items():
        scale = max(1.0, abs(figure["value"]))
        assert eight[name]["value"] == pytest.approx(figure["value"], abs=1e-6 * scale), name


def test_a_second_call_reads_what_the_first_has_seen(tmp_path: Path, networks: Path, monkeypatch):
    generated = write_pictures(tmp_path / "out", 3, 0)
    asked: dict[str, Any] = {"generated": generated, "reference": generated, "weights": networks, "metrics": "judge"}
    first = evaluate(tmp_path, cache=tmp_path / "cache", **asked)
    monkeypatch.setattr("miniworld.judge.Judge.features", lambda *_: pytest.fail("seen again"))
    assert evaluate(tmp_path, cache=tmp_path / "cache", **asked)["pictures"] == first["pictures"]


def test_two_models_are_compared_by_prompt(tmp_path: Path, networks: Path, capfd):
    reference = write_pictures(tmp_path / "refs", 4, 1)
    near, far = write_pictures(tmp_path / "near", 8, 1, PROMPTS), write_pictures(tmp_path / "far", 8, 2, PROMPTS)
    asked: dict[str, Any] = {"reference": reference, "weights": networks, "metrics": "judge,psnr"}
    evaluate(tmp_path, generated=far, output="far.json", **asked)
    facts = evaluate(tmp_path, generated=near, against=tmp_path / "far.json", **asked)
    judge = facts["against"]["metrics"]["judge"]
    values = [
        np.mean([row["judge"] for row in json.loads((tmp_path / name).read_text())["pictures"]])
        for name in ("eval.json", "far.json")
    ]
    assert judge["difference"] == pytest.approx(values[0] - values[1])
    assert judge["n"] == 4
    assert judge["holm_p"] >= judge["p"]
    assert "less far.json" in capfd.readouterr().out


def test_two_models_are_not_compared_by_different_networks_or_references(tmp_path: Path, networks: Path, capfd):
    refs, others = write_pictures(tmp_path / "refs", 4, 1), write_pictures(tmp_path / "others", 4, 5)
    pictures = write_pictures(tmp_path / "pictures", 8, 1, PROMPTS)
    other_clip = tiny_networks.write_clip(tmp_path / "clip", seed=3)
    (tmp_path / "w.toml").write_text(f"[weights]\nclip = '{other_clip}'\n", encoding="utf-8")
    far = tmp_path / "far.json"
    asked: dict[str, Any] = {"generated": pictures, "weights": networks, "metrics": "clip_t,clip_i"}
    evaluate(tmp_path, reference=refs, output="far.json", **asked)
    hashes = [json.loads(far.read_text())["metrics"]["clip_i"]["weights"]["clip"]["sha256"][:8]]
    capfd.readouterr()

    evaluate(tmp_path, reference=others, against=far, output="new.json", code=2, **asked)
    said = capfd.readouterr().err
    assert "clip_i was measured there against other references than those of `--reference`" in said
    assert "clip_t" not in said
    assert not (tmp_path / "new.json").exists()
    evaluate(tmp_path, reference=others, against=far, code=0, **asked | {"metrics": "clip_t"})  # which looks at none

    older = json.loads(far.read_text())
    del older["metrics"]["clip_i"]["references"]
    (tmp_path / "older.json").write_text(json.dumps(older), encoding="utf-8")
    evaluate(tmp_path, reference=refs, against=tmp_path / "older.json", output="new.json", code=2, **asked)
    assert "clip_i was measured there by a version that did not note its references" in capfd.readouterr().err

    evaluate(
        tmp_path, reference=refs, against=far, output="new.json", code=2, **asked | {"weights": tmp_path / "w.toml"}
    )
    said = capfd.readouterr().err
    assert f"clip_t was measured there with clip {hashes[0]}, and here it would be clip " in said
    shutil.copytree(refs, tmp_path / "renamed")
    (tmp_path / "renamed" / "00.png").rename(tmp_path / "renamed" / "x.png")
    evaluate(tmp_path, reference=tmp_path / "renamed", against=far, **asked)  # the same pictures


def test_a_pickle_that_would_run_code_is_refused_and_the_rest_is_measured(tmp_path: Path, networks: Path, capfd):
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harmed",))

    (tmp_path / "csd.bin").write_bytes(pickle.dumps({"last_layer_style": Harmful()}))
    toml = networks.read_text(encoding="utf-8").replace(str(networks.parent / "csd.bin"), str(tmp_path / "csd.bin"))
    (tmp_path / "w.toml").write_text(toml, encoding="utf-8")
    generated = write_pictures(tmp_path / "out", 2, 0)
    asked: dict[str, Any] = {
        "generated": generated,
        "reference": generated,
        "weights": tmp_path / "w.toml",
        "metrics": "style,judge",
    }
    facts = evaluate(tmp_path, **asked)
    assert "value" in facts["metrics"]["judge"]
    assert "is a pickle that holds more than weights" in facts["metrics"]["style"]["not_measured"]
    assert not (tmp_path / "harmed").exists()
    evaluate(tmp_path, require="style", code=3, **asked)
    assert "error: required, but style: not measured" in capfd.readouterr().err


def test_a_manifest_gives_prompts_to_pictures_and_leaves_out_the_rest(tmp_path: Path, networks: Path, capfd):
    generated = write_pictures(tmp_path / "out", 5, 0)
    lines = [{"file": "0[01].png", "prompt": "a red boat"}, {"file": "04.png", "prompt": "a dog", "seed": 3}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    facts = evaluate(tmp_path, generated=generated, prompts=tmp_path / "p.jsonl", weights=networks, metrics="clip_t")
    assert [(row["file"], row["prompt"]) for row in facts["pictures"]] == [
        ("00.png", "a red boat"),
        ("01.png", "a red boat"),
        ("04.png", "a dog"),
    ]
    assert "2 of 5 generated pictures are in no line of p.jsonl" in capfd.readouterr().err


def test_prompts_are_read_from_samples_of_the_trainer_and_of_a1111_and_only_some_pictures_are_taken(tmp_path: Path):
    generated = tmp_path / "out"
    generated.mkdir()
    texts = {
        "s_e000001_00.png": ("prompt", "a red boat"),
        "s_e000001_01.png": ("parameters", "a dog,\nblue\nNegative prompt: cat\nSteps: 20, Sampler: Euler"),
        "s_e000001_02.png": ("parameters", "a tree\nSteps: 20, Sampler: Euler"),
        "s_e000001_03.png": ("prompt", '{"3": {"class_type": "KSampler"}}'),
        "s_e000000_00.png": ("prompt", "a green tree"),
    }
    for name, (key, text) in texts.items():
        info = PngInfo()
        info.add_itxt(key, text)
        Image.new("RGB", (32, 32)).save(generated / name, pnginfo=info)
    facts = evaluate(tmp_path, generated=generated, only="*_e000001_*")
    assert [row.get("prompt") for row in facts["pictures"]] == ["a red boat", "a dog,\nblue", "a tree", None]


def test_scores_from_elsewhere_get_the_same_intervals(tmp_path: Path):
    generated = write_pictures(tmp_path / "out", 4, 0, PROMPTS)
    (tmp_path / "x.csv").write_text("file,hpsv3\n00.png,1\n01.png,2\n02.png,3\n03.png,4\n", encoding="utf-8")
    facts = evaluate(tmp_path, generated=generated, metrics="clip_t", scores=tmp_path / "x.csv")
    assert facts["metrics"]["hpsv3"]["value"] == 2.5
    assert facts["metrics"]["hpsv3"]["interval"] == pytest.approx([0.445740, 4.554260], abs=1e-6)
    (tmp_path / "x.csv").write_text("file,hpsv3\n00.png,good\n", encoding="utf-8")
    assert main(["--generated", str(generated), "--scores", str(tmp_path / "x.csv")]) == 2


def test_all_mistakes_are_reported_at_once_with_exit_code_2(tmp_path: Path, capfd):
    (tmp_path / "w.toml").write_text("[weights]\nclipp = 'x'\ndino = 'nowhere'\n", encoding="utf-8")
    (tmp_path / "p.jsonl").write_text('{"file": "a.png"}\n', encoding="utf-8")
    options = {"reference": tmp_path / "refs", "metrics": "clip_tt", "prompts": tmp_path / "p.jsonl"}
    evaluate(tmp_path, code=2, weights=tmp_path / "w.toml", **options)
    said = capfd.readouterr().err
    for line in (
        "`--generated` is missing",
        "refs does not exist",
        "p.jsonl line 1 must have the texts `file` and `prompt`",
        "`clipp` in w.toml line 2 is not a name of weights; did you mean `clip`?",
        "`dino` in w.toml line 3: nowhere does not exist",
        "clip_tt is no metric; did you mean `clip_t`?",
    ):
        assert line in said


def test_without_a_network_pixels_tell_of_copies_duplicates_and_looks(tmp_path: Path, capfd):
    generated = write_pictures(tmp_path / "out", 4, 0, PROMPTS)
    reference = write_pictures(tmp_path / "refs", 5, 1)
    with Image.open(reference / "03.png") as copied:
        copied.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((96, 96)).save(generated / "01.png")
    shutil.copy(generated / "00.png", generated / "02.png")
    facts = evaluate(tmp_path, generated=generated, reference=reference)["pixels"]
    (copy,), (duplicate,) = facts["copies"], facts["duplicates"]
    assert (copy["file"], copy["other"]) == ("01.png", "03.png")
    assert copy["cosine"] > 0.99
    assert (duplicate["file"], duplicate["other"], duplicate["cosine"]) == ("00.png", "02.png", 1.0)
    assert facts["references"]["lightness"] == pytest.approx(0.5, abs=0.1)
    assert facts["generated"]["sharpness"] > 0
    printed = capfd.readouterr().out
    assert "copies of references: 1 of 4: 01.png ~ 03.png" in printed
    assert "duplicates among the generated: 1 of 4: 00.png ~ 02.png (1.00)" in printed


@pytest.mark.parametrize("options", [{"metrics": "clip_t"}, {"only": "00*"}])
def test_where_nothing_can_be_measured_one_line_says_so_and_nothing_is_written(tmp_path: Path, capfd, options):
    generated = write_pictures(tmp_path / "out", 2, 0, PROMPTS)
    assert evaluate(tmp_path, code=3, generated=generated, **options) == {}
    error = capfd.readouterr().err
    assert "nothing could be measured: clip_t: not measured, because the CLIP weights are missing" in error
    assert not (tmp_path / "eval.json").exists()


def test_list_shows_which_networks_are_where(networks: Path, capfd):
    assert main(["--list", "--weights", str(networks)]) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[:-2]}
    assert rows["clip"] == ["found", str(networks.parent / "clip")]
    assert rows["inception"][0] == "missing"
    assert rows["inception"][1].startswith("https://")
    assert rows["judge"] == ["found", "miniworld/judge.safetensors"]
    assert "networks are here" in lines[-1]
