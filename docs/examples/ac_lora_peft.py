"""AC-LoRA on adapters of PEFT: a tiny U-Net of diffusers and a tiny language model, trained, saved and loaded again.

    python docs/examples/ac_lora_peft.py

Everything is random and small, so that it takes seconds on a CPU. The three lines that belong into a training script of
your own are marked.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from networks.ac_lora_peft import ACLoRAAdapter

STEPS = 30


def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def train_unet() -> float:
    """diffusers: `add_adapter`, and tensors that its loaders read. Returns how far the loaded model is off."""
    model: Any = unet()
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "conv1"]))
    ac = ACLoRAAdapter(model, total_steps=STEPS, ac_mode="product", ac_every_n_steps=6)  # 1: attach
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    torch.manual_seed(1)
    for _ in range(STEPS):
        noisy, noise, text = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.randn(2, 5, 8)
        loss = (model(noisy, torch.tensor([10, 500]), text).sample - noise).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ac.step(loss)  # 2: tell the loss, as the last thing of a step
    fresh: Any = unet()
    fresh.load_lora_adapter(ac.tensors(), prefix=None)  # 3: a pipeline's save_lora_weights(unet_lora_layers=...)
    with torch.no_grad():
        inputs = (noisy, torch.tensor([10, 500]), text)
        return float((fresh(*inputs).sample - model(*inputs).sample).abs().max())


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def train_language_model(folder: str) -> float:
    """transformers: `get_peft_model`, and a folder that `PeftModel.from_pretrained` reads."""
    model: Any = get_peft_model(language_model(), LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    ac = ACLoRAAdapter(model, total_steps=STEPS, ac_mode="product", ac_every_n_steps=6)  # 1
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    tokens = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(1))
    for _ in range(STEPS):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ac.step(loss)  # 2
    ac.save(folder)  # 3
    loaded = PeftModel.from_pretrained(language_model(), folder)
    with torch.no_grad():
        return float((loaded(input_ids=tokens).logits - model(input_ids=tokens).logits).abs().max())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"the U-Net with its cut file is off by {train_unet():.1e}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"the language model with its cut folder is off by {train_language_model(folder):.1e}")


if __name__ == "__main__":
    main()
