"""The latent cache: what is made, what is found again, and what is never believed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import library.atomic as atomic_files
import library.data.caches.vae_encoding as encoding_room
import library.data.images.scan as survey_room
from library.data.augmentation.image_augmentation import View
from library.data.caches.cache_entry import write_entry
from library.data.caches.latents_cache import DiskLatents, Filled, LiveLatents, MemoryLatents
from library.data.caches.vae_encoding import Ready
from library.data.dataset import Dataset, build
from library.data.images.image import DatasetImage
from library.data.images.image_folder import CACHE_FOLDER, INDEX_FILE
from library.errors import UserError
from library.training.saving.fingerprint import dataset_fingerprint


@pytest.fixture
def folder(tmp_path: Path, make) -> Path:
    for number, size in enumerate([(128, 128), (128, 128), (256, 64), (300, 180)]):
        make.picture(tmp_path / "img" / f"{number}.png", size, seed=number)
    return tmp_path / "img"


def start(folder: Path, make, vae, **options) -> tuple[Dataset, DiskLatents, Filled]:
    """One start of a run with a cache on disk."""
    subset = {name: options.pop(name) for name in ("flip_aug", "resize_interpolation") if name in options}
    spec = {name: options.pop(name) for name in ("resolution",) if name in options}
    dataset = build([make.dataset(make.subset(folder, **subset), **spec)], fallback=folder.parent / "output")
    latents = DiskLatents(dataset, 1.0, vae_hash=vae.vae_hash, fallback=folder.parent / "output", **options)
    return dataset, latents, latents.fill(vae, progress=False)


def seen(latents, picture: DatasetImage, flipped: bool = False) -> Ready:
    """What a source has of a picture seen from the middle."""
    return latents.fetch(picture, View(picture.choice, flipped))


def posteriors(dataset: Dataset, latents) -> torch.Tensor:
    rows = [latents.posterior([seen(latents, picture)], [picture]) for picture in dataset.pictures]
    return torch.cat([torch.stack(row).flatten() for row in rows])


def test_a_second_start_opens_no_image_and_encodes_nothing(folder: Path, make, vae, monkeypatch):
    dataset, latents, filled = start(folder, make, vae)
    assert (filled.found, filled.made) == (0, 4)
    first = posteriors(dataset, latents)

    def never(*arguments):
        raise AssertionError(f"{arguments} was opened")

    monkeypatch.setattr(survey_room, "measure", never)
    monkeypatch.setattr(encoding_room, "decode", never)
    vae.calls.clear()
    dataset, latents, filled = start(folder, make, vae)
    assert (filled.found, filled.made, filled.damaged) == (4, 0, 0)
    assert vae.calls == []
    assert latents.missing() == 0
    assert torch.equal(posteriors(dataset, latents), first)


def test_disk_memory_and_no_cache_hold_the_same(folder: Path, make, vae):
    dataset, disk, _ = start(folder, make, vae)
    memory = MemoryLatents(dataset, 1.0)
    memory.fill(vae, batch_size=3, progress=False)
    live = LiveLatents(dataset, 1.0, vae)
    live.check(progress=False)
    assert torch.equal(posteriors(dataset, disk), posteriors(dataset, memory))
    torch.testing.assert_close(posteriors(dataset, live), posteriors(dataset, memory))


def test_images_are_encoded_in_batches_of_one_size(folder: Path, make, vae):
    dataset = build([make.dataset(make.subset(folder, flip_aug=True))])
    for batch_size, largest in [(1, 1), (3, 3), (4, 4), (16, 6)]:  # three images make 6 of one size
        vae.calls.clear()
        MemoryLatents(dataset, 1.0).fill(vae, batch_size=batch_size, progress=False)
        assert sum(vae.calls) == 8  # each upright and mirrored
        assert max(vae.calls) == largest


def test_mirrored_images_have_posteriors_of_their_own(folder: Path, make, vae):
    dataset, latents, filled = start(folder, make, vae, flip_aug=True)
    assert filled.made == 8
    for picture in dataset.pictures:
        upright, mirrored = seen(latents, picture).tensor, seen(latents, picture, True).tensor
        torch.testing.assert_close(upright.flip(-1), mirrored, atol=1e-6, rtol=0)  # exact for a VAE that averages
        assert not torch.equal(upright, mirrored)


def another_shape(path: Path) -> None:
    write_entry(path, {"posterior": torch.zeros(2, 4, 8, 8)})


def not_finite(path: Path) -> None:
    write_entry(path, {"posterior": torch.full((2, 4, 16, 16), torch.nan)})


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def zeros_behind_the_header(path: Path) -> None:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + b"\0" * (len(content) - start))


def another_pictures(path: Path) -> None:
    other = next(o for o in path.parent.glob("*.safetensors") if o != path and o.stat().st_size == path.stat().st_size)
    path.write_bytes(other.read_bytes())


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


POISON = [another_shape, not_finite, zeros, a_flipped_bit, zeros_behind_the_header, another_pictures, cut_off]


@pytest.mark.parametrize("poison", POISON, ids=lambda poison: poison.__name__)
def test_latents_that_are_not_what_was_written_are_made_again_and_it_is_reported_once(folder: Path, make, vae, poison):
    dataset, latents, _ = start(folder, make, vae)
    expected, path = posteriors(dataset, latents), latents.files[dataset.pictures[0].look, False]
    poison(path)
    with pytest.raises(UserError, match=r"0\.png.*have changed during the run.*Start again"):
        seen(latents, dataset.pictures[0])
    dataset, latents, filled = start(folder, make, vae)
    assert (filled.damaged, filled.made) == (1, 1)
    assert filled.notes == ("1 files of the latent cache were damaged or changed and have been made again",)
    assert torch.equal(posteriors(dataset, latents), expected)
    *_, filled = start(folder, make, vae)
    assert (filled.damaged, filled.made, filled.notes) == (0, 0, ())


def test_an_index_that_names_another_pictures_hash_is_left_aside(folder: Path, make, vae):
    dataset, latents, _ = start(folder, make, vae)
    expected = posteriors(dataset, latents)
    path = folder / CACHE_FOLDER / INDEX_FILE
    content = json.loads(path.read_bytes())
    content["images"]["0.png"]["sha256"] = content["images"]["1.png"]["sha256"]
    path.write_text(json.dumps(content))
    dataset, latents, filled = start(folder, make, vae)
    assert filled.made == 0
    assert torch.equal(posteriors(dataset, latents), expected)


def test_files_are_flushed_before_they_get_their_name(folder: Path, make, vae, monkeypatch):
    flushed, flush = set(), atomic_files._flush
    monkeypatch.setattr(atomic_files, "_flush", lambda path: (flushed.add(path.suffix), flush(path)))
    start(folder, make, vae)
    assert flushed == {".safetensors", ".json"}


@pytest.mark.parametrize(
    "content",
    ["[]", "3", '{"version": 1, "images": [], "latents": {}}', '{"version": 1, "images": {"0.png": 5}, "latents": {}}']
    + [
        f'{{"version": 1, "images": {{"0.png": {{"size": 1, "mtime_ns": 1, "sha256": "a", "width": {width}, '
        f'"height": 9, "notes": {notes}}}}}, "latents": {latents}}}'
        for width, notes, latents in [('"9"', "[]", "{}"), ("9.5", "[]", "{}"), ("9", "[1]", "{}"), ("9", "[]", "[]")]
    ]
    + ['{"version": 1, "images": {}, "latents": {"x": "y"}}', '{"version": 1', "[" * 100_000],
)
def test_an_index_of_any_content_is_read_or_left_aside(folder: Path, make, vae, content: str):
    start(folder, make, vae)
    (folder / CACHE_FOLDER / INDEX_FILE).write_text(content)
    *_, filled = start(folder, make, vae)
    assert (filled.found, filled.made) == (4, 0)  # the posteriors themselves are still there


@pytest.mark.parametrize("change", ["vae", "resolution", "dtype", "flip", "interpolation"])
def test_anything_that_changes_the_latents_makes_new_ones(folder: Path, make, vae, change: str):
    start(folder, make, vae)
    if change == "vae":
        *_, filled = start(folder, make, make.vae("another"))
    elif change == "resolution":
        *_, filled = start(folder, make, vae, resolution=(192, 192))
    elif change == "dtype":
        *_, filled = start(folder, make, vae, dtype=torch.float16)
    elif change == "interpolation":
        *_, filled = start(folder, make, vae, resize_interpolation="nearest")
    else:
        *_, filled = start(folder, make, vae, flip_aug=True)
    assert filled.made == (3 if change == "resolution" else 4)  # 256x64 is a bucket of both resolutions
    *_, filled = start(folder, make, vae)
    assert filled.made == 0  # the old ones are still there


def test_an_edited_image_is_encoded_anew_and_the_others_are_not(folder: Path, make, vae):
    start(folder, make, vae)
    make.picture(folder / "1.png", (128, 128), seed=77)
    vae.calls.clear()
    dataset, latents, filled = start(folder, make, vae)
    assert (filled.found, filled.made) == (3, 1)
    fresh = MemoryLatents(dataset, 1.0)
    fresh.fill(vae, progress=False)
    assert torch.equal(posteriors(dataset, latents), posteriors(dataset, fresh))


def test_an_image_of_the_same_length_is_recognised_by_its_time(folder: Path, make, vae):
    start(folder, make, vae)
    path = folder / "0.png"
    content = bytearray(make.picture(folder.parent / "other.png", (128, 128), seed=5).read_bytes())
    before = path.stat()
    path.write_bytes((bytes(content) + b"\0" * before.st_size)[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    *_, filled = start(folder, make, vae)
    assert filled.made == 1


def test_a_touched_image_is_read_but_not_encoded(folder: Path, make, vae):
    start(folder, make, vae)
    (folder / "0.png").touch()
    vae.calls.clear()
    *_, filled = start(folder, make, vae)
    assert (filled.found, filled.made, vae.calls) == (4, 0, [])
    (folder / "0.png").rename(folder / "renamed.png")
    *_, filled = start(folder, make, vae)
    assert (filled.made, vae.calls) == (0, [])


def test_a_damaged_cache_file_is_made_again_with_one_line(folder: Path, make, vae):
    dataset, latents, _ = start(folder, make, vae)
    expected = posteriors(dataset, latents)
    files = sorted((folder / CACHE_FOLDER).glob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    files[2].unlink()
    dataset, latents, filled = start(folder, make, vae)
    assert (filled.found, filled.made, filled.damaged) == (1, 3, 2)
    assert filled.notes == ("2 files of the latent cache were damaged or changed and have been made again",)
    assert torch.equal(posteriors(dataset, latents), expected)
    *_, filled = start(folder, make, vae)
    assert (filled.made, filled.damaged, filled.notes) == (0, 0, ())


@pytest.mark.parametrize(
    "index", [b"", b"{", b"[]", b'{"version": 1, "images": {"0.png": 3}}', b'{"version": 99}', None]
)
def test_a_damaged_or_missing_index_costs_a_look_but_no_encoding(folder: Path, make, vae, index: bytes | None):
    start(folder, make, vae)
    path = folder / CACHE_FOLDER / INDEX_FILE
    path.unlink() if index is None else path.write_bytes(index)
    vae.calls.clear()
    *_, filled = start(folder, make, vae)
    assert (filled.found, filled.made, vae.calls) == (4, 0, [])
    assert set(json.loads(path.read_bytes())["images"]) == {"0.png", "1.png", "2.png", "3.png"}


def test_an_interrupted_caching_goes_on_where_it_was(folder: Path, make, vae, monkeypatch):
    encode = vae.encode_posterior

    def interrupted(images):
        if len(vae.calls) == 2:
            raise KeyboardInterrupt
        return encode(images)

    vae.encode_posterior = interrupted
    with pytest.raises(KeyboardInterrupt):
        start(folder, make, vae)
    vae.encode_posterior = encode
    *_, filled = start(folder, make, vae)
    assert (filled.found, filled.made) == (2, 2)


def test_kohyas_own_cache_files_are_neither_read_nor_changed(folder: Path, make, vae):
    theirs = folder / "0_0128x0128_sd.npz"
    theirs.write_bytes(b"not to be touched")
    start(folder, make, vae)
    assert theirs.read_bytes() == b"not to be touched"
    assert {path.name for path in folder.iterdir() if path.suffix == ".npz"} == {theirs.name}


def test_a_folder_that_cannot_be_written_has_its_cache_in_the_output_folder(folder: Path, make, vae):
    (folder / CACHE_FOLDER).write_text("a file where the cache's folder would be")
    *_, filled = start(folder, make, vae)
    assert filled.made == 4
    assert len(filled.notes) == 1
    assert "cannot be written; its latent cache is kept in" in filled.notes[0]
    assert list((folder.parent / "output" / CACHE_FOLDER).glob("img-*/index.json"))
    *_, filled = start(folder, make, vae)
    assert filled.made == 0


def test_no_place_for_a_cache_is_one_clear_error(folder: Path, make, vae):
    (folder / CACHE_FOLDER).touch()
    (folder.parent / "output").touch()
    with pytest.raises(UserError, match="latent cache cannot write"):
        start(folder, make, vae)


def test_damaged_images_are_named_together_and_the_others_are_kept(folder: Path, make, vae):
    for name in ("0.png", "2.png"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        start(folder, make, vae)
    assert "2 problems" in str(caught.value)
    assert "0.png" in str(caught.value)
    assert "2.png" in str(caught.value)
    for name in ("0.png", "2.png"):
        (folder / name).unlink()
    *_, filled = start(folder, make, vae)
    assert (filled.found, filled.made) == (2, 0)


def test_without_a_cache_damaged_images_are_named_before_training_too(folder: Path, make, vae):
    content = bytearray((folder / "1.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "1.png").write_bytes(content)
    dataset = build([make.dataset(make.subset(folder))])
    with pytest.raises(UserError, match=r"1\.png': is damaged"):
        LiveLatents(dataset, 1.0, vae).check(progress=False)


def test_latents_that_are_not_finite_name_the_image(folder: Path, make, vae):
    Image.new("RGB", (128, 128), "white").save(folder / "white.png")
    vae.breaks_above = 0.9
    dataset = build([make.dataset(make.subset(folder))])
    with pytest.raises(UserError, match=r"white\.png': the VAE makes NaN"):
        MemoryLatents(dataset, 1.0).fill(vae, batch_size=2, progress=False)
    live, white = LiveLatents(dataset, 1.0, vae), dataset.pictures[-1]
    with pytest.raises(UserError, match=r"white\.png': the VAE makes NaN"):
        live.posterior([seen(live, white)], [white])


def test_an_image_that_changes_during_the_run_is_named(folder: Path, make, vae):
    dataset = build([make.dataset(make.subset(folder))])
    make.picture(folder / "0.png", (200, 100))
    with pytest.raises(UserError, match=r"0\.png': was 128x128 at the start and now is 200x100"):
        MemoryLatents(dataset, 1.0).fill(vae, progress=False)


def test_a_cache_file_that_goes_bad_during_the_run_is_named(folder: Path, make, vae):
    dataset, latents, _ = start(folder, make, vae)
    for path in (folder / CACHE_FOLDER).glob("*.safetensors"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"safetensors' have changed during the run: .* Start again"):
        seen(latents, dataset.pictures[0])


def test_two_datasets_share_what_is_the_same(folder: Path, make, vae):
    plan = [make.dataset(make.subset(folder)), make.dataset(make.subset(folder, flip_aug=True))]
    dataset = build(plan)
    latents = DiskLatents(dataset, 1.0, vae_hash="v", fallback=None)
    assert latents.fill(vae, progress=False).made == 8
    assert seen(latents, dataset.pictures[0]).tensor.equal(seen(latents, dataset.pictures[4]).tensor)


def test_processes_share_the_work_and_hold_the_same(folder: Path, make):
    """Two processes, taken in turn at each barrier as threads."""
    barrier, results = threading.Barrier(2), {}

    def process(index: int) -> None:
        vae = make.vae()
        dataset = build([make.dataset(make.subset(folder))])
        latents = DiskLatents(dataset, 1.0, vae_hash="v", fallback=None)
        latents.fill(vae, progress=False, process_index=index, num_processes=2, wait=barrier.wait)
        results[index] = (sum(vae.calls), posteriors(dataset, latents))

    threads = [threading.Thread(target=process, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [results[index][0] for index in (0, 1)] == [2, 2]
    assert torch.equal(results[0][1], results[1][1])
    index = json.loads((folder / CACHE_FOLDER / INDEX_FILE).read_bytes())
    assert len(index["images"]) == 4


def test_the_index_holds_what_a_second_start_needs(folder: Path, make, vae):
    start(folder, make, vae)
    entry = json.loads((folder / CACHE_FOLDER / INDEX_FILE).read_bytes())["images"]["3.png"]
    facts = (folder / "3.png").stat()
    assert (entry["size"], entry["mtime_ns"]) == (facts.st_size, facts.st_mtime_ns)
    assert (entry["width"], entry["height"], len(entry["sha256"])) == (300, 180, 64)


def test_a_folder_that_is_named_in_two_ways_has_one_cache(folder: Path, make, vae):
    def begin():
        plan = [make.dataset(make.subset(folder)), make.dataset(make.subset(folder / ".." / "img"), batch_size=1)]
        dataset = build(plan)
        latents = DiskLatents(dataset, 1.0, vae_hash="v", fallback=None)
        return latents, latents.fill(vae, progress=False)

    latents, _ = begin()
    assert len({id(cache) for cache in latents.folders.values()}) == 1
    (folder / CACHE_FOLDER / sorted(latents.files.values())[0].name).write_bytes(b"")
    assert begin()[1].damaged == 1
    vae.calls.clear()
    _, filled = begin()
    assert (filled.made, filled.damaged, vae.calls) == (0, 0, [])


def test_an_index_that_forgot_its_images_is_written_again(folder: Path, make, vae):
    start(folder, make, vae)
    path = folder / CACHE_FOLDER / INDEX_FILE
    content = json.loads(path.read_bytes())
    content["images"]["0.png"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    vae.calls.clear()
    *_, filled = start(folder, make, vae)  # the image is hashed again, and its latents are found under the true name
    assert (filled.made, vae.calls) == (0, [])
    assert json.loads(path.read_bytes())["images"]["0.png"]["sha256"] != "0" * 64


@pytest.mark.parametrize("source", ["memory", "disk", "live"])
def test_a_run_knows_its_pictures_again_by_what_they_hold(folder: Path, tmp_path: Path, make, vae, source: str):
    """Copied with other times they are the same; edited to the same length, with the old time, they are not."""

    def known(where: Path) -> dict:
        dataset = build([make.dataset(make.subset(where))])
        if source == "live":
            LiveLatents(dataset, 1.0, vae).check(progress=False)
        elif source == "memory":
            MemoryLatents(dataset, 1.0).fill(vae, progress=False)
        else:
            DiskLatents(dataset, 1.0, vae_hash="v", fallback=None).fill(vae, progress=False)
        return dataset_fingerprint(dataset)

    first = known(folder)
    assert known(folder) == first  # from the index, where there is one
    copy = tmp_path / "elsewhere" / "img"
    copy.mkdir(parents=True)
    for path in folder.glob("*.*"):
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    assert known(copy) == first
    before, content = (copy / "0.png").stat(), bytearray((copy / "0.png").read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(copy / "0.png"))).save(tmp_path / "negative.png")
    content[:] = ((tmp_path / "negative.png").read_bytes() + b"\0" * before.st_size)[: before.st_size]
    (copy / "0.png").write_bytes(content)
    if source != "disk":  # whose index knows files by length and time
        os.utime(copy / "0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known(copy) != first
