"""`python -m miniworld.check`: does the mini model draw what it is asked for?

200 prompts that pretraining did not draw from, each judged by `miniworld.judge` on what it asked; beside each share the
ceiling: the same judge on real drawings of the same content, sent through the VAE. Also the VAE's PSNR, the latents'
std, the text encoder's scales and the time of a picture. Leaves a grid with its prompts; exit code 1 if a threshold is
missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from miniworld.architecture import token_rows
from miniworld.judge import HEADS, Images, Judge, to_pictures
from miniworld.pretrain.preview import save_grid, to_pixels
from miniworld.pretrain.vae import psnr, reconstruct
from miniworld.questions import Question, questions
from miniworld.scenes import draw_for_pretraining
from miniworld.silhouettes import read_colour, read_shape

MODEL = Path(__file__).with_name("model")
STEPS, GUIDANCE, SEED, BATCH = 20, 4.0, 4000, 16
THRESHOLDS: dict[str, float] = {
    "colour": 0.95,
    "background": 0.95,
    "place": 0.95,
    "hair_colour": 0.95,
    "name": 0.95,
    "object": 0.85,
    "shape": 0.80,
    "glasses": 0.75,
    "expression": 0.50,
}
"""The least share of pictures that show what was asked."""
SCALE_THRESHOLDS: dict[str, float] = {"vae_psnr": 26.5, "norm_ratio": 30.0}
"""Decibels over 256 pictures; and how much larger the text encoder's outputs are than its token rows."""
LATENT_STD = (0.9, 1.1)


@dataclass(frozen=True)
class CheckLine:
    """One row of the table."""

    asked: str
    count: int
    measured: float
    ceiling: float
    threshold: float | None

    @property
    def missed(self) -> bool:
        return self.threshold is not None and self.measured < self.threshold


def shares(asked: Sequence[Mapping[str, str]], read: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, float]]:
    """Per head: how many pictures were asked, and the share that the judge finds."""
    found: dict[str, list[bool]] = defaultdict(list)
    for wanted, seen in zip(asked, read, strict=True):
        for head, answer in wanted.items():
            found[head].append(seen[head] == answer)
    return {head: (len(hits), sum(hits) / len(hits)) for head, hits in found.items()}


def table(measured: Mapping[str, tuple[int, float]], ceiling: Mapping[str, tuple[int, float]]) -> list[CheckLine]:
    """The rows, those with a threshold first."""
    order = [*THRESHOLDS, *(head for head in HEADS if head not in THRESHOLDS)]
    return [
        CheckLine(head, *measured[head], ceiling[head][1], THRESHOLDS.get(head)) for head in order if head in measured
    ]


def draw_answers(model: StableDiffusion, asked: Sequence[Question]) -> tuple[list[Image.Image], float]:
    """The model's pictures in batches of 16, and CPU seconds per picture."""
    prompts = [sample_prompt(question.prompt, SEED + i) for i, question in enumerate(asked)]
    began = time.process_time()
    pictures = generate(
        model, TextConditioner(model), prompts, batch_size=BATCH, decode_batch_size=BATCH, autocast=torch.bfloat16
    )
    return pictures, (time.process_time() - began) / len(pictures)


def sample_prompt(prompt: str, seed: int) -> SamplePrompt:
    return SamplePrompt(prompt, seed=seed, scale=GUIDANCE, sample_steps=STEPS)


def seconds_alone(model: StableDiffusion, prompt: str, pictures: int = 3) -> float:
    """CPU seconds of one picture by itself, in float32: the median of three."""
    seconds = []
    for seed in range(pictures):
        began = time.process_time()
        generate(model, TextConditioner(model), [sample_prompt(prompt, seed)])
        seconds.append(time.process_time() - began)
    return sorted(seconds)[len(seconds) // 2]


def read(judge: Judge, pictures: Images, asked: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The judge's answers. Shape and colour of a single shape are read from its pixels, which is right more often."""
    return [
        answer | ({"shape": read_shape(picture), "colour": read_colour(picture)} if "shape" in facts else {})
        for answer, picture, facts in zip(judge.read(pictures), map(np.asarray, pictures), asked, strict=True)
    ]


def ceiling_pictures(model: StableDiffusion, asked: Sequence[Question]) -> np.ndarray:
    """Drawings of what the questions ask, through the VAE and back."""
    drawings = np.stack([question.drawing for question in asked])
    return to_pixels(reconstruct(model.vae, to_pictures(drawings)))


def vae_quality(model: StableDiffusion, count: int = 256) -> tuple[float, list[float]]:
    """PSNR in dB over fresh pictures of the pretraining kind, and the std of the scaled latents' four channels."""
    rng = np.random.default_rng([SEED, 256])
    seen = to_pictures([draw_for_pretraining(rng).image for _ in range(count)])
    copies = reconstruct(model.vae, seen)
    with torch.no_grad():
        latents = model.vae.encode(seen[:128]).latent_dist.mean * model.vae.config["scaling_factor"]  # type: ignore[union-attr]
    return psnr(copies, seen), [round(value, 3) for value in latents.std((0, 2, 3)).tolist()]


@torch.no_grad()
def norm_ratio(model: StableDiffusion, prompts: Sequence[str]) -> tuple[float, float]:
    """Mean norm of the text encoder's outputs, and of the token rows that the prompts use."""
    encoder, tokenizer = model.text_encoders[0], model.tokenizers[0]
    ids = torch.tensor(tokenizer(list(prompts), padding="max_length", truncation=True).input_ids)
    outputs = encoder(ids).last_hidden_state.norm(dim=-1).mean()
    return float(outputs), float(token_rows(encoder)[ids.unique()].norm(dim=-1).mean())


def check(folder: Path, where: Path) -> dict:
    """Everything measured, as JSON holds it; the grid and its prompts go to `where`."""
    model, judge, asked = load_model(folder), Judge.load(), questions()
    pictures, seconds_in_batch = draw_answers(model, asked)
    facts = [question.asked for question in asked]
    measured = shares(facts, read(judge, pictures, facts))
    ceiling = shares(facts, read(judge, ceiling_pictures(model, asked), facts))
    lines = table(measured, ceiling)
    quality, deviations = vae_quality(model)
    outputs, rows = norm_ratio(model, [question.prompt for question in asked])
    write_grid(where, pictures, asked)
    scales = {"vae_psnr": quality, "norm_ratio": outputs / rows}
    missed = [line.asked for line in lines if line.missed]
    missed += [name for name, least in SCALE_THRESHOLDS.items() if scales[name] < least]
    missed += ["latent_std"] * (not all(LATENT_STD[0] <= value <= LATENT_STD[1] for value in deviations))
    return {
        "lines": [asdict(line) for line in lines],
        **scales,
        "output_norm": outputs,
        "row_norm": rows,
        "latent_std": deviations,
        "seconds_in_batch_of_16": seconds_in_batch,
        "seconds_alone": seconds_alone(model, asked[0].prompt),
        "missed": missed,
    }


def write_grid(where: Path, pictures: Sequence[Image.Image], asked: Sequence[Question], rows: int = 12) -> None:
    """Eight pictures a row, the kinds in turn, and the prompts in reading order beside it."""
    where.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(asked) - 1, 8 * rows).astype(int).tolist()
    save_grid(to_pictures([pictures[i] for i in chosen]), where / "grid.png", columns=8)
    text = "".join(f"row {n // 8 + 1} column {n % 8 + 1}: {asked[i].prompt}\n" for n, i in enumerate(chosen))
    (where / "grid.txt").write_text(text, encoding="utf-8")


def describe(result: dict) -> str:
    """The result as a table for people."""
    lines = [f"{'asked':12} {'count':>5} {'measured':>9} {'threshold':>9} {'ceiling':>8}"]
    for row in result["lines"]:
        least = f"{row['threshold']:.0%}" if row["threshold"] is not None else "-"
        lines.append(f"{row['asked']:12} {row['count']:5} {row['measured']:9.1%} {least:>9} {row['ceiling']:8.1%}")
    lines += [
        f"VAE PSNR {result['vae_psnr']:.2f} dB; std of the latents {result['latent_std']}",
        f"text encoder: output norm {result['output_norm']:.2f}, token rows {result['row_norm']:.3f}, "
        f"ratio {result['norm_ratio']:.1f}",
        f"CPU seconds of a picture in {STEPS} steps: {result['seconds_in_batch_of_16']:.2f} in a batch of 16 (bf16), "
        f"{result['seconds_alone']:.2f} alone (fp32)",
        f"missed: {', '.join(result['missed'])}" if result["missed"] else "every threshold is met",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m miniworld.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="a diffusers folder or an exported file")
    parser.add_argument("--output", type=Path, default=Path("output/check"), help="where the grid goes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    result = check(options.model, options.output)
    print(json.dumps(result, indent=2) if options.json else describe(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
