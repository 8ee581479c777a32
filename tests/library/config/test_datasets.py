"""Dataset descriptions and folders become a plan, with every fallback resolved and every mistake told."""

import re
from pathlib import Path

import pytest

from library.config.dataset_keys import KEYS
from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.config.datasets import dataset_problems, plan_datasets
from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.validation_split import share_held_out
from library.errors import ConfigError, UserError


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    """A current folder with some folders of images; only their names matter here."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "cats/a.png",
        "cats/b.JPG",
        "dogs/a.webp",
        "train/10_red car/1.png",
        "train/2_cat/1.bmp",
        "train/cat/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def settings_of(*argv: str) -> Settings:
    return parse(argv, *ALL_TRAIN_NETWORK, prog="", description="")


def described(text: str, *argv: str, name: str = "data.toml") -> Settings:
    Path(name).write_text(text, encoding="utf-8")
    return settings_of("--dataset_config", name, *argv)


def problems(text: str, *argv: str) -> list[str]:
    return [str(problem) for problem in dataset_problems(described(text, *argv))]


ONE = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'cats'\n"


def test_a_key_falls_back_from_subset_to_dataset_to_general_to_option_to_default():
    text = """
        [general]
        keep_tokens = 1
        num_repeats = 3
        flip_aug = false
        [[datasets]]
        resolution = [512, 768]
        keep_tokens = 2
        [[datasets.subsets]]
        image_dir = 'cats'
        keep_tokens = 3
        [[datasets.subsets]]
        image_dir = 'dogs'
        [[datasets]]
        batch_size = 8
        [[datasets.subsets]]
        image_dir = 'cats'
    """
    first, second = plan_datasets(
        described(
            text, "--resolution=640", "--train_batch_size=4", "--flip_aug", "--keep_tokens=9", "--shuffle_caption"
        )
    )
    assert [subset.keep_tokens for subset in (*first.subsets, *second.subsets)] == [3, 2, 1]
    assert (first.resolution, second.resolution) == ((512, 768), (640, 640))
    assert (first.batch_size, second.batch_size) == (4, 8)
    assert {subset.num_repeats for subset in first.subsets} == {3}
    assert not any(subset.flip_aug for subset in first.subsets)  # false in the file beats the flag
    assert all(subset.shuffle_caption for subset in first.subsets)
    assert first.subsets[0].caption_extension == ".caption"
    assert (first.index, second.index) == (0, 1)


def test_every_key_of_the_description_reaches_the_plan():
    reach = {*DatasetSpec.__dataclass_fields__, *SubsetSpec.__dataclass_fields__} - {"index", "subsets"}
    assert reach == {key.name for key in KEYS}


def test_folders_of_repeats_and_class_become_subsets_by_name():
    settings = settings_of("--train_data_dir=train", "--resolution=512")
    (dataset,) = plan_datasets(settings)
    found = [(s.image_dir.name, s.num_repeats, s.class_tokens, s.is_reg) for s in dataset.subsets]
    assert found == [("10_red car", 10, "red car", False), ("2_cat", 2, "cat", False)]
    assert all(subset.image_dir.is_absolute() for subset in dataset.subsets)
    assert settings.warnings == [
        f"{Path('train/cat')} is not used: its name does not begin with a number of repeats, as 10_person."
    ]


def test_regularization_folders_follow_the_training_folders():
    Path("reg/1_car").mkdir(parents=True)
    (dataset,) = plan_datasets(settings_of("--train_data_dir=train", "--reg_data_dir=reg", "--resolution=512"))
    assert [subset.is_reg for subset in dataset.subsets] == [False, False, True]


def test_a_description_in_json_is_read_and_its_lines_are_known():
    subsets = '"subsets": [{"image_dir": "cats"},\n {"image_dir": "dogs", "flip": true}]'
    settings = described(f'{{"datasets": [{{"resolution": 512,\n {subsets}}}]}}', name="data.json")
    assert [str(p) for p in dataset_problems(settings)] == [
        "`flip` in data.json line 3 is no key of [[datasets.subsets]]; did you mean `flip_aug`?"
    ]


def test_a_description_inside_the_training_config_is_read_and_general_keeps_the_options_of_the_run():
    Path("all.toml").write_text("[general]\nseed = 7\nflip_aug = true\nnum_repeats = 2\n" + ONE, encoding="utf-8")
    settings = settings_of("--config_file=all.toml")
    (dataset,) = plan_datasets(settings)
    assert settings["seed"] == 7
    assert settings.warnings == []
    assert (dataset.subsets[0].flip_aug, dataset.subsets[0].num_repeats) == (True, 2)


def test_the_dataset_config_goes_before_the_folders_of_a_config_and_folders_on_the_command_line_before_both():
    Path("data.toml").write_text(ONE, encoding="utf-8")
    Path("run.toml").write_text("train_data_dir = 'train'\ndataset_config = 'data.toml'\nresolution = 512\n")
    settings = settings_of("--config_file=run.toml")
    assert [subset.image_dir.name for subset in plan_datasets(settings)[0].subsets] == ["cats"]
    assert settings.warnings == ["`dataset_config` is used, not train_data_dir."]
    settings = settings_of("--config_file=run.toml", "--train_data_dir=train")
    assert [subset.num_repeats for subset in plan_datasets(settings)[0].subsets] == [10, 2]
    assert "instead of the config's datasets" in settings.warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ONE + "flip_agu = true\n",
            "`flip_agu` in data.toml line 5 is no key of [[datasets.subsets]]; did you mean `flip_aug`?",
        ),
        (
            ONE + "batch_size = 2\n",
            "`batch_size` in data.toml line 5 may not be in [[datasets.subsets]], only in [general] and [[datasets]].",
        ),
        (
            "[general]\nis_reg = true\n" + ONE,
            "`is_reg` in data.toml line 2 may not be in [general], only in [[datasets.subsets]].",
        ),
        (
            "[general]\nmax_token_length = 225\n" + ONE,
            "`max_token_length` in data.toml line 2 is an option of the run; write it into the training "
            "config or on the command line.",
        ),
        (ONE + "num_repeats = -3\n", "`num_repeats` in data.toml line 5 is -3, but must be at least 0."),
        (ONE + "caption_dropout_rate = 7\n", "`caption_dropout_rate` in data.toml line 5 is 7, but must be at most 1."),
        ("[general]\nbatch_size = 0\n" + ONE, "`batch_size` in data.toml line 2 is 0, but must be at least 1."),
        ("[foo]\na = 1\n" + ONE, "`foo` in data.toml line 1 has no place in a dataset description."),
        (
            "[[dataset]]\n" + ONE,
            "`dataset` in data.toml line 1 has no place in a dataset description; did you mean `datasets`?",
        ),
        ("[[datasets]]\nresolution = 512\n", "[[datasets]] in data.toml line 1 has no [[datasets.subsets]]."),
        ("", "data.toml has no [[datasets]] with [[datasets.subsets]] in it."),
        ("[datasets]\nresolution = 512\n", "`datasets` in data.toml line 1 must be a list: [[datasets]]."),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'cats'\n",
            "`resolution` is not set for [[datasets]] in data.toml line 1: the size to train at, such as 512.",
        ),
        (
            "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = ''\n",
            "[[datasets.subsets]] in data.toml line 3 has no `image_dir`: the folder of its images.",
        ),
        (
            ONE + "metadata_file = 'meta.json'\n",
            "`metadata_file` in data.toml line 5: meta.json does not exist.",
        ),
        (
            ONE + "conditioning_data_dir = 'dogs'\n",
            "`conditioning_data_dir` in data.toml line 5 needs `masked_loss = true`: masks weigh the loss.",
        ),
        (
            ONE.replace("512", "'32,64'"),
            "`resolution` in data.toml line 2 is smaller than 64 pixels on a side.",
        ),
        (
            "[general]\nbucket_reso_steps = 20\n" + ONE,
            "`bucket_reso_steps` in data.toml line 2 is 20, but must be a multiple of 8.",
        ),
        (
            "[general]\nmin_bucket_reso = 2048\n" + ONE,
            "`min_bucket_reso` in data.toml line 2 is 2048, more than `max_bucket_reso` (1024).",
        ),
        (
            ONE.replace("[[datasets.sub", "enable_bucket = true\nmin_bucket_reso = 576\n[[datasets.sub"),
            "`min_bucket_reso` in data.toml line 4 is 576, above the resolution 512x512; set it to 512 or less.",
        ),
        (
            "[network]\nnetwork_dim = 8\n",
            "`--dataset_config` on the command line: data.toml is a training config, not a dataset "
            "description; give it as `--config_file`.",
        ),
    ],
)
def test_a_mistake_in_the_description_is_reported_with_its_line(text, message):
    assert problems(text) == [message]


def test_a_missing_folder_is_reported_with_the_nearest_one(pictures):
    assert problems(ONE.replace("cats", "catz")) == [
        f"`image_dir` in data.toml line 4: catz does not exist; did you mean `{pictures / 'cats'}`?"
    ]
    assert problems(ONE.replace("cats", "cats/a.png")) == [
        f"`image_dir` in data.toml line 4: {Path('cats/a.png')} is a file, not a folder."
    ]


def test_all_mistakes_of_a_description_are_reported_at_once():
    found = problems("[general]\nbatch_size = 0\nfoo = 1\n" + ONE.replace("cats", "zzz") + "keep_tokens = 'x'\n")
    assert len(found) == 4
    with pytest.raises(ConfigError, match="4 problems") as error:
        plan_datasets(settings_of("--dataset_config=data.toml"))
    assert error.value.exit_code == 2


def test_whole_numbers_are_accepted_where_sd_scripts_wants_a_float_and_limits_are_rounded_to_the_step():
    text = ONE + "caption_dropout_rate = 1\nface_crop_aug_range = [1, 3]\ncaption_extension = 'txt'\n"
    text = (
        "[general]\nvalidation_split = 0\nmin_bucket_reso = 520\nenable_bucket = true\nbucket_no_upscale = false\n"
        + text
    )
    (dataset,) = plan_datasets(described(text))
    subset = dataset.subsets[0]
    assert (subset.caption_dropout_rate, subset.face_crop_aug_range, subset.caption_extension) == (
        1.0,
        (1.0, 3.0),
        ".txt",
    )


def test_an_empty_text_in_a_subset_takes_back_a_prefix_but_not_an_extension():
    text = "[general]\ncaption_prefix = 'art, '\ncaption_extension = '.txt'\n" + ONE
    subset = plan_datasets(described(text + "caption_prefix = ''\ncaption_extension = ''\n"))[0].subsets[0]
    assert (subset.caption_prefix, subset.caption_extension) == ("", ".txt")


@pytest.mark.parametrize(
    ("key", "words", "said"),
    [
        ("color_aug = true", ["--cache_latents"], "`color_aug` in data.toml line 5 gives pictures other colours"),
        ("random_crop = true", ["--cache_latents_to_disk"], "which `--cache_latents_to_disk` on the command line"),
        ("face_crop_aug_range = [1, 2]", ["--cache_latents"], "`face_crop_aug_range` in data.toml line 5 cuts"),
        ("flip_aug = true", ["--cache_latents", "--random_crop"], "`--random_crop` on the command line cuts pictures"),
    ],
)
def test_what_a_latent_cache_cannot_hold_is_refused(key: str, words: list[str], said: str):
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan_datasets(described(ONE + key + "\n", *words))
    plan_datasets(described(ONE + key + "\n"))


def test_a_subset_may_take_back_what_a_cache_cannot_hold():
    text = ONE + "color_aug = false\n"
    assert not plan_datasets(described(text, "--cache_latents", "--color_aug"))[0].subsets[0].color_aug


def test_keys_without_effect_subsets_without_repeats_and_doubles_are_named():
    text = ONE + "cache_info = true\n"
    text += "[[datasets.subsets]]\nimage_dir = 'dogs'\nnum_repeats = 0\n[[datasets.subsets]]\nimage_dir = './cats'\n"
    settings = described("[general]\nnetwork_multiplier = 0.5\n" + text)
    (dataset,) = plan_datasets(settings)
    assert [subset.image_dir.name for subset in dataset.subsets] == ["cats"]
    assert settings.warnings == [
        "`network_multiplier` in data.toml line 2 has no effect: sd-scripts does not use it either.",
        "`cache_info` in data.toml line 7 has no effect: image sizes are always remembered, and captions read anew.",
        "[[datasets.subsets]] in data.toml line 8 has no repeats; its images are not used.",
        f"{Path('cats').absolute()} is given twice in one dataset; the second one is not used.",
    ]


def test_a_dataset_without_images_ends_with_exit_code_1_and_what_is_there_instead(pictures):
    for name in ("empty/1_x", "texts/1_x", "deep/1_x/inner", "flat"):
        (pictures / name).mkdir(parents=True)
    for name in ("texts/1_x/a.txt", "texts/1_x/b.gif", "deep/1_x/inner/a.png", "flat/a.png"):
        (pictures / name).touch()
    looked_for = "looked for .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff"
    for folder, ending in {
        "empty": f"{looked_for}; it is empty.",
        "texts": f"{looked_for}; found .gif (1), .txt (1).",
        "deep": f"{looked_for}; images are in its folder inner, but folders inside are not searched.",
        "flat": f"REPEATS_CLASS; move them into {Path('flat/10_person')}, for example.",
    }.items():
        settings = settings_of(f"--train_data_dir={folder}", "--resolution=512")
        assert dataset_problems(settings) == []
        with pytest.raises(UserError) as error:
            plan_datasets(settings)
        assert error.value.exit_code == 1
        assert str(error.value).startswith("There is no image to train on. ")
        assert str(error.value).endswith(ending)


def test_a_description_whose_subsets_all_have_no_repeats_has_no_image_to_train_on():
    with pytest.raises(UserError, match=r"no image to train on\. No subset has repeats\."):
        plan_datasets(described(ONE + "num_repeats = 0\n"))


def test_a_linked_folder_keeps_its_own_name(pictures):
    try:
        (pictures / "train" / "6_linked").symlink_to(pictures / "dogs", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    (dataset,) = plan_datasets(settings_of("--train_data_dir=train", "--resolution=512"))
    assert (dataset.subsets[-1].image_dir.name, dataset.subsets[-1].num_repeats) == ("6_linked", 6)


def test_without_any_images_given_the_two_ways_to_give_them_are_named():
    assert [str(problem) for problem in dataset_problems(settings_of())] == [
        "No images are given: set `train_data_dir` to a folder of folders like 10_person, "
        "or `dataset_config` to a dataset description."
    ]


def test_a_metadata_file_names_the_images_of_a_folder():
    Path("meta.json").write_text("{}")
    (dataset,) = plan_datasets(settings_of("--in_json=meta.json", "--train_data_dir=cats", "--resolution=512"))
    (subset,) = dataset.subsets
    assert (subset.metadata_file, subset.image_dir) == (Path("meta.json").absolute(), Path("cats").absolute())
    (dataset,) = plan_datasets(settings_of("--in_json=meta.json", "--resolution=512"))
    assert dataset.subsets[0].image_dir == Path.cwd()
    two = "[[datasets]]\nresolution = 512\n" + "[[datasets.subsets]]\nmetadata_file = 'meta.json'\n" * 2
    settings = described(two)
    assert len(plan_datasets(settings)[0].subsets) == 1
    assert settings.warnings == [
        f"{Path('meta.json').absolute()} is given twice in one dataset; the second one is not used."
    ]
    missing = settings_of("--in_json=gone.json", "--train_data_dir=cats", "--resolution=512")
    assert [str(p) for p in dataset_problems(missing)] == [
        "`metadata_file` on the command line: gone.json does not exist."
    ]


def test_masks_are_taken_from_a_folder_or_missed():
    settings = described(ONE + "conditioning_data_dir = 'dogs'\n", "--masked_loss")
    assert plan_datasets(settings)[0].subsets[0].conditioning_data_dir == Path("dogs").absolute()
    assert settings.warnings == []
    settings = described(ONE, "--masked_loss")
    plan_datasets(settings)
    assert settings.warnings == [
        "`--masked_loss` on the command line has no effect: no subset has masks; give one a `conditioning_data_dir` "
        "or `alpha_mask`."
    ]


@pytest.mark.parametrize(
    ("key", "words", "said"),
    [
        (
            "keep_tokens = 2",
            [],
            "`keep_tokens` has no effect without `shuffle_caption` or `caption_tag_dropout_rate` or",
        ),
        ("keep_tokens = 2", ["--shuffle_caption"], None),
        ("keep_tokens = 0", [], None),
        (
            "",
            ["--max_bucket_reso=768"],
            "`--max_bucket_reso` on the command line has no effect without `enable_bucket`.",
        ),
        ("", ["--max_bucket_reso=768", "--enable_bucket"], None),
        ("", ["--max_bucket_reso=1024"], None),
        ("num_repeats = 3", ["--dataset_repeats=2"], "has no effect: every subset has a number of repeats of its own."),
        ("", ["--dataset_repeats=2"], None),
        (
            "",
            ["--validation_seed=3"],
            "`--validation_seed` on the command line has no effect without `validation_split`.",
        ),
        (
            "shuffle_caption = true",
            ["--cache_text_encoder_outputs_to_disk"],
            "`--cache_text_encoder_outputs_to_disk` on the command line keeps nothing: captions whose tags vary",
        ),
    ],
)
def test_what_does_nothing_alone_says_so_unless_its_partner_is_on_somewhere(
    key: str, words: list[str], said: str | None
):
    settings = described(ONE + key + "\n", *words)
    plan_datasets(settings)
    assert len(settings.warnings) == (said is not None), settings.warnings
    assert said is None or said in settings.warnings[0]


@pytest.mark.parametrize(("images", "held_out"), [(4, 1), (12, 3), (15, 4), (32, 4), (100, 12), (1000, 32)])
def test_an_eighth_is_held_out_for_a_best_step_but_at_least_four_and_at_most_thirty_two_and_a_quarter(images, held_out):
    assert round(images * share_held_out(images)) == held_out


MEASURED_ON = "[[datasets]]\nresolution = 512\nvalidation_split = 1.0\n[[datasets.subsets]]\nimage_dir = 'dogs'\n"


@pytest.mark.parametrize(
    ("text", "words", "shares"),
    [
        (ONE + MEASURED_ON, ["--save_best"], [0.0, 1.0]),  # the user's own pictures are used, and none is taken
        (ONE + MEASURED_ON.replace("1.0", "0.5"), ["--save_best"], [0.0, 0.5]),
        (ONE + MEASURED_ON.replace("1.0", "0.0"), ["--early_stop"], [0.25, 0.0]),  # a share is taken where it may be
        (ONE + ONE, ["--save_best"], [0.25, 0.25]),
        (ONE + MEASURED_ON, ["--save_best", "--validation_split=0.1"], [0.1, 1.0]),
    ],
)
def test_a_best_step_takes_pictures_from_training_only_where_none_is_held_out_already(text, words, shares):
    settings = described(text, *words)
    assert dataset_problems(settings) == []
    assert [spec.validation_split for spec in plan_datasets(settings)] == shares


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        (
            ONE,
            ["--save_best", "--validation_split=0"],
            "`--save_best` on the command line needs pictures that are held",
        ),
        (ONE, ["--early_stop", "--validation_split=0"], "`--early_stop` on the command line needs pictures that are"),
        (ONE, ["--validation_split=1.0"], "`--validation_split` on the command line = 1 holds out every image and"),
        (MEASURED_ON, ["--save_best"], "`validation_split` in data.toml line 3 = 1 holds out every image and leaves"),
    ],
)
def test_holding_out_nothing_where_it_is_needed_or_everything_is_refused_by_its_name(text, words, problem):
    (found,) = problems(text, *words)
    assert found.startswith(problem)
