"""`python -m miniworld.prove cross_init`: an embedding of one drawn person from one picture, by how it starts.

Each arm (how the vectors start, steps, learning rate) is a run of train_network.py on one picture of a held-out person,
under the same noise; what it learnt is examined on other pictures of the person and on prompts that ask for something
else. DreamBooth with prior preservation stands beside them, and the person's traits written out in words. Arms are kept
as lines of JSON: a second call goes on where the first stopped, and `--minutes` stops in time. Prints the table with
the verdict on its thresholds; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import read_tensors, write_text
from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from miniworld.judge import Judge
from miniworld.prove.cross_init_table import table
from miniworld.prove.exam import merge
from miniworld.prove.measures import AUTOCAST
from miniworld.prove.persons import MODEL, NAMES, TOKEN, TestPerson, called, with_word, written_out
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import write_between_marks

VECTORS, BATCH = 2, 8
TEMPLATES = ("a photo of {}", "{}", "a photo of a {}")
CROSSED_NAMES = ("embeddings.cross_init", f"names={NAMES}")
WORD = ("embeddings.from_word",)
REGULARISATION_PICTURES = 10


@dataclass(frozen=True)
class EmbeddingArm:
    """How the vectors start (a plugin and its arguments), and how they are trained. 0 steps: the start itself."""

    name: str
    initializer: tuple[str, ...] = ()
    steps: int = 0
    rate: float = 0.005
    says_word: bool = False
    """Whether `init_word` is given: the person's gender."""


ARMS = (
    EmbeddingArm("word", WORD, 320, says_word=True),
    EmbeddingArm("cross init", CROSSED_NAMES, 320),
    EmbeddingArm("cross init, fast", CROSSED_NAMES, 25, 0.08),
    EmbeddingArm("word, fast", WORD, 25, 0.08, says_word=True),
    EmbeddingArm("cross init, start", CROSSED_NAMES),
    EmbeddingArm("word, start", WORD, says_word=True),
    EmbeddingArm("cross init, twice the rate", CROSSED_NAMES, 320, 0.01),
    EmbeddingArm("cross init, three times the rate", CROSSED_NAMES, 320, 0.015),
    EmbeddingArm("cross init, longer", CROSSED_NAMES, 1000),
    EmbeddingArm("crossed word", ("embeddings.cross_init",), 320, says_word=True),
    EmbeddingArm("name mean, not crossed", (*CROSSED_NAMES, "cross=false"), 320),
    EmbeddingArm("cross init, no pull", (*CROSSED_NAMES, "reg_weight=0"), 320),
    EmbeddingArm("word, a tenth of the rate", WORD, 320, 0.0005, says_word=True),
    EmbeddingArm("word, 5000 steps", WORD, 5000, says_word=True),
)
NEEDED = ARMS[:6]
"""What the thresholds are about; the rest follows when these are done for every person."""
DREAMBOOTH, IN_WORDS = "DreamBooth LoRA", "traits in words"
PERSONS = tuple(f"id{number:02d}" for number in range(1, 13))


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove cross_init", description=__doc__)
    parser.add_argument("--persons", type=int, default=6, help="how many held-out people, up to 12")
    parser.add_argument("--long", type=int, default=1, help="for how many of them the 5,000 steps are run")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table into this document")
    add_options(parser, Path("output/prove/cross_init"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    persons = PERSONS[: arguments.persons]
    keys = [
        {"person": person, "arm": arm, "steps": steps, "seed": seed}
        for seed in range(arguments.seeds)
        for person, arm, steps in order(persons, arguments.long)
    ]
    exam = EmbeddingExam(arguments.output)
    measure_what_is_missing(results, keys, exam.measure, arguments.minutes)
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table.md", text)
    print(text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "cross_init", text)


def order(persons: Sequence[str], long: int) -> list[tuple[str, str, int]]:
    """(person, arm, steps): what the thresholds need first, person by person, then the other arms."""
    first = [(person, arm.name, arm.steps) for person in persons for arm in NEEDED]
    in_words = [(person, IN_WORDS, 0) for person in persons]
    rest = [(person, arm.name, arm.steps) for arm in ARMS[len(NEEDED) : -1] for person in persons]
    dreambooth = [(person, DREAMBOOTH, 400) for person in persons]
    return [*first, *in_words, *rest, *dreambooth, *[(p, ARMS[-1].name, ARMS[-1].steps) for p in persons[:long]]]


class EmbeddingExam:
    """Trains and examines arms; the base model and the judge are loaded once."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.base, self.judge = load_model(MODEL), Judge.load()

    def measure(self, key: Mapping[str, Any]) -> dict[str, Any]:
        person = TestPerson(key["person"], self.base, self.judge)
        folder = self.output / f"{key['person']} {key['arm']} {key['seed']}".replace(",", "").replace(" ", "-")
        examples = folder.with_suffix(".png")
        if key["arm"] == IN_WORDS:
            return {**person.examine(self.base, written_out, examples), "ceiling": person.ceiling()}
        if key["arm"] == DREAMBOOTH:
            return self._dreambooth(person, folder, key, examples)
        arm = next(arm for arm in ARMS if arm.name == key["arm"])
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.process_time()
        file = train(arm, person, folder, key["seed"]) if arm.steps else start(arm, person, folder)
        seconds = time.process_time() - begun
        found = person.examine(*with_word(file), examples)
        shutil.rmtree(folder / "pictures", ignore_errors=True)
        return {**found, **travel(folder), "cpu_seconds": round(seconds, 1)}

    def _dreambooth(self, person: TestPerson, folder: Path, key: Mapping[str, Any], examples: Path) -> dict[str, Any]:
        """A LoRA of "sks man" with pictures that the model itself draws of a man beside it."""
        shutil.rmtree(folder, ignore_errors=True)
        prompts = [
            SamplePrompt(f"a photo of a {person.gender}", seed=i, scale=4.0, sample_steps=12)
            for i in range(REGULARISATION_PICTURES)
        ]
        drawn = generate(self.base, TextConditioner(self.base), prompts, autocast=AUTOCAST)
        own = folder / "regularisation" / f"1_{person.gender}"
        own.mkdir(parents=True)
        for i, picture in enumerate(drawn):
            picture.save(own / f"{i}.png")
            (own / f"{i}.caption").write_text(f"a photo of a {person.gender}", encoding="utf-8")
        person.write_pictures(folder / "pictures", 40)
        named = f"sks {person.gender}"
        (caption,) = (folder / "pictures").glob("*/*.txt")
        caption.with_suffix(".caption").write_text(f"a photo of {named}", encoding="utf-8")
        begun = time.process_time()
        run_training(
            folder,
            key["seed"],
            key["steps"],
            *("--reg_data_dir", folder / "regularisation", "--network_module", "networks.lora", "--network_dim", 16),
            *("--network_alpha", 16, "--learning_rate", 1e-3, "--train_batch_size", 2, "--network_train_unet_only"),
        )
        seconds = time.process_time() - begun
        model = load_model(MODEL)
        merge(model.unet, read_tensors(folder / "person.safetensors")[0], 1.0)
        found = person.examine(model, called(named), examples)
        return {**found, "cpu_seconds": round(seconds, 1)}


def train(arm: EmbeddingArm, person: TestPerson, folder: Path, seed: int) -> Path:
    """Run train_network.py on the person's one picture; returns the embedding."""
    person.write_pictures(folder / "pictures", 8 * BATCH)
    run_training(
        folder,
        seed,
        arm.steps,
        *word_options(arm, person),
        *("--caption_template", *TEMPLATES, "--embedding_lr", arm.rate, "--reg_weight", 1e-5),
        *("--train_batch_size", BATCH, "--max_grad_norm", 0, "--optimizer_args", "weight_decay=0.01"),
    )
    return folder / "person.safetensors"


def start(arm: EmbeddingArm, person: TestPerson, folder: Path) -> Path:
    """Only the start of the vectors, as `python -m embeddings init` writes it."""
    from embeddings.commands.init import init

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "person.safetensors"
    init(_words("--pretrained_model_name_or_path", MODEL, "--output", file, "--overwrite", *word_options(arm, person)))
    return file


def word_options(arm: EmbeddingArm, person: TestPerson) -> list[object]:
    module, *arguments = arm.initializer
    options: list[object] = ["--token_string", TOKEN, "--num_vectors_per_token", VECTORS]
    options += ["--embedding_initializer", module]
    options += ["--init_word", person.gender] if arm.says_word else []
    return options + (["--initializer_args", *arguments] if arguments else [])


def run_training(folder: Path, seed: int, steps: int, *options: object) -> None:
    """Raises `UserError` if the training does not end well."""
    import train_network

    common = ("--pretrained_model_name_or_path", MODEL, "--train_data_dir", folder / "pictures", "--seed", seed)
    common += ("--output_dir", folder, "--output_name", "person", "--resolution", "128,128", "--max_train_steps", steps)
    code = train_network.main(_words(*common, "--cache_latents", "--flip_aug", "--overwrite", *options))
    if code:
        raise UserError(f"the arm {folder.name} ended with exit code {code}")


def travel(folder: Path) -> dict[str, float]:
    """Mean norm ratio and cosine to the start of the vectors at the end of a run; nothing for a start."""
    log = folder / "person-log.jsonl"
    if not log.is_file():
        return {}
    steps = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = [step for step in steps if "loss" in step][-1]
    found = {}
    for name in ("norm_ratio", "cosine"):
        values = [value for figure, value in last.items() if figure.startswith("embedding/") and figure.endswith(name)]
        found[name] = sum(values) / len(values)
    return found | {"pull_ratio": last.get("embedding/pull_ratio", 0.0)}


def _words(*options: object) -> list[str]:
    return [str(option) for option in options]
