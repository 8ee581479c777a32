"""Every optimizer that kohya's names offer: it steps, it resumes exactly, and it refuses early what it cannot do."""

import json
from dataclasses import replace

import pytest
import torch

from library.config.optimizer_table import KNOWN, NAMES, known
from library.errors import UserError
from library.files import read_tensors, write_tensors
from library.training.optim import registry
from library.training.optim.optimizers import Optimizers, OptimizerSpec, create_optimizer, trial_optimizer
from library.training.optim.registry import optimizer_class
from library.training.optim.state import join_optimizer_state, split_optimizer_state
from library.training.runtime.distributed import CPU
from library.training.runtime.mixed_precision import Precision

PACKAGES = {place.class_name: place.package for place in KNOWN.values()}


def spec_of(name: str) -> OptimizerSpec:
    pytest.importorskip(PACKAGES.get(known(name).class_name, "").replace("-", "_") or "torch")
    adaptive = name.lower().startswith(("prodigy", "dadapt"))
    return OptimizerSpec(name, learning_rate=1.0 if adaptive else 1e-2)


def run_of(spec: OptimizerSpec, dtype: torch.dtype) -> Optimizers:
    """One tensor large enough to be kept in 8 bits, and a small one."""
    shapes = ((64, 80), (4, 3))
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(shape, dtype=dtype))], "lr": spec.learning_rate} for shape in shapes
    ]
    return Optimizers(create_optimizer(spec, groups)[0], None, ["large", "small"], 0.0)


def train(run: Optimizers, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in run.parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        run.step(torch.tensor(True), Precision("no", CPU))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_optimizer_goes_on_from_its_state_bit_for_bit(name, dtype, tmp_path):
    spec = spec_of(name)
    whole, first = run_of(spec, dtype), run_of(spec, dtype)
    train(whole, range(5))
    train(first, range(3))
    tensors, rest = split_optimizer_state(first.state_dict())
    write_tensors(tmp_path / "state.safetensors", tensors, {})
    second = run_of(spec, dtype)
    with torch.no_grad():
        for parameter, saved in zip(second.parameters, first.parameters, strict=True):
            parameter.copy_(saved)
    second.load_state_dict(
        join_optimizer_state(read_tensors(tmp_path / "state.safetensors")[0], json.loads(json.dumps(rest)))
    )
    train(second, range(3, 5))
    for a, b in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
    assert whole.parameters[0].any()
    assert whole.learning_rates == second.learning_rates


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"])
def test_schedule_free_weights_are_lent_for_use_and_training_goes_on_as_if_they_were_not(name):
    spec = spec_of(name)
    undisturbed, saving = run_of(spec, torch.float32), run_of(spec, torch.float32)
    train(undisturbed, range(6))
    for step in range(6):
        train(saving, range(step, step + 1))
        trained = saving.parameters[0].detach().clone()
        with saving.weights_for_use():
            lent = saving.parameters[0].detach().clone()
        assert torch.equal(saving.parameters[0], trained)
    assert not torch.allclose(lent, trained)
    assert torch.equal(undisturbed.parameters[0], saving.parameters[0])


def test_other_optimizers_lend_the_weights_that_they_train():
    run = run_of(OptimizerSpec("AdamW"), torch.float32)
    before = run.parameters[0]
    with run.weights_for_use():
        assert run.parameters[0] is before


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam", "DAdaptation"])
def test_two_rates_for_an_optimizer_that_finds_one_are_refused_and_zero_is_none(name):
    spec = spec_of(name)
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, (1.0, 0.5), strict=True)]
    with pytest.raises(UserError, match=r"0\.5, 1; give the same rate"):
        create_optimizer(spec, groups)
    create_optimizer(spec, [{"params": [p], "lr": rate} for p, rate in zip(parameters, (1.0, 0.0), strict=True)])


class ProdigyPlusScheduleFree(torch.optim.SGD):
    """Stands for the class of a package that nobody has to install."""


def test_a_class_path_of_prodigys_kin_gets_its_check_and_its_advice():
    name = f"{__name__}.{ProdigyPlusScheduleFree.__name__}"
    assert known("prodigyplus.ProdigyPlusScheduleFree") == replace(known(name), module="prodigyplus")
    spec = OptimizerSpec(name, learning_rate=1e-4)
    assert spec.has_own_rates
    _, notes = create_optimizer(spec, [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1e-4}])
    assert any("1.0 is usual" in note for note in notes)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in (1.0, 0.5)]
    with pytest.raises(UserError, match=r"0\.5, 1; give the same rate"):
        create_optimizer(spec, groups)
    others = ("AdamW", "torch.optim.SGD", "dadaptation.DAdaptAdam")
    assert [known(other).finds_its_rate for other in others] == [False, False, True]


def test_an_adaptive_optimizer_logs_what_it_makes_of_the_rate_and_advises_one():
    spec = spec_of("Prodigy")
    run = run_of(spec, torch.float32)
    train(run, range(2))
    assert run.learning_rates["d*lr/large"] == run.optimizer.param_groups[0]["d"]
    _, notes = create_optimizer(OptimizerSpec("Prodigy", learning_rate=1e-4), [{"params": run.parameters, "lr": 1e-4}])
    assert any("1.0 is usual" in note for note in notes)


def test_adafactor_sets_its_own_rate_unless_asked_not_to():
    own, given = OptimizerSpec("Adafactor"), OptimizerSpec("adafactor", ("relative_step=False",), learning_rate=1e-3)
    assert own.has_own_rates
    assert not given.has_own_rates
    assert run_of(given, torch.float32).learning_rates == {"large": 1e-3, "small": 1e-3}
    run = run_of(own, torch.float32)
    assert run.learning_rates == {"large": 0.01, "small": 0.01}
    train(run, range(1))
    for group in run.optimizer.param_groups:
        run.optimizer.state[group["params"][0]]["step"] = 39999
    assert run.learning_rates["large"] == pytest.approx(1 / 200)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Adamw9bit", "did you mean `AdamW8bit`"),
        ("no.such.Class", "cannot|not an optimizer that can be imported"),
        ("torch.nn.Linear", "is not a torch.optim.Optimizer"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        optimizer_class(name)


def test_a_package_that_is_missing_is_named_with_how_to_install_it(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(registry.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"`optimizer_type = Lion` needs the package lion-pytorch.*pip install lion-py"):
        optimizer_class("Lion")


@pytest.mark.parametrize("arguments", [("weight_decy=0.1",), ("betas=5",), ("lr=-1",)])
def test_arguments_that_do_not_fit_are_refused_with_those_that_do(arguments):
    with pytest.raises(UserError, match=r"`optimizer_args` does not fit AdamW: .*it takes betas, eps"):
        trial_optimizer(OptimizerSpec("AdamW", arguments))


@pytest.mark.parametrize("argument", ["weight_decay=0.5,", "weight_decay = 0.5 , "])
def test_a_comma_at_the_end_of_an_argument_is_named(argument):
    with pytest.raises(UserError, match="leave out the comma at its end"):
        trial_optimizer(OptimizerSpec(optimizer_args=[argument]))
    assert OptimizerSpec(optimizer_args=["betas=(0.9, 0.99)", "a=(1,)"]).arguments == {"betas": (0.9, 0.99), "a": (1,)}
