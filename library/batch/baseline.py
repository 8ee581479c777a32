"""The model as it is, as a row of a batch: its samples and its validation loss, without a step of training."""

from __future__ import annotations

from contextlib import closing

import torch

from library.errors import UserError
from library.models.text import TextSpec
from library.sampling.previews import write_previews
from library.training.callbacks.samples import PreviewSpec
from library.training.callbacks.validation import Validation, ValidationSpec
from library.training.clock import Clock
from library.training.log.journal import Journal
from library.training.runtime.environment import choose_environment
from library.training.runtime.memory import MemorySpec, on_device
from library.training.saving.file_names import SavingSpec
from library.training.setup.base_model import LoadModel
from library.training.setup.build import build_batches, build_conditioner, build_objective
from library.training.setup.checks import Checked


def look_at_the_model(checked: Checked, load: LoadModel) -> None:
    """Draw the job's prompts and measure its held-out pictures with the base model; a log such as a training's.

    Raises `UserError` where the job has neither prompts nor held-out pictures: there would be nothing to see.
    """
    settings, saving = checked.settings, checked.settings.take(SavingSpec)
    if not checked.prompts and checked.dataset.validation is None:
        raise UserError(
            "a method that trains nothing needs `sample_prompts`, or held-out pictures (`validation_split`): there is "
            "nothing to see of it otherwise"
        )
    environment = choose_environment(settings, None)
    device = environment.processes.device
    model = load(settings, device)
    conditioner = build_conditioner(settings.take(TextSpec), model)
    clock = Clock(steps_per_epoch=1, total_steps=0)
    journal = Journal(saving.log, clock)
    _, held_out = build_batches(checked, model, conditioner, environment, 0)
    journal.begin(clock)
    with closing(journal), torch.no_grad(), environment.precision.autocast():
        if held_out is not None:
            objective = build_objective(settings, model, conditioner, device)
            objective.train(False)
            validation = Validation(settings.take(ValidationSpec), objective, held_out)
            journal.measured("validation", clock, **validation.measure(environment.processes, 0))
        if checked.prompts:
            with on_device(model, device, keep_reserved=settings.take(MemorySpec).highvram):
                pictures = write_previews(
                    model,
                    conditioner,
                    checked.prompts,
                    saving.output_dir / "sample",
                    output_name=saving.output_name,
                    epoch=None,
                    step=0,
                    run_seed=environment.seed,
                    sampler=settings.take(PreviewSpec).sample_sampler,
                    vae_dtype=model.vae.dtype,
                )
            journal.event("samples", clock, files=[picture.name for picture in pictures])
        journal.event("end", clock, seconds=0, skipped=0, trainables={})
