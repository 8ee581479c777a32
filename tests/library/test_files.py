"""Weights and state on the disk: whole or not at all, safe to read, and recognised by other programs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from library import files
from library.errors import UserError


class SmallNetwork:
    """Saves itself as a network module does, with a note of its own."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors or {
            "lora_te_encoder_x.lora_up.weight": torch.ones(2, 3),
            "lora_te_encoder_x.alpha": torch.tensor(1.0),
        }

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: dict[str, str]) -> None:
        cast = {name: tensor.to(dtype or tensor.dtype) for name, tensor in self.tensors.items()}
        files.write_tensors(file, cast, metadata | {"ss_own": "note"})


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- reading and writing tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt", ".bin"])
def test_tensors_come_back_with_their_types(tmp_path, suffix):
    tensors = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(2).bfloat16(),
        "scalar": torch.tensor(0.5),
        "view": torch.arange(12).reshape(3, 4).T,  # not contiguous
    }
    files.write_tensors(tmp_path / f"a{suffix}", tensors, {"ss_a": "ü"})
    found, metadata = files.read_tensors(tmp_path / f"a{suffix}")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)
    assert metadata == ({"ss_a": "ü"} if suffix == ".safetensors" else {})
    assert files.read_metadata(tmp_path / f"a{suffix}") == metadata


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    one = torch.randn(4)
    files.write_tensors(tmp_path / "a.safetensors", {"x": one, "y": one})
    found, _ = files.read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(found["x"], found["y"])


def test_what_a_file_is_shows_in_its_bytes_and_not_in_its_extension(tmp_path):
    files.write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert list(files.read_tensors(tmp_path / "a.ckpt")[0]) == ["x"]
    files.write_tensors(tmp_path / "b.ckpt", {"x": torch.ones(2)})
    (tmp_path / "b.ckpt").rename(tmp_path / "b.safetensors")
    assert list(files.read_tensors(tmp_path / "b.safetensors")[0]) == ["x"]


def test_a_checkpoint_is_read_through_its_state_dict(tmp_path):
    torch.save({"state_dict": {"x": torch.ones(2)}, "global_step": 7}, tmp_path / "a.ckpt")
    assert list(files.read_tensors(tmp_path / "a.ckpt")[0]) == ["x"]
    torch.save({"x": torch.ones(2)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert list(files.read_tensors(tmp_path / "old.ckpt")[0]) == ["x"]


class RunsCode:
    def __reduce__(self):
        return os.mkdir, (os.environ["RUNS_CODE"],)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, writer):
    monkeypatch.setenv("RUNS_CODE", str(tmp_path / "made"))
    path = tmp_path / "evil.pt"
    if writer == "torch":
        torch.save({"x": RunsCode()}, path)
    else:
        path.write_bytes(pickle.dumps({"x": RunsCode()}))
    with pytest.raises(UserError, match=r"evil\.pt.*(could run any program|damaged)"):
        files.read_tensors(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_file_cut_off_anywhere_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"a{suffix}"
    files.write_tensors(path, {"x": torch.randn(100, 100)})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=rf"a\{suffix}` \(.*\) is damaged or not complete"):
        files.read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"\xff" * 200, "damaged"),
    ],
)
def test_what_a_failed_download_leaves_is_recognised(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_tensors(tmp_path / "a.safetensors")


def test_a_missing_file_and_one_without_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.safetensors. does not exist"):
        files.read_tensors(tmp_path / "none.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt. holds no weights"):
        files.read_tensors(tmp_path / "list.pt")


def test_a_renamed_copy_lives_for_its_block_and_an_unchanged_file_is_itself(tmp_path):
    path = tmp_path / "a.pt"
    files.write_tensors(path, {"x": torch.ones(2)})
    tensors, metadata = files.read_tensors(path)
    with files.temporary_tensors(path, tensors, dict(tensors), metadata) as same:
        assert same == path
    with files.temporary_tensors(path, tensors, {"y": tensors["x"]}, metadata) as copy:
        assert copy.suffix == ".safetensors"
        assert list(load_file(copy)) == ["y"]
    assert not copy.exists()
    assert path.exists()


# --- a network's file


def test_a_networks_file_has_the_new_names_its_own_notes_and_both_hashes(tmp_path):
    path = tmp_path / "folder" / "net.safetensors"
    files.save_network(
        SmallNetwork(), path, torch.float16, {"ss_a": "b"}, lambda tensors: {f"new_{k}": v for k, v in tensors.items()}
    )
    tensors, metadata = files.read_tensors(path)
    assert set(tensors) == {"new_lora_te_encoder_x.lora_up.weight", "new_lora_te_encoder_x.alpha"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert metadata.keys() == {"ss_a", "ss_own", "sshs_model_hash", "sshs_legacy_hash"}
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_leaves_the_old_file(tmp_path, bad):
    path = tmp_path / "net.safetensors"
    files.save_network(SmallNetwork(), path, None, {})
    before = read_bytes(tmp_path)
    with pytest.raises(UserError, match=r"net\.safetensors. was not written: 1 of 2 tensors are not finite.*broken"):
        files.save_network(SmallNetwork(good=torch.ones(2), broken=torch.tensor([1.0, bad])), path, None, {})
    assert read_bytes(tmp_path) == before


def test_values_too_large_for_the_precision_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"not finite in float16.*wider save_precision"):
        files.save_network(SmallNetwork(x=torch.tensor([70000.0])), tmp_path / "a.safetensors", torch.float16, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1000, 600_000])
def test_hashes_are_those_of_the_serialised_file(size):
    """The definition, carried out byte by byte: header of `ss_` entries only, window of 64 KiB at 1 MiB."""
    tensors = {"b": torch.randn(size), "a": torch.randn(7).half()}
    found = files.tensor_hashes(tensors, {"ss_a": "b", "modelspec.title": "left out"})
    stream = BytesIO(save(tensors, {"ss_a": "b"}))
    stream.seek(0x100000)
    assert found["sshs_legacy_hash"] == hashlib.sha256(stream.read(0x10000)).hexdigest()[:8]
    data = tensors["b"].numpy().tobytes() + tensors["a"].numpy().tobytes()  # larger types first
    assert found["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    assert (found["sshs_legacy_hash"] == "e3b0c442") == (size == 1000)  # the hash of nothing


def test_hashes_of_a_checkpoint_are_kohyas(tmp_path):
    """The file and both figures were recorded from kohya-ss/sd-scripts, commit 48d368fa."""
    content = bytes((131 * k + k // 4096) % 251 for k in range(2097152))
    path = tmp_path / "base.safetensors"
    path.write_bytes(content)
    assert files.legacy_file_hash(path) == "d7b5c607"
    assert files.file_hash(path) == "2998735bc5dad645a7bef2a48f5c03f181ce9108290ea17a73d65cc301f1d861"


def test_a_hash_is_read_again_when_the_file_changes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = files.file_hash(path)
    stamp = path.stat()
    assert files.file_hash(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert files.file_hash(path) == hashlib.sha256(b"two").hexdigest()


# --- state folders


def fill(content: str):
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text(content, encoding="utf-8")
        files.write_tensors(folder / "w.safetensors", {"x": torch.ones(3)})

    return write


def test_a_state_lists_its_files_and_replaces_an_older_one(tmp_path):
    folder = tmp_path / "net-state"
    files.write_state(folder, fill("old"))
    files.write_state(folder, fill("newer"))
    manifest = files.read_manifest(folder, full=True)
    assert set(manifest) == {"inner/a.txt", "w.safetensors"}
    assert manifest["inner/a.txt"] == {"size": 5, "sha256": hashlib.sha256(b"newer").hexdigest()}
    assert [path.name for path in tmp_path.iterdir()] == ["net-state"]


def test_a_state_that_fails_half_way_leaves_the_older_one(tmp_path):
    folder = tmp_path / "net-state"
    files.write_state(folder, fill("old"))

    def fail(inner: Path) -> None:
        fill("new")(inner)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_state(folder, fail)
    assert files.read_manifest(folder, full=True)["inner/a.txt"]["size"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["net-state"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "w.safetensors").unlink(), "`w.safetensors` is missing or cut off"),
        (lambda folder: (folder / "inner" / "a.txt").write_text("12"), "`inner/a.txt` is missing or cut off"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "manifest.json").write_text(json.dumps({"files": {"a": 3}})), "damaged|missing"),
        (lambda folder: (folder / "manifest.json").write_text(json.dumps({"files": {"../a": {}}})), "names `../a`"),
    ],
)
def test_a_folder_that_is_not_a_whole_state_is_refused(tmp_path, harm, message):
    folder = tmp_path / "state"
    files.write_state(folder, fill("one"))
    harm(folder)
    with pytest.raises(UserError, match=message):
        files.read_manifest(folder)


def test_a_changed_byte_is_found_by_the_full_check_only(tmp_path):
    folder = tmp_path / "state"
    files.write_state(folder, fill("one"))
    (folder / "inner" / "a.txt").write_text("two", encoding="utf-8")
    files.read_manifest(folder)
    with pytest.raises(UserError, match=r"`inner/a\.txt` is not what was written"):
        files.read_manifest(folder, full=True)
    with pytest.raises(UserError, match="no such folder"):
        files.read_manifest(tmp_path / "none")


# --- what is known before


def test_a_folder_that_can_be_written_or_made_is_no_problem_and_stays_as_it_was(tmp_path):
    assert files.check_writable(tmp_path) == []
    assert files.check_writable(tmp_path / "new" / "inner") == []
    assert not list(tmp_path.iterdir())


def test_a_folder_below_a_file_and_one_that_cannot_be_written_are_problems(tmp_path):
    (tmp_path / "file").write_text("x")
    (problem,) = files.check_writable(tmp_path / "file" / "inner")
    assert "is a file" in problem.message
    if Path("/proc/self").is_dir():  # nobody can make files there, not even root
        (problem,) = files.check_writable("/proc/output")
        assert "cannot be written" in problem.message


def test_too_little_disk_space_is_a_problem_with_both_sizes(tmp_path):
    assert files.check_free_space(tmp_path / "new", 1000) == []
    (problem,) = files.check_free_space(tmp_path / "new", 1 << 60)
    assert "1073741824.0 GiB will be written" in problem.message


def test_a_safetensors_file_whose_header_length_begins_like_a_pickle_is_read(tmp_path):
    for filler in range(0, 400, 4):
        path = tmp_path / f"{filler}.safetensors"
        files.write_tensors(path, {"x": torch.ones(2)}, {"filler": "x" * filler})
        if path.read_bytes()[0] == 0x80:
            assert torch.equal(files.read_tensors(path)[0]["x"], torch.ones(2))
            return
    raise AssertionError("no header of such a length came up")
