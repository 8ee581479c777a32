"""Other people's network modules through a whole life: trained from TOML, saved, loaded, resumed, opened elsewhere.

    python -m tests.rehearsal.modules                                       # every algorithm of LyCORIS
    python -m tests.rehearsal.modules --module networks.mine --args rank=4  # one of your own

Each trains 20 steps on the mini model. "exact" means equal bits, a number is the largest difference of the noise
prediction from that of the network as it was trained (predictions are of size 1); what fails is told below the table.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from library.config.checks import problems
from library.config.datasets import dataset_problems, plan_datasets
from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.data.keys import seed_generators
from library.errors import Interrupted
from library.files import read_tensors
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.training.loop import fit
from library.training.run import Run
from library.training.setup.build import build_run
from library.training.setup.checks import check_before_loading
from library.training.trained.network import NetworkSpec, create_network, merge_base_weights
from library.training.trained.plugins import import_plugin
from tests.rehearsal.measured import ROOT

STEPS = 20
MODEL = ROOT / "miniworld" / "model"
COLUMNS = ("tensors moved", "saved", "loaded", "dim from file", "merged", "resumed", "diffusers")
CONFIG = """
[model]
pretrained_model_name_or_path = "{model}"
[dataset]
train_data_dir = "{pictures}"
caption_extension = ".txt"
resolution = "128,128"
cache_latents = true
[network]
network_module = "{module}"
network_args = {arguments}
network_dim = {dim}
network_alpha = {alpha}
[training]
max_train_steps = {steps}
train_batch_size = 2
learning_rate = {rate}
optimizer_type = "AdamW"
seed = 1
[saving]
output_dir = "{output}"
output_name = "net"
save_every_n_steps = {half}
save_state = true
"""


@dataclass(frozen=True)
class Listed:
    """A network module with its `network_args`; to some modules `dim` is a size of blocks and `alpha` a constraint."""

    name: str
    arguments: Sequence[str]
    module: str = "lycoris.kohya"
    dim: int = 4
    alpha: float = 2.0
    rate: float = 1e-3


LYCORIS = [
    Listed("LoCon", ["algo=locon"]),
    Listed("LoCon, Tucker", ["algo=locon", "use_tucker=True"]),
    Listed("LoCon and norms", ["algo=locon", "train_norm=True"]),
    Listed("DoRA", ["algo=locon", "dora_wd=True"]),
    Listed("LoHa", ["algo=loha"]),
    Listed("LoKr", ["algo=lokr", "factor=4"]),
    Listed("DyLoRA", ["algo=dylora", "block_size=2"]),
    Listed("GLoRA", ["algo=glora"]),
    Listed("Diag-OFT", ["algo=diag-oft"], alpha=0.0),
    Listed("BOFT", ["algo=boft"], alpha=0.0, dim=8),
    Listed("Full", ["algo=full"], rate=1e-4),
    Listed("(IA)^3", ["algo=ia3", "preset=ia3"]),
    Listed("LoCon, attn-only", ["algo=locon", "preset=attn-only"]),
]


@dataclass
class Life:
    """What became of a module: a cell for each column, and what each failure said."""

    listed: Listed
    cells: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def trying(self, column: str) -> Iterator[None]:
        """A failure of the block becomes a cell: other people's code may fail in any way."""
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            self.cells[column] = "fails"
            self.failures[column] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def row(self) -> str:
        cells = [self.cells.get(column, "-") for column in COLUMNS]
        return "| " + " | ".join([self.listed.name, f"`{' '.join(self.listed.arguments)}`", *cells]) + " |"


def live(listed: Listed, folder: Path, steps: int = STEPS) -> Life:
    """Train, save, load back in every way, resume, and open in diffusers."""
    life = Life(listed)
    config = folder / "net.toml"
    config.write_text(written(listed, folder, steps), encoding="utf-8")
    with life.trying("tensors moved"):
        settings, run = trained(config)
        found = run.trainables[0].findings()
        life.cells["tensors moved"] = f"{found.moved} of {found.tensors}"
    if life.failures:
        return life
    file = folder / "net.safetensors"
    life.cells["saved"] = f"{len(read_tensors(file)[0])} tensors"
    model: Any = run.trainables[0]._model  # pyright: ignore[reportAttributeAccessIssue]
    run.trainables[0].train(False)
    expected = prediction(model)
    assert (expected - prediction(load_model(MODEL))).abs().max() > 1e-3, "the network changes nothing"
    for column, load in (("loaded", with_weights), ("dim from file", from_weights), ("merged", merged)):
        with life.trying(column):
            life.cells[column] = distance(prediction(load(settings, file)), expected)
    with life.trying("resumed"):
        state = folder / f"net-step{steps // 2:08d}-state"
        trained(config, "--resume", str(state), "--output_name", "resumed")
        life.cells["resumed"] = "exact" if same(file, folder / "resumed.safetensors") else "differs"
    with life.trying("diffusers"):
        model, warnings = in_diffusers(file)
        life.cells["diffusers"] = distance(prediction(model), expected)
        if warnings:
            life.failures["diffusers"] = " ".join(warnings)[:200]
    return life


def written(listed: Listed, folder: Path, steps: int) -> str:
    arguments = "[" + ", ".join(f'"{argument}"' for argument in listed.arguments) + "]"
    return CONFIG.format(
        model=MODEL.as_posix(),
        pictures=(ROOT / "miniworld" / "quickstart").as_posix(),
        module=listed.module,
        arguments=arguments,
        dim=listed.dim,
        alpha=listed.alpha,
        rate=listed.rate,
        steps=steps,
        half=steps // 2,
        output=folder.as_posix(),
    )


def trained(config: Path, *words: str) -> tuple[Settings, Run]:
    """A run of `train_network.py --config_file config ...` as it stands after its last step."""
    checks = (problems, dataset_problems)
    argv = ["--config_file", str(config), *words]
    settings = parse(argv, *ALL_TRAIN_NETWORK, prog="train_network.py", description="", checks=checks)
    checked = check_before_loading(settings, plan_datasets(settings))
    run = build_run(checked)
    with run.lock, run.signals:
        fit(run)
    return settings, run


def with_weights(settings: Settings, file: Path) -> StableDiffusion:
    """The model with a network of the same options, and the file's weights in it."""
    return with_network(settings, replace(settings.take(NetworkSpec), network_weights=file))


def from_weights(settings: Settings, file: Path) -> StableDiffusion:
    """The model with a network that is made to fit the file, without options."""
    return with_network(settings, NetworkSpec(network_weights=file, dim_from_weights=True))


def with_network(settings: Settings, spec: NetworkSpec) -> StableDiffusion:
    model = load_model(MODEL)
    module = import_plugin(settings["network_module"], "network_module", ())
    entries = () if spec.dim_from_weights else settings["network_args"] or ()
    arguments = dict(entry.split("=", 1) for entry in entries)
    create_network(module, spec, arguments, model, settings.namespace()).eval()
    return model


def merged(settings: Settings, file: Path) -> StableDiffusion:
    """The model with the file merged into its own weights."""
    model = load_model(MODEL)
    module = import_plugin(settings["network_module"], "network_module", ())
    merge_base_weights(module, NetworkSpec(base_weights=[file]), model, torch.float32)
    return model


def in_diffusers(file: Path) -> tuple[Any, list[str]]:
    """A model that diffusers' own pipeline has put the file into, and what its loader warned of meanwhile."""
    model: Any = load_model(MODEL)
    scheduler: Any = DDIMScheduler.from_config(model.scheduler_config)
    pipeline: Any = StableDiffusionPipeline(
        vae=model.vae, unet=model.unet, scheduler=scheduler, text_encoder=model.text_encoders[0],
        tokenizer=model.tokenizers[0], safety_checker=None, feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )  # fmt: skip
    warnings = Warnings()
    logging.getLogger("diffusers").addHandler(warnings)
    try:
        pipeline.load_lora_weights(str(file))
    finally:
        logging.getLogger("diffusers").removeHandler(warnings)
    return model, warnings.texts


class Warnings(logging.Handler):
    """What a library warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@torch.no_grad()
def prediction(model: StableDiffusion) -> Tensor:
    """(2, 4, 16, 16): the noise that the model sees in fixed latents for fixed token ids."""
    seed_generators(0)  # DyLoRA draws a rank in every pass, also when it is not trained
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    hidden = model.text_encoders[0](torch.arange(2 * 77).reshape(2, 77)).last_hidden_state
    return model.unet(latents, torch.tensor([3, 700]), encoder_hidden_states=hidden).sample


def distance(found: Tensor, expected: Tensor) -> str:
    largest = float((found - expected).abs().max())
    return "exact" if largest == 0 else f"{largest:.0e}"


def same(a: Path, b: Path) -> bool:
    first, second = read_tensors(a)[0], read_tensors(b)[0]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def table(lives: Sequence[Life]) -> str:
    """The rows as Markdown, and what failed below."""
    head = ["algorithm", "`network_args`", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *(life.row() for life in lives)]
    for life in lives:
        lines += [f"\n{life.listed.name}, {column}: {text}" for column, text in life.failures.items()]
    return "\n".join(lines)


def rehearse(all_listed: Sequence[Listed], show: Callable[[str], None]) -> list[Life]:
    lives = []
    for listed in all_listed:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            lives.append(live(listed, Path(folder)))
        show(lives[-1].row())
    return lives


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="the algorithms whose names contain one of these")
    parser.add_argument("--module", help="a network module in place of LyCORIS' algorithms")
    parser.add_argument("--args", nargs="*", default=[], help="its network_args")
    parser.add_argument("--alpha", type=float, default=2.0, help="its network_alpha")
    asked = parser.parse_args()
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    chosen = [listed for listed in LYCORIS if not asked.only or any(part in listed.name for part in asked.only)]
    if asked.module:
        chosen = [Listed(asked.module, asked.args, asked.module, alpha=asked.alpha)]
    lives = rehearse(chosen, lambda row: print(row, file=sys.stderr, flush=True))
    print(table(lives))
    return 0


if __name__ == "__main__":
    sys.exit(main())
