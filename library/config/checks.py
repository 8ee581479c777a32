"""What can be known to go wrong from the options alone, before any model is loaded.

Each check looks at a few options and yields what does not work, with what to do. `problems` runs them all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from library.config.module_search import nearest_module
from library.config.optimizer_table import known
from library.config.option import Settings
from library.config.options.embeddings import EMBEDDINGS
from library.config.options.sampling import FLOW_SAMPLERS
from library.config.schedule_rules import ScheduleSpec, length_problems, schedule_problems
from library.config.suggest import missing
from library.config.weights_header import damage, kind_of
from library.errors import Problem


def problems(settings: Settings) -> list[Problem]:
    """Everything that the checks find: combinations that cannot run, of values that could be read."""
    return [replace(problem, understood=True) for check in CHECKS for problem in check(settings)]


def there_is_a_model(settings: Settings) -> Iterator[Problem]:
    if settings["pretrained_model_name_or_path"] is None:
        yield Problem("`pretrained_model_name_or_path` is not set: the Stable Diffusion file or folder to train on.")


def model_files_exist(settings: Settings) -> Iterator[Problem]:
    for name in (option.name for option in settings.options.values() if option.names_a_model):
        value = settings[name]
        if value is None or os.path.exists(value):
            continue
        looks_remote = value.count("/") == 1 and not value.startswith((".", "~")) and Path(value).suffix == ""
        note = " Models are not downloaded: give the path of a file or folder." if looks_remote else ""
        yield Problem(f"{settings.place(name)}: {missing(Path(value))}{note}")


def other_files_exist(settings: Settings) -> Iterator[Problem]:
    for name in (option.name for option in settings.options.values() if option.names_a_file):
        given = settings[name] if isinstance(settings[name], list) else [settings[name]]
        for path in (path for path in given if isinstance(path, Path) and not os.path.isfile(path)):
            yield Problem(f"{settings.place(name)}: {not_a_file(path)}")


def files_are_what_they_are_given_as(settings: Settings) -> Iterator[Problem]:
    """By the headers of safetensors; what they do not tell is found when the file is loaded."""
    advice = {
        "network": "a network (LoRA or another); give it as `network_weights` or `base_weights`",
        "embedding": "an embedding; give it as `weights`",
        "model": "a whole model; give it as `pretrained_model_name_or_path`",
    }
    given = [("pretrained_model_name_or_path", settings["pretrained_model_name_or_path"], "model")]
    given.append(("network_weights", settings["network_weights"], "network"))
    given += [("base_weights", path, "network") for path in settings["base_weights"] or []]
    for name, value, wanted in given:
        if value is None or not os.path.isfile(value):
            continue
        kind = kind_of(Path(value))
        if wrong := damage(Path(value)):
            yield Problem(f"{settings.place(name)}: {value} {wrong}; copy or download it again.")
        elif kind not in (None, wanted):
            yield Problem(f"{settings.place(name)}: {value} is {advice[kind]}.")


def network_module_is_spelled_right(settings: Settings) -> Iterator[Problem]:
    """A module that is nowhere, where one of nearly the same name is; nothing is imported."""
    name = settings["network_module"]
    if name is not None and (guess := nearest_module(name, settings["config_file"])):
        yield Problem(f"{settings.place('network_module')} is {name!r}, which cannot be found; did you mean `{guess}`?")


def not_a_file(path: Path) -> str:
    return f"{path} is a folder, not a file." if os.path.isdir(path) else missing(path)


def there_is_an_output_folder(settings: Settings) -> Iterator[Problem]:
    folder = settings["output_dir"]
    if folder is None:
        yield Problem("`output_dir` is not set: the folder for everything that the run leaves.")
    elif os.path.exists(folder) and not os.path.isdir(folder):
        yield Problem(f"{settings.place('output_dir')}: {folder} is a file, not a folder.")
    else:
        parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not parent.is_dir():
            return  # a file on the way is found with the other files that a run writes
        try:  # what the permissions say is not all: a file system may refuse
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            change = "change its permissions or choose another folder"
            yield Problem(f"{settings.place('output_dir')}: nothing can be written in {parent} ({reason}); {change}.")


def there_is_something_to_train(settings: Settings) -> Iterator[Problem]:
    if settings["network_module"] is None and settings["token_string"] is None:
        yield Problem('`network_module` is not set: "networks.lora" trains a LoRA.')


def a_new_word_is_complete(settings: Settings) -> Iterator[Problem]:
    if settings["token_string"] is None:
        for option in EMBEDDINGS:
            if settings.explicit(option.name) and settings[option.name] not in (None, option.default):
                yield Problem(f"{settings.place(option.name)} needs `token_string`: the new word that is trained.")
        return
    for name in ("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"):
        if settings.explicit(name) and settings[name]:
            yield Problem(
                f"{settings.place(name)} cannot be used with `token_string`: the text encoder's outputs change in "
                "every step; leave it out."
            )
    if settings["use_object_template"] and settings["use_style_template"]:
        yield Problem("`use_object_template` and `use_style_template` exclude each other; leave one of them out.")
    for template in settings["caption_template"] or ():
        if template.count("{}") != 1:
            yield Problem(f"{settings.place('caption_template')}: {template!r} must hold {{}} once, for the word.")


def stages_leave_no_gap(settings: Settings) -> Iterator[Problem]:
    start, stop, network = "embedding_start_step", "embedding_stop_step", "network_start_step"
    if settings["token_string"] is None:
        return
    if settings["network_module"] is None:
        for name in (start, stop, network, "bundle_embeddings"):
            if settings.explicit(name) and settings[name]:
                yield Problem(f"{settings.place(name)} needs `network_module`: nothing is trained beside the vectors.")
        return
    if settings[stop] is not None and settings[stop] <= settings[start]:
        yield Problem(f"{settings.place(stop)} is {settings[stop]}, but must be above `{start}` ({settings[start]}).")
    if settings[start] and settings[network]:
        yield Problem(f"{settings.place(start)} and `{network}` are both above 0, so the first steps train nothing.")
    if settings[stop] is not None and settings[network] > settings[stop]:
        yield Problem(
            f"{settings.place(network)} is {settings[network]}, after `{stop}` ({settings[stop]}): the steps between "
            "them train nothing."
        )
    if settings["max_train_epochs"] is None and settings[network] >= settings["max_train_steps"]:
        yield Problem(
            f"{settings.place(network)} is {settings[network]}, but the run has only {settings['max_train_steps']} "
            "steps."
        )


def averages_forget(settings: Settings) -> Iterator[Problem]:
    if settings["ema_decay"] == 1:
        yield Problem(
            f"{settings.place('ema_decay')} is 1, with which the average never leaves the start; 0.999 is usual."
        )


def flow_options_agree(settings: Settings) -> Iterator[Problem]:
    if settings["flow_model"] and settings["v_parameterization"]:
        yield Problem(
            f"{settings.place('v_parameterization')} cannot be used with `flow_model`, whose velocity is another one; "
            "leave it out."
        )
    for name in (option.name for option in settings.options.values() if option.positive):
        if settings[name] is not None and settings[name] <= 0:
            yield Problem(f"{settings.place(name)} is {settings[name]:g}, but must be above 0.")
    if settings["flow_use_ot"] and find_spec("scipy") is None:
        yield Problem(f"{settings.place('flow_use_ot')} needs the package scipy: `pip install scipy`, or leave it out.")
    sampler = settings["sample_sampler"]
    if settings["flow_model"] and settings["sample_prompts"] and sampler.removeprefix("k_") not in FLOW_SAMPLERS:
        yield Problem(
            f"{settings.place('sample_sampler')} = {sampler} does not draw with `flow_model`; "
            f"use {', '.join(FLOW_SAMPLERS[:-1])} or {FLOW_SAMPLERS[-1]}."
        )


def something_is_trained(settings: Settings) -> Iterator[Problem]:
    unet, text = "network_train_unet_only", "network_train_text_encoder_only"
    if settings[unet] and settings[text]:
        yield Problem(f"{settings.place(unet)} and {settings.place(text)} exclude each other; leave one of them out.")


def cached_text_encoder_is_not_trained(settings: Settings) -> Iterator[Problem]:
    cached, only = "cache_text_encoder_outputs", "network_train_unet_only"
    rates = settings["text_encoder_lr"]
    frozen = settings[only] or (rates is not None and not any(rates))
    if settings[cached] and not frozen:
        yield Problem(
            f"{settings.place(cached)} needs text encoders that do not change: set `{only}`, or do not cache them."
        )


def ranks_from_weights(settings: Settings) -> Iterator[Problem]:
    if settings["dim_from_weights"] and settings["network_weights"] is None:
        yield Problem(f"{settings.place('dim_from_weights')} needs `network_weights`: the file to take the ranks from.")


def multipliers_have_weights(settings: Settings) -> Iterator[Problem]:
    name = "base_weights_multiplier"
    given, files = settings[name] or [], settings["base_weights"] or []
    if len(given) > len(files):
        yield Problem(
            f"{settings.place(name)} has more numbers ({len(given)}) than `base_weights` has files ({len(files)})."
        )


def precisions_agree(settings: Settings) -> Iterator[Problem]:
    for name, precision in (("full_fp16", "fp16"), ("full_bf16", "bf16")):
        if settings[name] and settings["mixed_precision"] != precision:
            yield Problem(f"{settings.place(name)} needs `mixed_precision` = {precision!r}.")


def warm_up_fits(settings: Settings) -> Iterator[Problem]:
    if settings["max_train_epochs"] is not None or settings["max_train_steps"] is None:
        return  # how long the run is depends on the images
    for name, why in length_problems(settings.take(ScheduleSpec), settings["max_train_steps"]):
        yield Problem(settings.place(name) + why)


def the_optimizer_is_named_once(settings: Settings) -> Iterator[Problem]:
    if settings["use_8bit_adam"] and settings["use_lion_optimizer"]:
        yield Problem("`use_8bit_adam` and `use_lion_optimizer` exclude each other; write `optimizer_type` instead.")


def adaptive_rates_are_one(settings: Settings) -> Iterator[Problem]:
    if not known(settings["optimizer_type"]).finds_its_rate or settings["network_module"] is None:
        return
    rate = settings["learning_rate"]
    rates: set[float] = set()
    if not settings["network_train_text_encoder_only"]:
        rates.add(rate if settings["unet_lr"] is None else settings["unet_lr"])
    if not settings["network_train_unet_only"]:
        rates.update([rate] if settings["text_encoder_lr"] is None else settings["text_encoder_lr"])
    if len(rates - {0.0}) > 1:
        yield Problem(
            f"{settings.place('optimizer_type')} = {settings['optimizer_type']} finds one learning rate for all, but "
            f"{' and '.join(f'{rate:g}' for rate in sorted(rates))} are asked for: give `unet_lr`, `text_encoder_lr` "
            "and `learning_rate` the same value, usually 1."
        )


def schedules_have_their_numbers(settings: Settings) -> Iterator[Problem]:
    for name, why in schedule_problems(settings.take(ScheduleSpec)):
        yield Problem(settings.place(name) + why)
    name = settings["lr_scheduler"]
    of_adafactor = settings["optimizer_type"].lower().endswith("adafactor")
    if name == "adafactor" and not settings["lr_scheduler_type"] and not of_adafactor:
        yield Problem(f"{settings.place('lr_scheduler')} = {name} is only for `optimizer_type` = Adafactor.")


def timesteps_leave_a_range(settings: Settings) -> Iterator[Problem]:
    low, high = settings["min_timestep"] or 0, settings["max_timestep"] or 1000
    if low >= high:
        yield Problem(f"{settings.place('min_timestep')} is {low}, but must be below `max_timestep` ({high}).")


def huber_has_a_threshold(settings: Settings) -> Iterator[Problem]:
    if settings["loss_type"] in ("huber", "smooth_l1"):
        for name in ("huber_c", "huber_scale"):
            if settings[name] <= 0:
                yield Problem(
                    f"{settings.place(name)} is {settings[name]:g}, but must be above 0; 0.1 and 1 are usual."
                )


def resumed_state_exists(settings: Settings) -> Iterator[Problem]:
    state = settings["resume"]
    if state is not None and state != "latest" and not os.path.isdir(state):
        yield Problem(f"{settings.place('resume')}: {missing(Path(state))}")


def trackers_have_a_folder(settings: Settings) -> Iterator[Problem]:
    if settings["log_with"] in ("tensorboard", "all") and settings["logging_dir"] is None:
        yield Problem(
            f"{settings.place('log_with')} = {settings['log_with']!r} needs `logging_dir`: a folder for the logs."
        )


def datasets_are_described(settings: Settings) -> Iterator[Problem]:
    name = "dataset_class"
    if settings[name] is not None:
        yield Problem(
            f"{settings.place(name)}: a dataset class is written for sd-scripts' own loop and cannot feed this one; "
            "describe the images in a `dataset_config` instead."
        )


def model_draws_without_a_mask(settings: Settings) -> Iterator[Problem]:
    name = "train_inpainting"
    if settings[name]:
        yield Problem(
            f"{settings.place(name)}: inpainting models read a mask and a masked picture beside the noisy latents and "
            "are not trained here; take it out and give a model of 4 channels."
        )


CHECKS = (
    there_is_a_model,
    model_files_exist,
    other_files_exist,
    files_are_what_they_are_given_as,
    network_module_is_spelled_right,
    there_is_an_output_folder,
    there_is_something_to_train,
    a_new_word_is_complete,
    stages_leave_no_gap,
    averages_forget,
    flow_options_agree,
    something_is_trained,
    cached_text_encoder_is_not_trained,
    ranks_from_weights,
    multipliers_have_weights,
    precisions_agree,
    warm_up_fits,
    the_optimizer_is_named_once,
    adaptive_rates_are_one,
    schedules_have_their_numbers,
    timesteps_leave_a_range,
    huber_has_a_threshold,
    resumed_state_exists,
    trackers_have_a_folder,
    datasets_are_described,
    model_draws_without_a_mask,
)
