"""What the start would refuse of named classes and their arguments is told before anything of them is imported."""

from __future__ import annotations

import pytest

from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.plugin_checks import plugin_problems
from library.sampling.prompts import prompt_problems


def found(*words: str) -> list[str]:
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="")
    return [str(problem).replace(" on the command line", "") for problem in plugin_problems(settings)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--optimizer_args", '"weight_decay=0.1"'], "`--optimizer_args` has '\"weight_decay=0.1\"'; write key=value"),
        (["--optimizer_args", "betas=0.9,"], "`--optimizer_args` has 'betas=0.9,': leave out the comma"),
        (["--lr_scheduler_args", "T_max=ten"], "`--lr_scheduler_args` has 'T_max=ten', whose value is not a Python"),
        (["--optimizer_args", f"a={'(' * 5000}"], "`--optimizer_args` has 'a=(((((("),
        (["--optimizer_type", "AdamWW"], "`--optimizer_type` = AdamWW is not an optimizer that can be imported; did"),
        (["--optimizer_type", "nowhere.Best"], "`--optimizer_type` = nowhere.Best is not an optimizer that can be"),
        (["--optimizer_type", "Came"], "`--optimizer_type` = Came needs the package came-pytorch: `pip install"),
        (["--lr_scheduler_type", "CosineLR"], "`--lr_scheduler_type` = CosineLR is not a class that can be imported"),
        (
            ["--lr_scheduler_type", "x.RexLR"],
            "`--lr_scheduler_type` = x.RexLR is not a class that can be imported (`lr",
        ),
    ],
    ids=lambda value: value[-1][:20] if isinstance(value, list) else "",
)
def test_one_sentence_each(words, sentence):
    (problem,) = found(*words)
    assert problem.startswith(sentence)
    assert len(problem) < 700


@pytest.mark.parametrize("name", ["", "adamw", "SGD", "RMSprop", "torch.optim.RAdam", "AdaFactor"])
def test_optimizers_that_are_there_are_no_problem(name):
    assert found("--optimizer_type", name, "--lr_scheduler_type", "CosineAnnealingLR") == []


def test_mistakes_in_prompts_stop_explain_too_and_left_out_options_are_reported(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a cat --w wide\na dog --x 3\n")
    words = ["--sample_prompts", str(tmp_path / "p.txt"), "--explain"]
    with pytest.raises(SystemExit):
        parse(words, *ALL_TRAIN_NETWORK, prog="", description="", checks=(prompt_problems,))
    assert (
        "p.txt line 1: `--w wide`: `width` should be a whole number" in capsys.readouterr().out.split("Would stop")[1]
    )
    (tmp_path / "p.txt").write_text("a dog --x 3\n")
    with pytest.raises(SystemExit):
        parse(words, *ALL_TRAIN_NETWORK, prog="", description="", checks=(prompt_problems,))
    assert "`--x 3` is not an option of a prompt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("networks.dylora", "copy its networks/dylora.py into a folder `networks` beside the config."),
        ("lycoris_nowhere.kohya", "put its file beside the config, or install the package that it comes with."),
    ],
)
def test_a_network_module_that_is_nowhere_is_reported_with_what_to_do(name, advice):
    (problem,) = found("--network_module", name)
    assert problem.startswith(f"`--network_module` is '{name}', which cannot be found; ")
    assert problem.endswith(advice)
