"""Written values, from TOML or from the command line, become values of their option's type."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config.option import Option, by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.values import Noted, file_name, plugin_arguments, read_value, split_key_values, written_form

OPTIONS = by_name(ALL_TRAIN_NETWORK)


def read(name: str, raw):
    return read_value(OPTIONS[name], raw)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("network_alpha", 16, 16.0),
        ("network_dim", "8", 8),
        ("network_dim", 8.0, 8),
        ("seed", "12345678901234567890", 12345678901234567890),
        ("text_encoder_lr", 5e-5, [5e-5]),
        ("text_encoder_lr", ["1e-4", 5e-5], [1e-4, 5e-5]),
        ("text_encoder_lr", [], None),
        ("base_weights", "a.safetensors", [Path("a.safetensors")]),
        ("network_args", [], None),
        ("network_args", ["conv_dim=4"], ["conv_dim=4"]),
        ("optimizer_args", ["betas=0.9,0.99"], ["betas=0.9,0.99"]),
        ("resolution", 512, (512, 512)),
        ("resolution", "512", (512, 512)),
        ("resolution", "512,768", (512, 768)),
        ("resolution", [512, 768], (512, 768)),
        ("vae", "", None),
        ("vae", False, None),
        ("resume", False, None),
        ("train_data_dir", "", None),
        ("max_train_steps", "", 1600),
        ("max_token_length", 75, None),
        ("max_token_length", "225", 225),
        ("dynamo_backend", "no", "no"),
        ("mixed_precision", "BF16", "bf16"),
        ("lr_warmup_steps", 100, 100),
        ("lr_warmup_steps", "100", 100),
        ("lr_warmup_steps", 0.05, 0.05),
        ("lr_warmup_steps", "10%", 0.1),
        ("lr_warmup_steps", 0.0, 0),
        ("save_every_n_epochs", 0, None),
        ("sample_every_n_steps", 5, 5),
        ("flip_aug", "true", True),
        ("flip_aug", "False", False),
        ("flip_aug", 1, True),
        ("face_crop_aug_range", [1, 3], (1.0, 3.0)),
        ("training_comment", 5, "5"),
        ("clip_skip", 0, None),
        ("max_train_epochs", "0", None),
        ("resolution", "512x768", (512, 768)),
        ("sample_prompts", "prompts/all of them.txt", Path("prompts/all of them.txt")),
        ("sample_prompts", "prompts.txt", Path("prompts.txt")),
        ("sample_prompts", "a gas mask, by somebody --w 512", ["a gas mask, by somebody --w 512"]),
        ("sample_prompts", "a cat\n\na dog\n", ["a cat", "a dog"]),
        ("sample_prompts", ["a cat", "a dog"], ["a cat", "a dog"]),
        ("sample_prompts", "", None),
    ],
)
def test_what_people_write_is_read_as_they_mean_it(name, raw, value):
    read_back = read(name, raw)
    assert read_back == value
    assert type(read_back) is type(value)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("network_dim", "x", "must be a whole number, not 'x'"),
        ("network_dim", 4.5, "must be a whole number, not 4.5"),
        ("network_dim", True, "must be a whole number, not true"),
        ("network_dim", 0, "is 0, but must be at least 1"),
        ("learning_rate", "fast", "must be a number, not 'fast'"),
        ("learning_rate", float("nan"), "must be a number, not nan"),
        ("learning_rate", [1e-4], "must be one value, not a list ([0.0001])"),
        ("max_grad_norm", -1, "is -1, but must be at least 0"),
        ("caption_dropout_rate", 7, "is 7, but must be at most 1"),
        ("flip_aug", "maybe", "must be true or false, not 'maybe'"),
        ("save_precision", "fp17", "is 'fp17', but must be one of float, fp16, bf16"),
        ("save_every_n_epochs", -2, "is -2, but must be at least 1"),
        ("vae", True, "must be a text, not true"),
        ("resolution", "big", "must be a width and a height in pixels, as 512 or \"512,768\", not 'big'"),
        ("resolution", [1, 2, 3], 'must be a width and a height in pixels, as 512 or "512,768", not [1, 2, 3]'),
        ("lr_warmup_steps", 10.5, 'must be a number of steps, a share of the run below 1, or "10%", not 10.5'),
        ("lr_warmup_steps", "110%", "must be between 0% and 100%, not '110%'"),
        ("network_args", ["conv_dim"], "has 'conv_dim', but each argument must read name=value"),
        (
            "network_args",
            ["conv_dim=4 conv_alpha=1"],
            "has several arguments in one text, 'conv_dim=4 conv_alpha=1'; write each as a text of its own",
        ),
        (
            "network_args",
            "conv_dim=4:conv_alpha=1",
            'must be a list of texts, one for each argument: ["name=value", "name=value"], '
            "not 'conv_dim=4:conv_alpha=1'",
        ),
        ("max_token_length", 10, "is 10, but must be 75, 150 or 225"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_expected(name, raw, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared below
        read(name, raw)
    assert str(error.value) == message


def test_a_whole_float_of_one_or_more_is_a_number_of_warm_up_steps_and_says_so():
    value = read("lr_warmup_steps", 100.0)
    assert value == Noted(100, "is 100.0, which is read as 100 steps, not as a share of the run")


@pytest.mark.parametrize(
    ("name", "raw", "value", "note"),
    [
        ("vae_batch_size", 0, 1, "is 0, which is read as 1"),
        ("gradient_accumulation_steps", "0", 1, "is 0, which is read as 1"),
        ("bucket_reso_steps", 1, 8, "is 1, which is read as 8: the VAE works on blocks of 8 pixels"),
        (
            "network_args",
            "conv_dim=4 algo=loha",
            ["conv_dim=4", "algo=loha"],
            "is one text, which is read as the list ",
        ),
        ("optimizer_args", "betas=0.9,0.99", ["betas=0.9,0.99"], "is one text, which is read as the list "),
        ("save_precision", "fp32", "float", "is 'fp32', which is read as 'float'"),
        ("sample_sampler", "DPM++ 2M Karras", "dpmsolver++", "is 'DPM++ 2M Karras', which is read as 'dpmsolver++'"),
    ],
)
def test_what_other_programs_write_is_read_with_a_note(name, raw, value, note):
    noted = read(name, raw)
    assert isinstance(noted, Noted)
    assert noted.value == value
    assert noted.note.startswith(note)


def test_a_token_length_between_the_chunks_is_read_as_the_chunk_below_and_says_so():
    assert read("max_token_length", 255) == Noted(225, "is 255, which is read as 225: tokens come in chunks of 75")
    assert read("max_token_length", 128) == Noted(None, "is 128, which is read as 75: tokens come in chunks of 75")


def test_a_path_whose_backslashes_toml_swallowed_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"TOML took its backslashes for something else; write Windows paths in single"
    ):
        read("output_dir", "C:\new\table")
    with pytest.raises(ValueError, match="backslashes"):
        read("pretrained_model_name_or_path", "C:\bodies\final.safetensors")


def test_a_path_may_begin_in_the_home_folder_and_a_strange_one_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert read("output_dir", "~/loras") == Path("/home/me/loras")
    assert read("resume", "~/state") == "/home/me/state"
    assert read("output_dir", "~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_an_ending_in_the_output_name_is_left_out_and_a_folder_is_refused():
    assert file_name("style.safetensors") == Noted(
        "style", "is read as 'style': the ending is added when a file is saved"
    )
    assert file_name("style.v1.5") == "style.v1.5"
    with pytest.raises(ValueError, match="folders belong into `output_dir`"):
        file_name("loras/style")


def test_key_values_split_at_the_first_equals_sign():
    assert split_key_values(["betas=0.9,0.99", "note=a=b"]) == {"betas": "0.9,0.99", "note": "a=b"}
    assert split_key_values(None) == {}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_in_toml_and_on_the_command_line(value):
    option = Option("x", float, None, "any number")
    assert read_value(option, value) == read_value(option, repr(value)) == value


@given(st.tuples(st.integers(1, 4096), st.integers(1, 4096)))
def test_a_resolution_is_read_back_from_the_form_it_is_written_in(size):
    assert read("resolution", written_form(size)) == size


def test_null_is_an_argument_that_is_not_given() -> None:
    given = ["dropout=null", "conv_dim=4", "algo=None", "name=nullable"]
    assert plugin_arguments(given) == {"conv_dim": "4", "name": "nullable"}
