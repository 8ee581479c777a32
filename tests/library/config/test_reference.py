"""docs/coming-from-sd-scripts.md has every option of sd-scripts, and what it says of each is what `--explain` says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from library.config.option import by_name, with_aliases
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.reference import BEGIN, INERT, PAGE, page, row, status
from tests.library.config.every_option.cases import CASES
from train_network import main

GOLDEN = Path(__file__).parents[2] / "golden" / "sd_scripts_options.json"
KOHYA = json.loads(GOLDEN.read_text(encoding="utf-8"))["options"]
OPTIONS = by_name(ALL_TRAIN_NETWORK)
BY_ANY_NAME = with_aliases(OPTIONS)
# A value of each kind that is neither the default nor off.
LEGAL = {"int": "2", "float": "0.5", "float*": "0.5", "int_or_float": "2", "str": "some", "Path": "some", "str*": "a=1"}
OF_ITS_OWN = {"lr_scheduler": "cosine", "sample_sampler": "euler_a", "dynamo_backend": "eager", "resolution": "512"}
OF_ITS_OWN |= {"network_alpha": "4", "face_crop_aug_range": "1,2", "optimizer_type": "Lion", "max_token_length": "150"}
OF_ITS_OWN |= {"skip_image_resolution": "32,48", "bucket_reso_steps": "32", "base_weights": "a.safetensors"}
SOUND = ("--pretrained_model_name_or_path=a", "--output_dir=out", "--network_module=networks.lora", "--resolution=64")


def legal_value(name: str) -> str:
    kind, default, *choices = KOHYA[name]
    if name in OF_ITS_OWN:
        return OF_ITS_OWN[name]
    if choices:
        return next(choice for choice in reversed(choices[0]) if choice not in (str(default), "no", "0"))
    return LEGAL[kind]


def test_no_option_of_sd_scripts_is_missing_from_the_page():
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition("### Only here")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(name for cell in rows for name in re.findall(r"`(\w+)`", cell)) == sorted(KOHYA)
    kohyas = {name for name, option in OPTIONS.items() if option.of_sd_scripts}
    assert kohyas == {BY_ANY_NAME[name].name for name in KOHYA}


def test_the_page_is_what_the_command_writes():
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run `python -m library.config.reference`"


def test_a_page_that_lost_its_marks_is_not_written():
    with pytest.raises(ValueError, match="once each"):
        page("# A page")


def test_what_differs_is_reported_of_options_that_work():
    differing = [option for option in OPTIONS.values() if option.differs]
    assert len(differing) > 60
    assert all(option.inert is None and option.of_sd_scripts for option in differing)
    assert status(OPTIONS["dataset_class"]) == "refused"
    assert "no effect without `noise_offset`" in row(OPTIONS["adaptive_noise_scale"])


@pytest.mark.parametrize("name", sorted(set(KOHYA) - {"config_file", "output_config"}))
def test_each_option_alone_is_accepted_and_says_if_it_has_no_effect(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"--{name}"] if KOHYA[name][0] == "flag" else [f"--{name}", legal_value(name)]
    assert main([*SOUND, *words, "--explain"]) == 0
    said = capsys.readouterr().out
    option = BY_ANY_NAME[name]
    no_effect = said.partition("Has no effect")[2]
    says_so = f"`--{option.name}` on the command line has no effect" in no_effect
    assert says_so == (status(option) == INERT or option.needs is not None)
    assert option.inert is not None or option.name in CASES


def test_every_proof_on_the_page_is_a_test_or_a_command_that_is_there():
    root = PAGE.parents[1]
    text = PAGE.read_text(encoding="utf-8")
    proofs = text.partition("with its proof")[2].partition("## Every option")[0]
    for path, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", proofs):
        assert (root / path).is_file()
        assert not test or f"def {test}(" in (root / path).read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        found = root / module.replace(".", "/")
        assert found.with_suffix(".py").is_file() or (found / "__main__.py").is_file()
