"""Command line, TOML and defaults become settings in this order of precedence."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from library.config.option import Group, Option, Settings
from library.config.options.config import CONFIG
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.values import key_value, path_or_name, period, resolution, steps_or_ratio
from library.errors import ConfigError

FEW = Group(
    "Few",
    [
        Option("rank", int, None, "a number", minimum=1),
        Option("rate", float, 2e-6, "a rate"),
        Option("rates", float, None, "rates", nargs="*"),
        Option("arguments", key_value, None, "arguments", nargs="*"),
        Option("fast", bool, False, "a flag"),
        Option("model", path_or_name, None, "a path"),
        Option("folder", Path, None, "a folder"),
        Option("title", str, None, "a text"),
        Option("size", resolution, None, "a size"),
        Option("warm_up", steps_or_ratio, 0, "steps"),
        Option("save_every", period, None, "steps"),
        Option("kind", str, "a", "a choice", choices=("a", "b")),
        Option("key", str, None, "a key", secret=True),
    ],
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.integers(1, 10**12),
        "rate": st.floats(allow_nan=False, allow_infinity=False),
        "rates": st.lists(st.floats(0, 1), min_size=1, max_size=3),
        "arguments": st.lists(st.just("conv_dim=4") | st.just("betas=0.9,0.99"), min_size=1, max_size=3),
        "fast": st.booleans(),
        "model": TEXTS,
        "folder": TEXTS.map(lambda text: Path("models") / text),
        "title": TEXTS,
        "size": st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
        "warm_up": st.integers(0, 10**6) | st.floats(0.001, 0.999),
        "save_every": st.integers(1, 1000),
        "kind": st.sampled_from(["a", "b"]),
    },
)
reuse_the_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def read(*argv: str) -> Settings:
    return parse(argv, CONFIG, FEW, prog="few.py", description="")


def as_words(values: dict) -> list[str]:
    """Values as a person would write them on the command line."""
    words = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        else:
            written = f"{value[0]},{value[1]}" if isinstance(value, tuple) else value
            words.append(f"--{name}={written}")
    return words


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@reuse_the_folder
@given(values=VALUES)
def test_what_output_config_writes_is_read_back_as_the_same_settings(tmp_path, values):
    file = tmp_path / "written.toml"
    file.unlink(missing_ok=True)
    with pytest.raises(SystemExit) as leaving:
        read("--output_config", f"--config_file={file}", *as_words(values))
    assert leaving.value.code == 0
    first, again = read(*as_words(values)), read("--config_file", str(file))
    assert {name: first[name] for name in first if name != "config_file"} == {
        name: again[name] for name in again if name != "config_file"
    }


@reuse_the_folder
@given(in_file=VALUES, on_command_line=VALUES)
def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path, in_file, on_command_line):
    file = tmp_path / "mixed.toml"
    file.unlink(missing_ok=True)
    with pytest.raises(SystemExit):
        read("--output_config", f"--config_file={file}", *as_words(in_file))
    mixed = read("--config_file", str(file), *as_words(on_command_line))
    for option in FEW:
        expected = on_command_line.get(option.name, in_file.get(option.name, option.default))
        assert mixed[option.name] == expected


def test_origins_tell_line_command_line_and_default(tmp_path):
    file = write(tmp_path / "style.toml", "[network]\nrank = 8\n\n[more]\nrate = 1e-4\n")
    settings = read("--config_file", file, "--rate", "2e-4")
    assert settings.place("rank") == "`rank` in style.toml line 2"
    assert settings.place("rate") == "`--rate` on the command line"
    assert settings.place("title") == "`title`"
    assert (settings.explicit("rank"), settings.explicit("title")) == (True, False)


@pytest.mark.parametrize(
    "words", [["--no-fast"], ["--no_fast"], ["--fast=false"], ["--fast", "false"], ["--fast", "0"]]
)
def test_a_flag_that_the_file_switches_on_is_switched_off_on_the_command_line(tmp_path, words):
    file = write(tmp_path / "a.toml", "fast = true\n")
    assert read("--config_file", file)["fast"] is True
    assert read("--config_file", file, *words)["fast"] is False


def test_a_flag_does_not_swallow_the_next_word():
    with pytest.raises(ConfigError, match="`rank` on the command line belongs to no option"):
        read("--fast", "rank")


def test_negative_numbers_are_values():
    assert read("--rate", "-0.5", "--rates", "-1", "-.5")["rates"] == [-1.0, -0.5]


def test_the_ending_of_the_config_file_may_be_left_out(tmp_path):
    write(tmp_path / "style.v2.toml", "rank = 3\n")
    assert read("--config_file", str(tmp_path / "style.v2"))["rank"] == 3


def test_an_empty_text_on_the_command_line_takes_back_what_the_file_says(tmp_path):
    file = write(tmp_path / "a.toml", "model = 'model.safetensors'\n")
    settings = read("--config_file", file, "--model", "")
    assert settings["model"] is None
    assert not settings.explicit("model")


def test_the_later_of_two_values_in_a_file_is_used_and_both_places_are_named(tmp_path):
    file = write(tmp_path / "a.toml", "[one]\nrank = 4\n[two]\nrank = 8\n")
    settings = read("--config_file", file)
    assert settings["rank"] == 8
    assert settings.warnings == [
        "`rank` is written in a.toml line 2 and again in a.toml line 4; the later one is used."
    ]


def test_an_option_given_twice_on_the_command_line_is_named():
    settings = read("--arguments", "a=1", "--arguments", "b=2")
    assert settings["arguments"] == ["b=2"]
    assert settings.warnings == ["`--arguments` is on the command line 2 times; only the last one is used."]


def test_unknown_keys_are_warnings_and_errors_only_when_strict(tmp_path):
    file = write(tmp_path / "a.toml", "rnak = 4\n[deep.er]\nrank = 3\n[[list]]\nrank = 2\n")
    settings = read("--config_file", file)
    assert settings["rank"] is None
    assert settings.unknown == ["rnak", "deep.er", "list"]
    assert settings.warnings == [
        "`rnak` in a.toml line 1 is not an option; did you mean `rank`?",
        "table [deep.er] in a.toml line 2 is not read: options are at the top or in tables of one level.",
        "table [list] in a.toml line 4 is not read: options are at the top or in tables of one level.",
    ]
    with pytest.raises(ConfigError) as error:
        read("--config_file", file, "--strict_config")
    assert error.value.exit_code == 2
    assert all(warning in str(error.value) for warning in settings.warnings)


def test_all_problems_of_file_and_command_line_are_reported_at_once(tmp_path):
    file = write(tmp_path / "a.toml", "rank = 'x'\nkind = 'c'\nrnak = 4\n")
    with pytest.raises(ConfigError) as error:
        read("--config_file", file, "--rte", "1", "--size=big", "stray")
    assert str(error.value).splitlines() == [
        "5 problems:",
        "  - `--rte` on the command line is not an option; did you mean `--rate`?",
        "  - `stray` on the command line belongs to no option; a value with spaces needs quotes.",
        "  - `rank` in a.toml line 1 must be a whole number, not 'x'.",
        "  - `kind` in a.toml line 2 is 'c', but must be one of a, b.",
        "  - `--size` on the command line must be a width and a height in pixels, as 512 or \"512,768\", not 'big'.",
        "Also noticed:",
        "  - `rnak` in a.toml line 3 is not an option; did you mean `rank`?",
    ]


def test_the_beginning_of_one_option_is_taken_for_it_and_that_is_reported():
    settings = read("--save_eve", "3")
    assert settings["save_every"] == 3
    assert settings.warnings == ["`--save_eve` on the command line is read as `--save_every`."]


def test_the_beginning_of_several_options_is_not_guessed():
    with pytest.raises(ConfigError, match="`--s` on the command line is not an option"):
        read("--s", "3")


def test_a_config_option_that_cannot_be_read_is_reported_like_any_other():
    with pytest.raises(ConfigError, match="`--output_config` on the command line must be true or false, not 'maybe'"):
        read("--output_config=maybe", "--rank", "3")


def test_an_option_without_its_value_is_named():
    with pytest.raises(ConfigError, match="`--rank` on the command line needs a value"):
        read("--rank", "--fast")


def test_secrets_are_not_written_and_a_file_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / "new.toml"
    with pytest.raises(SystemExit):
        read("--output_config", "--config_file", str(file), "--rank", "4", "--key", "hunter2", "--rate", "2e-6")
    text = file.read_text(encoding="utf-8")
    assert "hunter2" not in text
    assert text.splitlines()[1:] == ["rank = 4"]
    assert "without key, which stay secret" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exists already and is not overwritten"):
        read("--output_config", "--config_file", str(file), "--rank", "5")
    assert file.read_text(encoding="utf-8") == text


def test_output_config_writes_nothing_while_an_option_cannot_be_read(tmp_path):
    file = tmp_path / "new.toml"
    with pytest.raises(ConfigError, match="`--rank` on the command line must be a whole number"):
        read("--output_config", "--config_file", str(file), "--rank", "x")
    assert not file.exists()


def test_checks_see_the_settings_and_stay_silent_about_what_could_not_be_read():
    from library.errors import Problem

    def checks(settings: Settings) -> list[Problem]:
        return [Problem(f"`{name}` is not set.") for name in ("rank", "title") if settings[name] is None]

    with pytest.raises(ConfigError) as error:
        parse(["--rank", "x"], FEW, prog="", description="", checks=[checks])
    assert "`rank` is not set" not in str(error.value)
    assert "`title` is not set" in str(error.value)


def test_flags_that_imply_others_switch_them_on_and_old_spellings_are_understood():
    def train(*argv):
        return parse(argv, *ALL_TRAIN_NETWORK, prog="", description="")

    settings = train("--cache_latents_to_disk", "--use_8bit_adam", "--caption_extention", ".txt")
    assert settings["cache_latents"] is True
    assert settings["optimizer_type"] == "AdamW8bit"
    assert settings["caption_extension"] == ".txt"
    assert not settings.explicit("cache_latents")
    assert train("--cache_latents_to_disk", "--no-cache_latents").warnings == [
        "`--cache_latents` on the command line is switched on by `--cache_latents_to_disk` on the command line."
    ]
    with pytest.raises(ConfigError, match=r"means optimizer_type = 'AdamW8bit', but .* is 'Lion'"):
        train("--use_8bit_adam", "--optimizer_type", "Lion")


def test_help_shows_every_option_under_its_group(capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(["--help"], *ALL_TRAIN_NETWORK, prog="train_network.py", description="Train a LoRA.")
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 110
    for group in ALL_TRAIN_NETWORK:
        assert f"\n{group.title}\n" in shown
        assert all(f"\n  --{option.name}" in shown for option in group)


def test_numbers_beyond_every_float_and_hosts_of_unknown_keys_are_short_sentences(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("seed = " + "9" * 400 + "\nlearning_rate = " + "9" * 400 + "\n")
    with pytest.raises(ConfigError, match=r"`seed` in a.toml line 1 must be a whole number, not 9{200}\.\.\.") as error:
        parse(["--config_file", str(file)], *ALL_TRAIN_NETWORK, prog="", description="")
    assert len(str(error.value)) < 800
    file.write_text("\n".join(f"k{i} = 1" for i in range(3000)))
    settings = parse(["--config_file", str(file)], *ALL_TRAIN_NETWORK, prog="", description="")
    assert len(settings.unknown) == 100
    assert "2901 further keys in a.toml are no options either." in settings.warnings


def test_a_dash_that_is_no_hyphen_is_reported():
    with pytest.raises(
        ConfigError, match="`\u2014seed` on the command line begins with a dash that is no hyphen; write `--seed`"
    ):
        parse(["\u2014seed", "3"], *ALL_TRAIN_NETWORK, prog="", description="")
