"""A pivot put together from its settings, out of the pieces that every training of this house is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from library.adapters.metadata import ModelFacts
from library.config.option import Settings
from library.config.values import split_key_values
from library.diffusion.noise import NoiseSpec
from library.errors import UserError
from library.files import file_hash
from library.training.assemble import assemble, build_optimizers, check_rates, check_room, check_surroundings
from library.training.build import SAVED_AS
from library.training.clock import Clock
from library.training.description import digest_of_weights, fingerprint, optimizer_text
from library.training.footing import Footing, stand
from library.training.memory import MemorySpec, choose_attention, place
from library.training.module import ModuleTrainable
from library.training.network import NetworkSpec, NetworkTrainable, create_network, optimizer_groups
from library.training.opening import images_event
from library.training.optimizers import OptimizerSpec
from library.training.plugins import check_arguments, import_plugin
from library.training.run import Run
from library.training.sources import VaeEncoder
from library.training.states import read_position
from library.training.stopwatch import Stopwatch
from library.training.trainables import Trainable
from restoration.batches import Latents, RestorationBatches
from restoration.budget import budget, count_of
from restoration.cleaner import load_cleaner
from restoration.faces import Face, about_number, find_faces
from restoration.load import Restorer, load_restorer
from restoration.objective import Restoration, text_timesteps
from restoration.options import TEXT, degradation_of
from restoration.person import People, Person, base_mark, class_prompt_of, give_weights, read_person
from restoration.pivot import DECISIVE, MARK, decided_by, person_file, settings_of
from restoration.previews import build_previews
from restoration.prior import draw_prior, prior_folder
from restoration.sampling import lowest_noise_timesteps
from restoration.system import System


@dataclass
class Pictures:
    """What a pivot learns from."""

    faces: list[Face]
    prior: list[Face] = field(default_factory=list)
    people: dict[str, Path] = field(default_factory=dict)
    """Each person's G_p, where step 2 has several."""


def build_pivot(settings: Settings, pivot: str, say: Callable[[str], None]) -> Run:
    """The run of one pivot, ready for the loop. `settings` are those of the whole command."""
    file_of_g, mark = person_file(settings), decided_by(settings, pivot)
    settings = settings_of(settings, pivot)
    plugin = network_plugin(settings) if pivot == TEXT and settings["network_module"] else None
    resumed = check_surroundings(settings, say)
    check_rates(settings, settings["max_train_steps"])
    footing = stand(settings, resumed.fingerprint, say)
    processes, stopwatch = footing.processes, Stopwatch()
    with stopwatch.during("load"):
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

    trainable = build_trainable(settings, pivot, system, plugin, footing, say)
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
        with stopwatch.during("cache"):
            latents.prepare(batches.visits(first, clock.total_steps), processes.is_main)
    place(model, processes.device, vae=not settings["cache_conditions"], text_encoders=False)
    freeze(system, trainable, footing)

    optimizers, notes = build_optimizers(settings, [trainable], clock, processes)
    for line in [*restorer.notes, *notes, *describe(settings, pivot, system, trainable, pictures, footing)]:
        say(line)
    options: dict[str, Any] = settings.values | {"seed": footing.seed}
    base = ModelFacts(model.family.value, model.prediction_type == "v_prediction", str(model.source))
    header: dict[str, str] = {
        "ss_base_model_version": base.version,
        "ss_network_module": str(settings["network_module"] or "") if pivot == TEXT else "",
        "ss_optimizer": optimizer_text(optimizers.optimizer, settings.take(OptimizerSpec).arguments),
        "pivot_kind": pivot,
        "pivot_in_context": str(settings["in_context"]),
    }

    def written_mark() -> dict[str, str]:
        """A pivot that moved nothing is never taken for a finished one."""
        return {MARK: mark} if trainable.findings().moved else {}

    return assemble(
        settings,
        footing,
        resumed,
        objective=build_objective(settings, pivot, system, footing, people),
        trainables=[trainable],
        batches=batches,
        clock=clock,
        optimizers=optimizers,
        metadata=metadata_writer(settings, person, pictures, header, footing, written_mark),
        fingerprint=fingerprint(options, DECISIVE, model, footing.geometry)
        | {
            "weights of E": digest_of_weights([system.encoder]) if pivot == TEXT else None,
            "pictures": [(face.sample_id, file_hash(face.path)) for face in [*pictures.faces, *pictures.prior]],
        },
        previews=build_previews(settings, system, latents, pictures.faces, person.prompt, processes.device),
        opening=[images_event([(face.path, face.prompt) for face in pictures.faces])],
        stopwatch=stopwatch,
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


def network_plugin(settings: Settings) -> ModuleType:
    """The module of a network on G, its arguments checked."""
    module = import_plugin(settings["network_module"], "network_module", ("create_network",), settings["config_file"])
    check_arguments(module, split_key_values(settings["network_args"]), "network_args")
    return module


def build_trainable(
    settings: Settings,
    pivot: str,
    system: System,
    plugin: ModuleType | None,
    footing: Footing,
    say: Callable[[str], None],
) -> Trainable:
    """G, a network by the plugin on G, or E; on its device, with attention and checkpointing as the options ask."""
    memory, device, dtype = settings.take(MemorySpec), footing.processes.device, SAVED_AS[settings["save_precision"]]
    for module in (system.unet, system.encoder):
        if line := choose_attention(module, memory, device):
            say(line)
    if memory.gradient_checkpointing:
        system.unet.enable_gradient_checkpointing()
        if pivot != TEXT:
            system.encoder.enable_gradient_checkpointing()
    if plugin is not None:
        return _network_on_g(settings, system, plugin, footing, say)
    name, module = ("unet", system.unet) if pivot == TEXT else ("condition_encoder", system.encoder)
    kind = "unet" if pivot == TEXT else "controlnet"
    trainable = ModuleTrainable(name, module, settings["learning_rate"], kind=kind, save_dtype=dtype)
    nn.Module.to(module, device)
    return trainable


def _network_on_g(
    settings: Settings, system: System, plugin: ModuleType, footing: Footing, say: Callable[[str], None]
) -> NetworkTrainable:
    torch.manual_seed(footing.seed % 2**63)
    spec = replace(settings.take(NetworkSpec), network_train_unet_only=True)
    arguments = split_key_values(settings["network_args"])
    network = create_network(plugin, spec, arguments, system.model, settings.namespace(), say)
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
    for module in untrained(system, trainable):
        nn.Module.to(module.requires_grad_(False), device=device, dtype=dtype)


def untrained(system: System, trainable: Trainable) -> list[nn.Module]:
    """Which of G and E keep all their weights."""
    trained = {id(parameter) for parameter in trainable.parameters}
    modules: tuple[nn.Module, ...] = (system.unet, system.encoder)
    return [module for module in modules if not any(id(parameter) in trained for parameter in module.parameters())]


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
    others = untrained(system, trainable)
    low, high = settings["min_timestep"] or 0, settings["max_timestep"]
    high = high or (lowest_noise_timesteps(settings["gamma"]) if pivot == TEXT else 1000)
    needed = budget(
        trained,
        others,
        eight_bit="8bit" in (settings["optimizer_type"] or "").lower(),
        half=footing.precision.dtype != torch.float32,
    )
    prior = f" and {len(pictures.prior)} of the prior" if pictures.prior else ""
    return [
        f"step {1 if pivot == TEXT else 2} ({pivot} pivot): {len(pictures.faces)} pictures{prior}; "
        f"{number:,} parameters are trained, {sum(map(count_of, others)):,} frozen; timesteps {low} to {high - 1}",
        f"this needs {needed}",
    ]


def metadata_writer(
    settings: Settings,
    person: Person,
    pictures: Pictures,
    header: Mapping[str, str],
    footing: Footing,
    mark: Callable[[], dict[str, str]],
) -> Callable[[Clock, str], dict[str, str]]:
    """The header of a file: kohya's names where kohya has them, the person's, and `mark` as it is then."""
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
        return {name: str(value) for name, value in facts.items()} | dict(header) | person.header() | mark()

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
