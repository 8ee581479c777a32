"""A plan as people read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from library.config.schedule_rules import ScheduleSpec
from library.data.preflight.findings import Finding
from library.diffusion.rectified_flow import FlowSpec
from library.training.callbacks.validation import ValidationSpec
from library.training.optim.optimizers import OptimizerSpec
from library.training.optim.weight_averages import AverageSpec
from library.training.plan.files import PlannedFile
from library.training.plan.memory import GIB, GPU_OVERHEAD, on_gpu, peak, without_gpu
from library.training.plan.network import NetworkShape
from library.training.plan.plan import Plan
from library.training.setup.base_model import BaseModelSpec
from library.training.trained.network import NetworkSpec
from library.training.trained.placeholder_token import WordSpec

MIB = 2**20
SPOKEN = {"unet": "U-Net", "te": "text encoder", "te1": "text encoder 1", "te2": "text encoder 2"}


def plan_text(plan: Plan) -> str:
    sections = {
        "Model": model(plan),
        "Images": images(plan),
        "Length": length(plan),
        "Trained": trained(plan),
        "Files": map(file_line, plan.files),
        "Memory": memory(plan),
    }
    return "\n\n".join("\n  ".join([title, *lines]) for title, lines in sections.items())


def model(plan: Plan) -> Iterator[str]:
    base = plan.settings.take(BaseModelSpec)
    yield f"{base.pretrained_model_name_or_path}: {plan.family.spoken}"
    if base.flow_model:
        yield plan.settings.take(FlowSpec).describe()


def images(plan: Plan) -> Iterator[str]:
    dataset, held_out = plan.dataset, plan.dataset.validation
    reg = sum(picture.subset.is_reg for picture in dataset.pictures)
    line = f"{some(len(dataset.pictures) - reg, 'image')}, {some(len(dataset.samples), 'visit')} in an epoch"
    line += f", {reg} regularization images" if reg else ""
    yield line + (f", {len(held_out.pictures)} held out" if held_out else "")
    pictures = Counter((picture.dataset, picture.choice.bucket) for picture in dataset.pictures)
    several = len(dataset.plan) > 1
    for (number, bucket), members in dataset.groups.items():
        batches = -(-len(members) // (dataset.plan[number].batch_size * plan.geometry.parts))
        place = f"dataset {number + 1}, " if several else ""
        yield (
            f"{place}{bucket[0]}x{bucket[1]}: {some(pictures[number, bucket], 'image')}, "
            f"{some(len(members), 'visit')}, {some(batches, 'step')} in an epoch"
        )
    yield from (f"note: {line}" for line in dataset.warnings)
    worth_a_look: dict[str, list[Finding]] = {}
    for finding in plan.findings:
        if finding.is_problem:
            worth_a_look.setdefault(finding.kind, []).append(finding)
    for kind, found in worth_a_look.items():
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield f"{kind}: {found[0].file}{more}: {found[0].sentence}"


def length(plan: Plan) -> Iterator[str]:
    clock, sizes = plan.clock, sorted({spec.batch_size for spec in plan.dataset.plan})
    yield (
        f"{some(clock.total_steps, 'optimizer step')}: {some(clock.total_epochs, 'epoch')} of {clock.steps_per_epoch}"
    )
    if plan.resumed is not None:
        left = clock.total_steps - clock.global_step
        ahead = f"{some(left, 'step')} {'is' if left == 1 else 'are'} left" if left > 0 else "nothing is left to train"
        yield f"goes on from {plan.resumed} at step {clock.global_step}: {ahead}"
    elif clock.global_step:
        yield f"begins after step {clock.global_step}"
    validation = plan.settings.take(ValidationSpec)
    if validation.early_stop:
        patience = validation.early_stop_patience
        yield f"or fewer: `early_stop` ends it after {patience} measurements without a new lowest held-out loss"
    parts = plan.geometry
    split = ""
    if parts.parts > 1:
        at_once = " or ".join(map(str, sizes))
        split = f" ({at_once} at once, accumulation {parts.accumulation}, processes {parts.num_processes})"
    yield f"up to {' or '.join(str(size * parts.parts) for size in sizes)} images in a step{split}"


def trained(plan: Plan) -> Iterator[str]:
    settings = plan.settings
    spec, word, schedule = settings.take(NetworkSpec), settings.take(WordSpec), settings.take(ScheduleSpec)
    if plan.uncounted:
        yield f"{spec.network_module} cannot be counted without weights ({plan.uncounted})"
    if plan.network is not None:
        yield f"{spec.network_module}, rank {spec.network_dim or 'the module’s own'}"
        yield from network_lines(plan.network)
    if plan.vectors:
        yield f"the word {word.word}: {plan.vectors:,} numbers, learning rate {word.rate:g}"
    scheduler = schedule.lr_scheduler_type or schedule.lr_scheduler
    precision = settings.take(BaseModelSpec).mixed_precision
    yield f"{settings.take(OptimizerSpec).name}, {scheduler}, mixed_precision {precision}"


def network_lines(network: NetworkShape) -> Iterator[str]:
    for name, part in sorted(network.parts.items()):
        rates = " and ".join(f"{rate:g}" for rate in sorted(part.rates, key=float))
        yield (
            f"{SPOKEN.get(name, name)}: {len(part.modules)} modules, {part.parameters:,} parameters, "
            + (f"learning rate {rates}" if rates else "not trained")
        )


def file_line(file: PlannedFile) -> str:
    size = "" if file.size is None else size_of(file.size)
    number = f"{file.number} files " if file.number > 1 else ""
    return f"{file.path}  {number}{size}{'  ' if size and file.remark else ''}{file.remark}".rstrip()


def memory(plan: Plan) -> Iterator[str]:
    if plan.parts is None:
        yield "not counted, for the same reason"
        return
    gpu = torch.cuda.is_available()
    stages = on_gpu(plan.parts, plan.habits)
    stage, most = peak(stages)
    low, high = (most + extra for extra in GPU_OVERHEAD)
    yield (
        f"{'on the GPU' if gpu else 'on a GPU'}: {gib(most)} while {doing(stage)}, "
        f"{gib(low)} to {gib(high)} with what the GPU itself adds"
    )
    yield "  " + ", ".join(f"{doing(name)} {gib(size)}" for name, size in stages.items())
    if gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        if low > total:
            yield f"  the GPU here has {gib(total)}, which is too little: docs/memory.md says what saves memory"
    else:
        stage, most = peak(without_gpu(plan.parts, plan.habits, plan.around))
        yield f"here, without a GPU: {gib(most)} of the computer's memory while {doing(stage)}"
    parts = plan.parts
    weights = (("U-Net", parts.unet), ("VAE", parts.vae), ("text encoders", parts.text_encoders))
    beside = "optimizer and averages" if plan.settings.take(AverageSpec).is_on else "optimizer"
    trained = (("network", parts.network), (beside, parts.optimizer), ("a step with its gradients", parts.step))
    yield "of which " + ", ".join(f"{name} {size_of(size)}" for name, size in (*weights, *trained) if size)


def doing(stage: str) -> str:
    return {
        "latents": "encoding latents",
        "captions": "encoding captions",
        "training": "training",
        "samples": "drawing samples",
        "loading": "loading",
    }[stage]


def some(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def size_of(size: int) -> str:
    return f"{size / MIB:,.1f} MiB" if size < GIB else gib(size)
