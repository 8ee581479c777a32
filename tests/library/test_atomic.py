"""Files and folders appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch

from library import atomic as atomic_module
from library.atomic import atomic, atomic_folder, sweep_temporaries, temporary_name
from library.errors import UserError
from library.files import write_json, write_state, write_tensors, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_name(path: Path, old: bool = False) -> Path:
    """The temporary name of `path` in a process that is no more (no system gives out such a number)."""
    name = temporary_name(path).name
    return path.with_name(name.replace(f"-{os.getpid()}", "-2000000001" + ("-old" if old else "")))


def test_a_temporary_name_is_hidden_and_keeps_folder_and_extension(tmp_path):
    name = temporary_name(tmp_path / "my.lora v2.safetensors")
    assert name.parent == tmp_path
    assert name.suffix == ".safetensors"
    assert name.name.startswith(".my.lora v2.tmp-")


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folders_are_made_and_text_is_utf_8_with_plain_line_ends(tmp_path):
    write_text(tmp_path / "x" / "y" / "a.txt", "ä\n")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == "ä\n".encode()
    write_json(tmp_path / "a.json", {"ä": [1]})
    assert "ä" in (tmp_path / "a.json").read_text(encoding="utf-8")


@contextlib.contextmanager
def full_disk(limit: int):
    """No file can grow beyond `limit` bytes: what a write meets is the operating system's own error."""
    resource = pytest.importorskip("resource", reason="limits of a process are not known here")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_disk_that_is_full_in_the_middle_of_a_write_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    write_tensors(path, {"x": torch.ones(2)})
    before = path.read_bytes()
    with full_disk(100_000), pytest.raises(UserError, match=r"a\..* could not be written: there is no room left"):
        write_tensors(path, {"x": torch.ones(200_000)})
    assert path.read_bytes() == before
    assert names(tmp_path) == [name]


def test_a_full_disk_leaves_the_old_state(tmp_path):
    write_state(tmp_path / "state", lambda folder: write_text(folder / "a.txt", "old"))
    with full_disk(100_000), pytest.raises(UserError, match=r"x\.pt. could not be written: there is no room left"):
        write_state(tmp_path / "state", lambda folder: write_tensors(folder / "x.pt", {"x": torch.ones(200_000)}))
    assert names(tmp_path) == ["state"]
    assert names(tmp_path / "state") == ["a.txt", "manifest.json"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"a\.txt. could not be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_a_name_that_windows_holds_is_tried_again(tmp_path, monkeypatch):
    """A virus scanner that has the old file open lets go after a moment."""
    replace, tries = os.replace, []

    def held(source, target):
        tries.append(source)
        if len(tries) < 4:
            raise PermissionError(13, "held")
        replace(source, target)

    monkeypatch.setattr(atomic_module.os, "replace", held)
    monkeypatch.setattr(atomic_module, "IS_WINDOWS", True)
    write_text(tmp_path / "a.txt", "x")
    assert len(tries) == 4
    assert names(tmp_path) == ["a.txt"]


def test_a_name_that_stays_held_ends_in_one_sentence(tmp_path, monkeypatch):
    def held(*_):
        raise PermissionError(13, "held")

    monkeypatch.setattr(atomic_module.os, "replace", held)
    monkeypatch.setattr(atomic_module, "IS_WINDOWS", True)
    monkeypatch.setattr(atomic_module, "RENAME_PATIENCE", 0.05)
    with pytest.raises(UserError, match="close the program that has it open"):
        write_text(tmp_path / "a.txt", "x")
    assert names(tmp_path) == []


def test_leftovers_of_ended_processes_are_swept_and_nothing_else(tmp_path):
    dead = dead_name(tmp_path / "net.safetensors")
    dead.write_bytes(b"half")
    dead_folder = dead_name(tmp_path / "net-state")
    dead_folder.mkdir()
    (dead_folder / "half").write_bytes(b"x")
    kept = ["net.safetensors", ".hidden", ".net.tmp-other.txt", ".a.tmp-1.txt"]
    for name in kept:
        (tmp_path / name).write_bytes(b"x")
    alive = tmp_path / temporary_name(tmp_path / "b.txt").name.replace(f"-{os.getpid()}", f"-{os.getppid()}")
    alive.write_bytes(b"x")
    with atomic(tmp_path / "mine.txt") as mine:
        mine.write_text("x")
        assert set(sweep_temporaries(tmp_path)) == {dead, dead_folder}
        assert set(names(tmp_path)) == {*kept, alive.name, mine.name}


def test_what_an_earlier_process_with_our_number_left_is_swept(tmp_path):
    temporary_name(tmp_path / "a.txt").write_bytes(b"half")
    assert len(sweep_temporaries(tmp_path)) == 1
    assert names(tmp_path) == []


def test_another_machines_files_are_swept_only_when_they_are_old(tmp_path):
    path = tmp_path / ".a.tmp-ffffff-1.txt"
    path.write_bytes(b"x")
    assert sweep_temporaries(tmp_path) == []
    os.utime(path, (0, 0))
    assert sweep_temporaries(tmp_path) == [path]


def test_a_whole_state_that_lost_its_process_before_the_rename_gets_its_name(tmp_path):
    """Killed between putting the old state aside and bringing in the new one: neither is lost."""
    folder = tmp_path / "net-state"
    new, old = dead_name(folder), dead_name(folder, old=True)
    write_state(new, lambda inner: write_text(inner / "a.txt", "new"))
    write_state(old, lambda inner: write_text(inner / "a.txt", "old"))
    assert sweep_temporaries(tmp_path) == [old]
    assert (folder / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["net-state"]


def test_an_old_state_comes_back_if_the_new_one_is_gone(tmp_path):
    old = dead_name(tmp_path / "net-state", old=True)
    write_state(old, lambda inner: write_text(inner / "a.txt", "old"))
    assert sweep_temporaries(tmp_path) == []
    assert (tmp_path / "net-state" / "a.txt").read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "f.x") as temporary:
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["f.x"]
    assert names(tmp_path / "f.x") == ["two"]
