"""What the header of a pivot's file says: kohya's names where kohya has them, the person, and what decided it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from library.adapters.metadata import ModelFacts
from library.config.spec import declared
from library.models.family import StableDiffusion
from library.training.callbacks.checkpoints import Metadata
from library.training.clock import Clock
from library.training.runtime.environment import Environment
from restoration.options import TEXT, restoration_spec
from restoration.pivots.person import Person
from restoration.pivots.training_pictures import TrainingPictures


@restoration_spec
class HeaderSpec:
    """The options that a file of a pivot tells; field names are the options'."""

    pretrained_model_name_or_path: str
    learning_rate: float
    output_name: str | None = declared
    mixed_precision: str = declared
    network_module: str | None = declared
    in_context: bool = declared


def constant_header(spec: HeaderSpec, pivot: str, model: StableDiffusion, optimizer: str) -> dict[str, str]:
    """What stays the same over a run."""
    base = ModelFacts(model.family.value, model.prediction_type == "v_prediction", str(model.source))
    return {
        "ss_base_model_version": base.version,
        "ss_network_module": str(spec.network_module or "") if pivot == TEXT else "",
        "ss_optimizer": optimizer,
        "pivot_kind": pivot,
        "pivot_in_context": str(spec.in_context),
    }


def metadata_writer(
    spec: HeaderSpec,
    person: Person,
    pictures: TrainingPictures,
    header: Mapping[str, str],
    environment: Environment,
    mark: Callable[[], dict[str, str]],
) -> Metadata:
    """The header of a file: kohya's names where kohya has them, the person's, and `mark` as it is then."""
    started = time.time()

    def metadata(clock: Clock, kind: str) -> dict[str, str]:
        facts = {
            "ss_output_name": spec.output_name,
            "ss_sd_model_name": Path(spec.pretrained_model_name_or_path).name,
            "ss_session_id": environment.session,
            "ss_seed": environment.seed,
            "ss_training_started_at": started,
            "ss_training_finished_at": time.time(),
            "ss_steps": clock.global_step,
            "ss_max_train_steps": clock.total_steps,
            "ss_epoch": clock.epochs_done,
            "ss_learning_rate": spec.learning_rate,
            "ss_num_train_images": len(pictures.faces),
            "ss_num_reg_images": len(pictures.prior),
            "ss_mixed_precision": spec.mixed_precision,
        }
        return {name: str(value) for name, value in facts.items()} | dict(header) | person.header() | mark()

    return metadata
