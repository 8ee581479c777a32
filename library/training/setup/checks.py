"""What a run is made of, as far as it is known to be good before a model is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import ModuleType

from library.adapters.modelspec import thumbnail
from library.config.dataset_specs import DatasetPlan
from library.config.option import Settings
from library.config.values import plugin_arguments
from library.data.dataset import Dataset
from library.data.dataset import build as build_dataset
from library.sampling.prompts import SamplePrompt, read_prompts
from library.training.callbacks.validation import ValidationSpec, check_held_out
from library.training.setup.assemble import Resumed, check_surroundings
from library.training.trained.network import NetworkSpec, check_given_weights
from library.training.trained.placeholder_token import CheckedWord, about_the_word, check_word
from library.training.trained.plugins import check_arguments, import_plugin, notes_on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """A run before its model."""

    settings: Settings
    module: ModuleType | None
    arguments: dict[str, str]
    word: CheckedWord | None
    dataset: Dataset
    prompts: list[SamplePrompt]
    resumed: Resumed


def check_before_loading(settings: Settings, plan: DatasetPlan, *, tidy: bool = True) -> Checked:
    """Everything that can be wrong and takes no model to find out. Raises `UserError`.

    `tidy` removes what killed runs left in the output folder; without it nothing on disk is changed.
    """
    resumed = check_surroundings(settings, tidy=tidy)
    module, arguments = None, plugin_arguments(settings["network_args"])
    if settings["network_module"] is not None:
        module = import_plugin(
            settings["network_module"], "network_module", ("create_network",), settings["config_file"]
        )
        check_arguments(module, arguments, "network_args")
        for line in notes_on(module):
            logger.info(line)
        check_given_weights(settings.take(NetworkSpec))
    if settings["metadata_thumbnail"]:
        thumbnail(settings["metadata_thumbnail"])
    prompts = read_prompts(settings["sample_prompts"]) if settings["sample_prompts"] else []
    for line in [line for prompt in prompts for line in prompt.warnings]:
        logger.info(line)
    dataset = build_dataset(plan, prior_loss_weight=settings["prior_loss_weight"], fallback=settings["output_dir"])
    check_held_out(settings.take(ValidationSpec), dataset)
    word = check_word(settings, dataset)
    if word is not None:
        prompts = about_the_word(prompts, settings["token_string"])
    return Checked(settings, module, arguments, word, dataset, prompts, resumed)


def trains_text_encoder(settings: Settings) -> bool:
    """Whether text-encoder weights are among those that are trained."""
    if settings["network_train_unet_only"] or settings["network_module"] is None:
        return False
    rates = settings["text_encoder_lr"]
    return any(rates) if rates else settings["learning_rate"] > 0


def runs_text_encoder(checked: Checked) -> bool:
    """Whether every step runs the text encoders and goes back through them."""
    return checked.word is not None or trains_text_encoder(checked.settings)
