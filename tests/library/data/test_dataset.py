"""From folders of files to samples: what is found, and everything that is wrong, by name and at once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.data.dataset import build
from library.errors import UserError


def test_samples_have_lasting_names_and_loss_weights(tmp_path: Path, make):
    make.picture(tmp_path / "5_cat" / "b.png")
    make.picture(tmp_path / "5_cat" / "a.png")
    make.picture(tmp_path / "1_reg" / "r.png", caption=None)
    subsets = [
        make.subset(tmp_path / "5_cat", num_repeats=2),
        make.subset(tmp_path / "1_reg", is_reg=True, class_tokens="animal"),
    ]
    dataset = build([make.dataset(*subsets)], prior_loss_weight=0.25)
    assert [(sample.sample_id, sample.loss_weight) for sample in dataset.samples] == [
        ("0/5_cat/a.png#0", 1.0),
        ("0/5_cat/a.png#1", 1.0),
        ("0/5_cat/b.png#0", 1.0),
        ("0/5_cat/b.png#1", 1.0),
        ("0/1_reg/r.png#0", 0.25),
        ("0/1_reg/r.png#1", 0.25),
        ("0/1_reg/r.png#2", 0.25),
        ("0/1_reg/r.png#3", 0.25),
    ]
    assert dataset.visits == [2, 2, 4]
    assert [picture.caption for picture in dataset.pictures] == ["a cat", "a cat", "animal"]
    assert dataset.warnings == []


def test_folders_of_the_same_name_keep_their_samples_apart(tmp_path: Path, make):
    for parent in ("one", "two"):
        make.picture(tmp_path / parent / "img" / "a.png")
    subsets = [make.subset(tmp_path / parent / "img") for parent in ("one", "two")]
    dataset = build([make.dataset(*subsets)])
    assert [sample.sample_id for sample in dataset.samples] == ["0/img/a.png#0", "0/img (2)/a.png#0"]


def test_every_image_falls_into_its_bucket(tmp_path: Path, make):
    """Sizes, buckets and the aspect error of a file written by sd-scripts (metadata of commit 48d368fa)."""
    for number, size in enumerate([(128, 128), (120, 130), (250, 70), (64, 200)]):
        make.picture(tmp_path / f"{number}.png", size)
    dataset = build([make.dataset(make.subset(tmp_path, num_repeats=3))])
    counts = {bucket: len(members) for (_, bucket), members in dataset.groups.items()}
    assert counts == {(64, 192): 3, (128, 128): 6, (256, 64): 3}


def test_a_folder_with_no_bucket_of_its_own_size_is_cut_to_the_resolution(tmp_path: Path, make):
    make.picture(tmp_path / "a.png", (300, 100))
    dataset = build([make.dataset(make.subset(tmp_path), enable_bucket=False)])
    assert dataset.pictures[0].choice.bucket == (128, 128)


def test_all_that_is_wrong_with_images_and_captions_is_reported_at_once(tmp_path: Path, make):
    good = make.picture(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:9000])
    make.picture(tmp_path / "tiny.png", (40, 300))
    make.picture(tmp_path / "кошка [1] 🐈.png", caption=None)
    (tmp_path / "кошка [1] 🐈.txt").write_bytes("рыжая кошка".encode("cp1251"))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "moved.png")
    plan = [
        make.dataset(make.subset(tmp_path), make.subset(tmp_path / "nothing"), make.subset(tmp_path / "gone")),
        make.dataset(make.subset(tmp_path), resolution=(192, 192)),
    ]
    with pytest.raises(UserError) as caught:
        build(plan)
    said = str(caught.value)
    for name, what in [
        ("empty.png", "it is empty"),
        ("page.jpg", "web page"),
        ("half.png", "damaged"),
        ("tiny.png", "too small: 40x300"),
        ("кошка [1] 🐈.txt", "is not UTF-8: byte 1 (0xf0)"),
        ("nothing", "holds no images"),
        ("gone", "cannot be read"),
        ("lost.png", "is a link to a file that is not there"),
    ]:
        assert any(name in line and what in line for line in said.splitlines()), (name, said)
    assert "good.png" not in said
    assert said.count("tiny.png") == said.count("кошка") == 1


def test_an_image_too_narrow_for_a_bucket_without_enlarging_is_reported(tmp_path: Path, make):
    make.picture(tmp_path / "strip.png", (3000, 66))
    with pytest.raises(UserError, match=r"strip\.png': is too small"):
        build([make.dataset(make.subset(tmp_path), bucket_no_upscale=True)])


def test_images_of_no_more_pixels_than_skip_image_resolution_are_left_out(tmp_path: Path, make):
    for name, size in {"tall": (32, 128), "square": (64, 64), "wide": (128, 33)}.items():
        make.picture(tmp_path / f"{name}.png", size)
    dataset = build([make.dataset(make.subset(tmp_path), skip_image_resolution=(64, 64), bucket_reso_steps=8)])
    assert [picture.path.stem for picture in dataset.pictures] == ["wide"]
    assert "skip_image_resolution leaves out 2 of 3 images: those up to 64x64" in dataset.warnings
    with pytest.raises(UserError, match="no image to train on: `skip_image_resolution` leaves out all; lower it"):
        build([make.dataset(make.subset(tmp_path), skip_image_resolution=(512, 512), bucket_reso_steps=8)])


def test_a_dataset_of_regularisation_images_alone_is_an_error(tmp_path: Path, make):
    make.picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="no image to train on"):
        build([make.dataset(make.subset(tmp_path, is_reg=True))])


def test_what_can_be_used_but_looks_wrong_is_a_warning(tmp_path: Path, make):
    make.picture(tmp_path / "small.png", (64, 64))
    make.picture(tmp_path / "photo.png")
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(tmp_path / "photo.png", format="JPEG")
    make.picture(tmp_path / "uncaptioned.png", caption=None)
    (tmp_path / "uncaptioned.caption").write_text("a dog")
    make.picture(tmp_path / "blank.png", caption="\na cat")
    (tmp_path / "phone.heic").touch()
    make.picture(tmp_path / "strip.png", (1200, 70))
    dataset = build([make.dataset(make.subset(tmp_path, class_tokens="pet"), resolution=(256, 256))])
    said = "\n".join(dataset.warnings)
    assert "'uncaptioned.png' has no .txt file" in said
    assert 'set caption_extension = ".caption"' in said
    assert "the caption file of 'blank.png' begins with a blank line; the class tokens 'pet' will be used" in said
    assert "photo.png' is a JPEG file in spite of its extension" in said
    assert "1 images are enlarged more than 2 times" in said
    assert "1 images lose more than half to the crop, most of all" in said
    assert "strip.png' of 1200x70, 77% to fit 256x64" in said
    assert "1 files are not used, such as 'phone.heic'" in said
    assert len(dataset.warnings) == 6
    captions = {picture.path.name: picture.caption for picture in dataset.pictures}
    blanks = {"uncaptioned.png": "pet", "blank.png": "pet"}
    assert captions == {"small.png": "a cat", "photo.png": "a cat", "strip.png": "a cat", **blanks}


def test_a_folder_without_caption_files_and_with_class_tokens_is_no_reason_for_a_warning(tmp_path: Path, make):
    make.picture(tmp_path / "a.png", caption=None)
    assert build([make.dataset(make.subset(tmp_path, class_tokens="sks dog"))]).warnings == []
    said = build([make.dataset(make.subset(tmp_path))]).warnings
    assert len(said) == 1
    assert "'a.png' has no .txt file and will be trained with an empty caption" in said[0]


def test_a_folder_given_as_a_link_or_with_dots_has_the_same_sample_names(tmp_path: Path, make):
    make.picture(tmp_path / "3_cat" / "a.png")
    if os.name != "nt":
        (tmp_path / "link").symlink_to(tmp_path / "3_cat", target_is_directory=True)
    plain = build([make.dataset(make.subset(tmp_path / "3_cat"))])
    dotted = build([make.dataset(make.subset(tmp_path / "3_cat" / ".." / "3_cat" / "."))])
    assert [s.sample_id for s in plain.samples] == [s.sample_id for s in dotted.samples] == ["0/3_cat/a.png#0"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipes_in_a_folder_are_named_and_never_read(tmp_path: Path, make):
    make.picture(tmp_path / "a.png", caption=None)
    for name in ("a.txt", "b.png"):
        os.mkfifo(tmp_path / name)
    dataset = build([make.dataset(make.subset(tmp_path, class_tokens="cat"))])
    assert [picture.path.name for picture in dataset.pictures] == ["a.png"]
    said = f"folder '{tmp_path}': 2 named pipes, sockets or devices are not read, such as 'a.txt'"
    assert dataset.warnings == [said]
