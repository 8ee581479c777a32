"""The options that are declared, beside those of sd-scripts."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from library.config.option import Group, Option, Settings, by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse

KOHYA = json.loads((Path(__file__).parents[2] / "golden" / "sd_scripts_options.json").read_text(encoding="utf-8"))[
    "options"
]
OPTIONS = by_name(ALL_TRAIN_NETWORK)
OURS = {name for name, option in OPTIONS.items() if not option.of_sd_scripts}


def settings_of(*argv: str) -> Settings:
    return parse(argv, *ALL_TRAIN_NETWORK, prog="train_network.py", description="")


def test_every_option_of_sd_scripts_is_accepted_and_only_named_ones_are_added():
    assert set(with_aliases(OPTIONS)) - set(KOHYA) == OURS
    assert set(KOHYA) <= set(with_aliases(OPTIONS))


@pytest.mark.parametrize("name", sorted(set(KOHYA) & set(OPTIONS)))
def test_defaults_lists_flags_and_choices_are_those_of_sd_scripts(name):
    kind, default, *choices = KOHYA[name]
    option = OPTIONS[name]
    assert option.default == default
    assert option.is_flag == (kind == "flag")
    assert (option.nargs == "*") == kind.endswith("*")
    if choices and name != "max_token_length":  # read in chunks of 75, also where other numbers are written
        assert [str(choice) for choice in option.choices or ()] == choices[0]


def test_every_option_says_in_one_line_what_it_is_for():
    for option in OPTIONS.values():
        assert option.help, option.name
        assert "\n" not in option.help


def test_options_that_do_nothing_say_why():
    assert OPTIONS["network_dim"].inert is None
    assert "DeepSpeed" in str(OPTIONS["deepspeed"].inert)


def test_names_that_other_programs_use_are_never_options_themselves():
    accepted = set(with_aliases(OPTIONS))
    for option in OPTIONS.values():
        assert not accepted & set(option.known_as), option.name


def test_a_name_declared_twice_is_refused():
    twice = Group("A", [Option("seed", int, None, "a seed"), Option("seed", int, None, "again")])
    with pytest.raises(ValueError, match="seed is declared twice"):
        by_name([twice])


def test_take_fills_a_dataclass_by_field_name_and_leaves_its_own_fields_alone():
    @dataclass
    class NetworkSpec:
        network_dim: int | None
        network_alpha: float
        base_weights: list[Path] | None
        scratch: int = 7

    spec = settings_of("--network_dim", "8", "--base_weights", "a.safetensors", "b.safetensors").take(NetworkSpec)
    assert spec == NetworkSpec(8, 1.0, [Path("a.safetensors"), Path("b.safetensors")])
    assert spec.scratch == 7


def test_the_namespace_has_every_option_as_network_modules_expect_it_and_stays_the_same_object():
    settings = settings_of("--output_dir", "out", "--resolution", "512,768", "--max_train_epochs", "3")
    namespace = settings.namespace()
    assert set(vars(namespace)) == set(OPTIONS)
    assert (namespace.output_dir, namespace.resolution) == ("out", (512, 768))
    namespace.max_train_steps = 42
    assert settings.namespace().max_train_steps == 42
    assert settings["max_train_steps"] == 1600


def test_options_without_effect_are_named_when_they_were_asked_for_and_not_when_they_are_off():
    notes = settings_of(
        "--mem_eff_attn", "--deepspeed", "--min_snr_gamma=0", "--dynamo_backend=no", "--network_dim", "4"
    ).effect_notes()
    assert notes == [
        "`--deepspeed` on the command line has no effect: DeepSpeed is not supported: networks are too "
        "small to need it",
    ]


def test_an_option_that_needs_another_one_says_so_when_it_is_alone():
    alone = settings_of("--huber_c", "0.2", "--noise_offset_random_strength", "--multires_noise_discount", "0.3")
    assert alone.effect_notes() == [
        "`--huber_c` on the command line has no effect without `loss_type` = huber or smooth_l1",
        "`--noise_offset_random_strength` on the command line has no effect without `noise_offset`",
    ]
    together = settings_of("--huber_c", "0.2", "--loss_type", "huber", "--noise_offset=0.1", "--adaptive_noise_scale=1")
    assert together.effect_notes() == []
