"""A pivot put together from its settings, out of the pieces that every training of this house is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.config.option import Settings
from library.config.values import split_key_values
from library.diffusion.noise import NoiseSpec
from library.errors import UserError
from library.training.assemble import assemble, build_optimizers, check_rates, check_room, check_surroundings
from library.training.build import SAVED_AS
from library.training.clock import Clock
from library.training.description import fingerprint, optimizer_text
from library.training.footing import Footing, stand
from library.training.memory import MemorySpec, choose_attention, place
from library.training.module import ModuleTrainable
from library.training.network import NetworkSpec, NetworkTrainable, create_network, optimizer_groups
from library.training.plugins import check_arguments, import_plugin
from library.training.run import Run
from library.training.schedules import parse_arguments
from library.training.sources import VaeEncoder
from library.training.state import read_position
from library.training.trainables import Trainable
from restoration.batches import Latents, RestorationBatches
from restoration.budget import budget, count_of
from restoration.cleaner import load_cleaner
from restoration.faces import Face, about_number, find_faces
from restoration.load import Restorer, load_restorer
from restoration.objective import Restoration, text_timesteps
from restoration.options import TEXT, degradation_of
from restoration.person import People, Person, base_mark, class_prompt_of, give_weights, read_person
from restoration.previews import build_previews
from restoration.prior import draw_prior, prior_folder
from restoration.sampling import lowest_noise_timesteps
from restoration.system import System

DECISIVE = (
    *("pretrained_model_name_or_path", "controlnet_model_name_or_path", "cleaner", "prompt", "class_prompt", "pivot"),
    *("seed", "mixed_precision", "learning_rate", "prior_loss_weight", "in_context", "high_noise_text", "gamma"),
    *("min_timestep", "max_timestep", "train_batch_size", "degradation", "optimizer_type", "optimizer_args"),
    *("max_grad_norm", "lr_scheduler", "lr_warmup_steps", "network_module", "network_dim", "network_alpha"),
    *("network_args", "network_dropout", "resolution"),
)
FILES = {"text": "_G", "model": "_E"}
"""What is added to `output_name` for the file, the log and the states of a pivot."""


@dataclass
class Pictures:
    """What a pivot learns from."""

    faces: list[Face]
    prior: list[Face] = field(default_factory=list)
    people: dict[str, Path] = field(default_factory=dict)
    """Each person's G_p, where step 2 has several."""


def settings_of(settings: Settings, pivot: str) -> Settings:
    """The settings with a pivot's own learning rate, steps and file name under the names that every training reads."""
    own = {name: settings[f"{pivot}_{name}"] for name in ("learning_rate", "max_train_steps")}
    name = (settings["output_name"] or "person") + FILES[pivot]
    return replace(settings, values=settings.values | own | {"output_name": name, "pivot": pivot})


def person_file(settings: Settings) -> Path:
    """The G_p that step 2 and restoring use."""
    given = settings["unet_weights"]
    return given or settings["output_dir"] / f"{settings['output_name'] or 'person'}{FILES['text']}.safetensors"


def build_pivot(settings: Settings, pivot: str, say: Callable[[str], None]) -> Run:
    """The run of one pivot, ready for the loop. `settings` are those of the whole command."""
    file_of_g = person_file(settings)
    settings = settings_of(settings, pivot)
    resumed = check_surroundings(settings, say)
    check_rates(settings, settings["max_train_steps"])
    footing = stand(settings, resumed.fingerprint, say)
    processes = footing.processes
    restorer = load_restorer(
        settings["pretrained_model_name_or_path"],
        settings["controlnet_model_name_or_path"],
        prediction_type="v_prediction" if settings["v_parameterization"] else None,
        zero_terminal_snr=settings["zero_terminal_snr"],
        tokenizer_cache_dir=settings["tokenizer_cache_dir"],
    )
    system, model = restorer.system, restorer.system.model
    person = person_of(settings, base_mark(model.unet))
    side = settings["resolution"] or model.native_size
    pictures = find_pictures(settings, pivot, restorer, person, side, footing, say)
    people = People(model, pictures.people)
    if pivot != TEXT and not pictures.people:
        give_weights(model, file_of_g)

    trainable = build_trainable(settings, pivot, system, footing, say)
    check_room(settings["output_dir"], [trainable])
    texts = {face.prompt: system.text([face.prompt])[0] for face in [*pictures.faces, *pictures.prior]}
    latents = Latents(
        VaeEncoder(model, processes.device),
        load_cleaner(settings["cleaner"], processes.device, restorer.cleaner),
        degradation_of(settings).for_size(side),
        model.scaling_factor,
        side,
        footing.seed,
    )
    batches = RestorationBatches(
        pictures.faces,
        pictures.prior,
        latents,
        texts,
        seed=footing.seed,
        batch_size=settings["train_batch_size"],
        geometry=footing.geometry,
        prior_loss_weight=settings["prior_loss_weight"],
    )
    clock = Clock(batches.steps_per_epoch, settings["max_train_steps"])
    first = _position(resumed.folder)
    if settings["cache_conditions"]:
        latents.prepare(batches.visits(first, clock.total_steps), processes.is_main)
    place(model, processes.device, vae=not settings["cache_conditions"], text_encoders=False)
    freeze(system, trainable, footing)

    optimizers, notes = build_optimizers(settings, [trainable], clock, processes)
    for line in [*restorer.notes, *notes, *describe(settings, pivot, system, trainable, pictures, footing)]:
        say(line)
    options: dict[str, Any] = settings.values | {"seed": footing.seed}
    header = {
        "ss_base_model_version": "sd_v2" if model.family.value == "sd2" else "sd_v1",
        "ss_network_module": str(settings["network_module"] or "") if pivot == TEXT else "",
        "ss_optimizer": optimizer_text(
            optimizers.optimizer, parse_arguments(settings["optimizer_args"] or (), "optimizer_args")
        ),
        "pivot_kind": pivot,
        "pivot_in_context": str(settings["in_context"]),
    }
    return assemble(
        settings,
        footing,
        resumed,
        objective=build_objective(settings, pivot, system, footing, people),
        trainables=[trainable],
        batches=batches,
        clock=clock,
        optimizers=optimizers,
        metadata=metadata_writer(settings, person, pictures, header, footing),
        fingerprint=fingerprint(options, DECISIVE, model, footing.geometry)
        | {"pictures": [face.sample_id for face in [*pictures.faces, *pictures.prior]]},
        previews=build_previews(settings, system, latents, pictures.faces, person.prompt, processes.device),
    )


def person_of(settings: Settings, base: str) -> Person:
    """The person as the options describe them."""
    prompt, token = settings["prompt"], settings["token"]
    class_prompt = class_prompt_of(prompt, token)
    return Person(prompt, settings["class_prompt"] or class_prompt, token, settings["gamma"], base)


def find_pictures(
    settings: Settings,
    pivot: str,
    restorer: Restorer,
    person: Person,
    side: int,
    footing: Footing,
    say: Callable[[str], None],
) -> Pictures:
    """What the pivot learns from: the references with the person's prompt, or for step 2 what the options name."""
    if pivot != TEXT and settings["identities"]:
        return _several_people(split_key_values(settings["identities"]), side)
    if pivot != TEXT and settings["train_data_dir"]:
        # Pictures of nobody in particular: G_p is told so.
        return Pictures(find_faces(settings["train_data_dir"], "train_data_dir", person.class_prompt, side))
    faces = find_faces(settings["reference_dir"], "reference_dir", person.prompt, side)
    for line in about_number(faces):
        say(line)
    if pivot != TEXT or not settings["prior_loss_weight"]:
        return Pictures(faces)
    folder = settings["reg_data_dir"]
    if folder is None:
        folder = prior_folder(settings["output_dir"], person.class_prompt)
        model = restorer.system.model
        if footing.processes.is_main:
            place(model, footing.processes.device, vae=True, text_encoders=True)
            with torch.no_grad(), footing.precision.autocast():
                draw_prior(model, person.class_prompt, folder, settings["num_class_images"], side, say)
        footing.processes.wait()
    return Pictures(faces, find_faces(folder, "reg_data_dir", person.class_prompt, side))


def build_trainable(
    settings: Settings, pivot: str, system: System, footing: Footing, say: Callable[[str], None]
) -> Trainable:
    """G, a network on G, or E; on its device, with attention and checkpointing as the options ask."""
    memory, device, dtype = settings.take(MemorySpec), footing.processes.device, SAVED_AS[settings["save_precision"]]
    for module in (system.unet, system.encoder):
        if line := choose_attention(module, memory, device):
            say(line)
    if memory.gradient_checkpointing:
        system.unet.enable_gradient_checkpointing()
        if pivot != TEXT:
            system.encoder.enable_gradient_checkpointing()
    if pivot == TEXT and settings["network_module"]:
        return _network_on_g(settings, system, footing, say)
    name, module = ("unet", system.unet) if pivot == TEXT else ("condition_encoder", system.encoder)
    kind = "unet" if pivot == TEXT else "controlnet"
    trainable = ModuleTrainable(name, module, settings["learning_rate"], kind=kind, save_dtype=dtype)
    nn.Module.to(module, device)
    return trainable


def _network_on_g(settings: Settings, system: System, footing: Footing, say: Callable[[str], None]) -> NetworkTrainable:
    module = import_plugin(settings["network_module"], "network_module", ("create_network",))
    arguments = split_key_values(settings["network_args"])
    check_arguments(module, arguments, "network_args")
    torch.manual_seed(footing.seed % 2**63)
    spec = replace(settings.take(NetworkSpec), network_train_unet_only=True)
    network = create_network(module, spec, arguments, system.model, settings.namespace(), say)
    groups, names = optimizer_groups(network, None, settings["learning_rate"], settings["learning_rate"])
    network.to(device=footing.processes.device)
    return NetworkTrainable(
        network,
        groups,
        names,
        system.model,
        footing.processes.device,
        save_dtype=SAVED_AS[settings["save_precision"]],
        scale_weight_norms=spec.scale_weight_norms,
    )


def freeze(system: System, trainable: Trainable, footing: Footing) -> None:
    """What is not trained goes to the device in the precision of the forward pass."""
    device, dtype = footing.processes.device, footing.precision.dtype
    trained = {id(parameter) for parameter in trainable.parameters}
    for module in (system.unet, system.encoder):
        if not any(id(parameter) in trained for parameter in module.parameters()):
            nn.Module.to(module.requires_grad_(False), device=device, dtype=dtype)


def build_objective(settings: Settings, pivot: str, system: System, footing: Footing, people: People) -> Restoration:
    low, high = settings["min_timestep"], settings["max_timestep"]
    if pivot == TEXT:
        return Restoration(
            system,
            footing.processes.device,
            noise=text_timesteps(settings["gamma"], low, high),
            in_context=settings["in_context"],
        )
    null = lowest_noise_timesteps(settings["gamma"]) if settings["high_noise_text"] == "null" else None
    return Restoration(
        system,
        footing.processes.device,
        noise=NoiseSpec(min_timestep=low, max_timestep=high),
        trains_encoder=True,
        null_above=null,
        before=people.show,
    )


def describe(
    settings: Settings, pivot: str, system: System, trainable: Trainable, pictures: Pictures, footing: Footing
) -> list[str]:
    """What will be trained on what, and what it needs, for people to read before it begins."""
    trained = trainable.parameters
    number = sum(tensor.numel() for tensor in trained)
    frozen = count_of(system.unet) + count_of(system.encoder) - (number if not settings["network_module"] else 0)
    low, high = settings["min_timestep"] or 0, settings["max_timestep"]
    high = high or (lowest_noise_timesteps(settings["gamma"]) if pivot == TEXT else 1000)
    others = [m for m in (system.unet, system.encoder) if all(p is not q for p in m.parameters() for q in trained[:1])]
    needed = budget(
        trained,
        others,
        eight_bit="8bit" in (settings["optimizer_type"] or "").lower(),
        half=footing.precision.dtype != torch.float32,
    )
    prior = f" and {len(pictures.prior)} of the prior" if pictures.prior else ""
    return [
        f"step {1 if pivot == TEXT else 2} ({pivot} pivot): {len(pictures.faces)} pictures{prior}; "
        f"{number:,} parameters are trained, {frozen:,} frozen; timesteps {low} to {high - 1}",
        f"this needs {needed}",
    ]


def metadata_writer(
    settings: Settings, person: Person, pictures: Pictures, header: Mapping[str, str], footing: Footing
) -> Callable[[Clock, str], dict[str, str]]:
    """The header of a file: kohya's names where kohya has them, and the person's."""
    started = time.time()

    def metadata(clock: Clock, kind: str) -> dict[str, str]:
        facts = {
            "ss_output_name": settings["output_name"],
            "ss_sd_model_name": Path(settings["pretrained_model_name_or_path"]).name,
            "ss_session_id": footing.session,
            "ss_seed": footing.seed,
            "ss_training_started_at": started,
            "ss_training_finished_at": time.time(),
            "ss_steps": clock.global_step,
            "ss_max_train_steps": clock.total_steps,
            "ss_epoch": clock.epochs_done,
            "ss_learning_rate": settings["learning_rate"],
            "ss_num_train_images": len(pictures.faces),
            "ss_num_reg_images": len(pictures.prior),
            "ss_mixed_precision": settings["mixed_precision"],
        }
        return {name: str(value) for name, value in facts.items()} | dict(header) | person.header()

    return metadata


def _several_people(files: Mapping[str, str], side: int) -> Pictures:
    """`identities`: folders of references, each with its person's file of step 1, which has the prompt."""
    faces: list[Face] = []
    people: dict[str, Path] = {}
    for folder, file in files.items():
        known = read_person(Path(file))
        if known is None:
            raise UserError(f"`identities`: '{file}' does not say whose it is; give a file that step 1 has written")
        faces += find_faces(Path(folder), "identities", known.prompt, side, person=folder)
        people[folder] = Path(file)
    return Pictures(faces, people=people)


def _position(state: Path | None) -> int:
    return read_position(state) if state else 0
