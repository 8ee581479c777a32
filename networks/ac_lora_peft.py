"""AC-LoRA on a model whose LoRA comes from PEFT: diffusers' and transformers' training scripts, and any other loop.

    ac = ACLoRAAdapter(unet, total_steps=args.max_train_steps, ac_mode="product")   # just before the loop
    ...                                       # in the loop, as the last thing of a step
    ac.step(loss)
    ...                                       # at the end
    ac.save("out")                            # or ac.tensors() and ac.config() for a pipeline's save_lora_weights

The model has adapters already (`get_peft_model`, `add_adapter`): linear layers and convolutions with `lora_A` and
`lora_B`. A RESTART is made inside `step`, between two optimizer steps; what writes files or validates comes before. The
file is cut: its ranks are in `rank_pattern` and `alpha_pattern`, so that PEFT and diffusers load it. `state_dict` and
`load_state_dict` are what accelerate's `register_for_checkpointing` asks for.

Nothing of PEFT is imported: its layers are known by their parts.
"""

from __future__ import annotations

import collections
import json
import logging
import math
import os
from types import SimpleNamespace
from typing import Any, Mapping, Optional, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from networks.ac_lora import STATE_VERSION, ACLoRANetwork
from networks.ac_lora_export import cut_loras, scaled_to_one
from networks.ac_lora_observe import ObservedProgress, over_all_processes
from networks.ac_lora_options import read_options
from networks.ac_lora_products import reason_against
from networks.ac_lora_schedule import announcement, for_length

logger = logging.getLogger(__name__)
PEFT_PREFIX = "base_model.model."
"""Begins the names of a PeftModel's layers, but not those that its config has."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within what accelerate and torch wrap around it: its layers have the names that a file has."""
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = getattr(model, "_orig_mod", None) or cast(Any, model).module
    return model


def adapted_layers(model: nn.Module, adapter: str) -> list[SimpleNamespace]:
    """The layers of a model that have this adapter, as LoRA modules. ValueError where one is no product B A."""
    layers, adapters = [], set()
    layer: Any
    for path, layer in model.named_modules():
        own_adapters = layer.scaling if isinstance(getattr(layer, "lora_A", None), nn.ModuleDict) else {}
        adapters.update(own_adapters)
        if adapter not in own_adapters:
            continue
        reason = reason_against_layer(layer, adapter)
        if reason is None:
            down, up = layer.lora_A[adapter], layer.lora_B[adapter]
            own = {"lora_name": path, "lora_down": down, "lora_up": up}
            found = SimpleNamespace(**own, scale=layer.scaling[adapter], alpha=layer.lora_alpha[adapter])
            reason = reason_against(found)
            layers.append(found)
        if reason:
            raise ValueError(f"AC-LoRA works on (alpha / rank) B A, but {path} {reason}; use a plain LoraConfig")
    if not layers:
        known = f"its adapters are {', '.join(sorted(adapters))}" if adapters else "it has no adapter of LoRA"
        raise ValueError(f"no layer of this {type(model).__name__} has the LoRA adapter {adapter!r}: {known}")
    return layers


def reason_against_layer(layer: Any, adapter: str) -> Optional[str]:
    """What PEFT adds to a LoRA layer that makes its update something else than a scaled product."""
    if adapter in getattr(layer, "lora_magnitude_vector", {}):
        return "is a DoRA (use_dora)"
    if adapter in getattr(layer, "lora_embedding_A", {}) or adapter not in layer.lora_A:
        return "is an embedding or another kind of layer without lora_A"
    if adapter in getattr(layer, "lora_variant", {}):
        return f"is a variant of LoRA ({type(layer.lora_variant[adapter]).__name__})"
    if getattr(layer.lora_B[adapter], "bias", None) is not None:
        return "has a bias (lora_bias)"
    return None


class ACLoRAAdapter(ACLoRANetwork):
    """RESTARTs for one adapter of a model. `arguments` are the options of AC-LoRA, as in network_args."""

    def __init__(
        self,
        model: nn.Module,
        total_steps: Optional[int],
        total_epochs: Optional[int] = None,
        adapter: str = "default",
        **arguments: Any,
    ) -> None:
        options, rest = read_options({name: str(value) for name, value in arguments.items()})
        if rest or options.rank_pattern is not None:
            name = next(iter(rest), "rank_pattern")
            raise ValueError(f"{name} is not an option here: layers and ranks are those of the LoraConfig")
        if total_steps is None:
            raise ValueError(
                "total_steps is None, as max_train_steps of a script that has not counted its batches yet: attach "
                "AC-LoRA just before the loop"
            )
        self.model, self.adapter = unwrapped(model), adapter
        self.text_encoder_loras: list[Any] = []
        self.unet_loras: list[Any] = adapted_layers(self.model, adapter)
        self.begin(options)
        self.is_observing = False
        self.steps_done = 0
        self.total_steps = total_steps
        self.total_epochs = min(total_epochs or 10, total_steps)
        self._loss_sum: Any = 0.0  # on the device: nothing waits for it before a RESTART is due
        self._loss_count = 0
        if total_epochs is None and options.every_n_epochs is not None and not options.is_off:
            raise ValueError("ac_every_n_epochs counts epochs: give total_epochs, or use ac_every_n_steps")
        self.options = for_length(options, self.total_epochs, total_steps)
        for line in announcement(self.options, self.total_epochs, total_steps):
            logger.info(line)

    # --- training

    def step(self, loss: Any, synced: bool = True) -> Optional[dict[str, Any]]:
        """The loss of a batch, after its backward pass and optimizer step; the event of a RESTART if one was made.

        Under accumulation this is called for each part, with `synced=accelerator.sync_gradients`.
        """
        self._loss_sum = self._loss_sum + (loss.detach() if isinstance(loss, Tensor) else loss)
        self._loss_count += 1
        if not synced:
            return None
        self.steps_done += 1
        per_epoch = math.ceil(self.total_steps / self.total_epochs)
        every = self.options.every_n_steps
        if self.steps_done % (every or per_epoch):
            return None
        sums = over_all_processes(float(self._loss_sum), self._loss_count, self.matrices()[0].down.device)
        self._loss_sum, self._loss_count = 0.0, 0
        epochs = self.steps_done // per_epoch
        event = self.progressed(
            ObservedProgress(
                epochs, self.total_epochs, self.steps_done, self.total_steps, sums[0], sums[0], int(sums[1])
            )
        )
        if event:
            logger.info(
                f"AC-LoRA RESTART {event['restart']} after step {event['step']}: p {event['p']:.3f}, mean rank "
                f"{event['mean_rank']:.1f}, kept energy {event['kept_energy']:.3f}"
            )
        return event

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """All that a resumed run needs beside the model and the optimizer."""
        return {
            "version": STATE_VERSION, "restarts": self.restarts, "window": dict(self.window),
            "epochs_seen": self.epochs_seen, "steps_done": self.steps_done, "loss_sum": float(self._loss_sum),
            "loss_count": self._loss_count,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # type: ignore[override]
        if state["version"] != STATE_VERSION:
            raise ValueError(f"this state of AC-LoRA is of version {state['version']}, not {STATE_VERSION}")
        self.restarts, self.window = list(state["restarts"]), dict(state["window"])
        self.epochs_seen, self.steps_done = state["epochs_seen"], state["steps_done"]
        self._loss_sum, self._loss_count = state["loss_sum"], state["loss_count"]

    # --- files

    def tensors(self) -> dict[str, Tensor]:
        """The cut adapter by the names of PEFT's files, `lora_A.weight` and `lora_B.weight` of each layer.

        alpha is the rank of each layer: also who reads no config computes the same update.
        """
        out = {}
        for name, (down, up) in self._cut().items():
            out[f"{name}.lora_A.weight"], out[f"{name}.lora_B.weight"] = down, up
        return out

    def config(self) -> dict[str, Any]:
        """The adapter's config for the cut tensors; also the `unet_lora_adapter_metadata` of diffusers."""
        peft_config: Any = self.model.peft_config
        given = peft_config[self.adapter]
        config = {name: sorted(v) if isinstance(v, set) else v for name, v in given.to_dict().items()}
        ranks = {name.removeprefix(PEFT_PREFIX): down.shape[0] for name, (down, _) in self._cut().items()}
        # PEFT takes the first pattern that a layer's name ends with: longer ones come before their own ends.
        pattern = dict(sorted(ranks.items(), key=lambda item: -item[0].count(".")))
        usual = collections.Counter(ranks.values()).most_common(1)[0][0]
        return {**config, "r": usual, "lora_alpha": usual, "rank_pattern": pattern, "alpha_pattern": dict(pattern)}

    def save(self, folder: str) -> None:
        """`adapter_model.safetensors` and `adapter_config.json`, as `PeftModel.from_pretrained` reads them."""
        config = self.config()
        if config.get("modules_to_save"):
            raise ValueError("modules_to_save is not in the file of AC-LoRA: save these modules by themselves")
        os.makedirs(folder, exist_ok=True)
        tensors = self.tensors()
        if not any(name.startswith(PEFT_PREFIX) for name in tensors):
            tensors = {f"{PEFT_PREFIX}{name}": tensor for name, tensor in tensors.items()}
        weights, description = (os.path.join(folder, f"adapter_{name}") for name in ("model", "config"))
        save_file(tensors, f"{weights}.tmp.safetensors", {"format": "pt"})
        with open(f"{description}.tmp.json", "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2, sort_keys=True, default=str)
        os.replace(f"{weights}.tmp.safetensors", f"{weights}.safetensors")
        os.replace(f"{description}.tmp.json", f"{description}.json")

    @torch.no_grad()
    def _cut(self) -> dict[str, tuple[Tensor, Tensor]]:
        loras = self.unet_loras
        if self.options.export.kind == "full":
            pairs = {lora.lora_name: [(lora.lora_down.weight.cpu(), lora.lora_up.weight.cpu())] for lora in loras}
        else:
            found = {name: rank for name, rank in self.restarts[-1]["ranks"].items() if rank} if self.restarts else {}
            pairs = cut_loras(loras, self.options.export, found)
        return scaled_to_one(pairs, loras)
