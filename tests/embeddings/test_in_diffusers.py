"""A trained embedding in the hands of diffusers: its own loader reads it, and it draws what our own sampler draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from safetensors.torch import load_file, save_file

from library.models.embedding_files import Embedding, read_embedding, write_embedding
from library.models.family import Family
from library.models.load import load_model
from library.models.placeholders import ExpandingConditioner, Placeholders
from library.models.save import save_folder
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from miniworld.tiny import build

MINI = Path(__file__).parents[2] / "miniworld" / "model"
PROMPT = "a photo of zwx, red background"
STEPS = 4


def ours(folder: Path, vectors: list[torch.Tensor] | None, side: int) -> np.ndarray:
    model = load_model(folder)
    placeholders = Placeholders(model, "zwx", 2)
    for rows, own in zip(placeholders.rows, vectors or [], strict=False):
        rows.rows = own
    prompt = SamplePrompt(PROMPT, seed=3, scale=4.0, sample_steps=STEPS, width=side, height=side)
    (picture,) = generate(model, ExpandingConditioner(model, placeholders), [prompt], sampler="ddim")
    return np.asarray(picture).astype(int)


def pipeline_of(folder: Path) -> Any:
    pipeline: Any = DiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: Any, side: int) -> np.ndarray:
    seed = torch.Generator().manual_seed(3)
    answer = pipeline(PROMPT, height=side, width=side, num_inference_steps=STEPS, guidance_scale=4.0, generator=seed)
    return np.asarray(answer.images[0]).astype(int)


def test_an_embedding_trained_on_the_mini_model_draws_the_same_picture_in_diffusers(train, tmp_path):
    options = {"network_module": None, "network_dim": None, "pretrained_model_name_or_path": MINI}
    options |= {"token_string": "zwx", "num_vectors_per_token": 2, "embedding_initializer": "embeddings.cross_init"}
    options |= {"initializer_args": [f"names={MINI / 'names.txt'}"], "caption_template": "a photo of {}"}
    assert train(**options, embedding_lr=0.08, max_train_steps=2) == 0
    file = tmp_path / "out" / "t.safetensors"
    pipeline = pipeline_of(MINI)
    pipeline.load_textual_inversion(str(file), token="zwx")
    mine = ours(MINI, [load_file(file)["emb_params"]], 128)
    assert np.abs(mine - drawn(pipeline, 128)).max() <= 1
    assert np.abs(mine - ours(MINI, None, 128)).max() > 10


def test_sdxl_s_two_files_draw_the_same_picture_in_diffusers(tmp_path):
    model = build(Family.SDXL, seed=4)
    model.vae.decoder.conv_out.weight.mul_(8)  # random weights draw grey pictures
    save_folder(model, tmp_path / "sdxl")
    generator = torch.Generator().manual_seed(1)
    rows = [5 * torch.randn(2, width, generator=generator) for width in (32, 40)]
    both = Embedding({"clip_l": rows[0], "clip_g": rows[1]}, "zwx")
    first, second = write_embedding(tmp_path / "learned_embeds.safetensors", both, "diffusers")
    pipeline = pipeline_of(tmp_path / "sdxl")
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)  # the negative prompt is encoded as it is
    pipeline.load_textual_inversion(str(first), text_encoder=pipeline.text_encoder, tokenizer=pipeline.tokenizer)
    pipeline.load_textual_inversion(str(second), text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2)
    mine = ours(tmp_path / "sdxl", rows, 64)
    assert np.abs(mine - drawn(pipeline, 64)).max() <= 1
    assert np.abs(mine - ours(tmp_path / "sdxl", None, 64)).max() > 10


def test_what_diffusers_refuses_to_read_loads_after_conversion(tmp_path):
    """A file of single vectors with numbered names."""
    from embeddings.commands.convert import convert

    rows = torch.randn(2, 128, generator=torch.Generator().manual_seed(2))
    torch.save({"xq_v0": rows[0], "xq_v1": rows[1]}, tmp_path / "learned_embeds.bin")
    convert([str(tmp_path / "learned_embeds.bin"), str(tmp_path / "xq.safetensors"), "--layout", "diffusers"])
    pipeline = pipeline_of(MINI)
    pipeline.load_textual_inversion(str(tmp_path / "xq.safetensors"))
    ids = pipeline.tokenizer.convert_tokens_to_ids(["xq", "xq_1"])
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], rows)
    assert torch.equal(read_embedding(tmp_path / "xq.safetensors").vectors["emb_params"], rows)


def test_a_file_that_diffusers_wrote_is_read_with_its_token(tmp_path):
    save_file({"<cat-toy>": torch.ones(3, 8)}, tmp_path / "learned_embeds.safetensors")
    embedding = read_embedding(tmp_path / "learned_embeds.safetensors")
    assert (embedding.token, embedding.count) == ("<cat-toy>", 3)
