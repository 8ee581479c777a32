"""Jobs on the resident tiny model: nothing of one reaches the next."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from library.batch.engines.assignment import FAULT, NO_ROOM, OUT_OF_MEMORY
from library.batch.jobs.ledger import BY_USER, STOPPED
from library.batch.model_cache import checksums, shared_copy
from library.batch.training import outcome_of
from library.errors import Interrupted, UserError


def weights(path: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


METHODS = """
network_dropout = 0.3
[methods.ac]
network_module = "networks.ac_lora"
network_dim = 3
network_args = ["ac_mode=product", "ac_every_n_steps=1"]
"""


def test_jobs_on_one_loaded_model_are_bit_identical_to_each_alone(batch, monkeypatch):
    from library.batch import training
    from train_network import main

    trainers = []
    made = training.TrainerHere
    monkeypatch.setattr(training, "TrainerHere", lambda: trainers.append(made()) or trainers[-1])
    batch.write(more=METHODS)
    assert batch.run("--only", "three-*", "two-lora-s1") == 0
    assert len(batch.states()) == 3
    assert set(batch.states().values()) == {"done"}
    assert trainers[0].models.loads == 1
    for name in ("three-ac-s1", "two-lora-s1"):  # all of them: tests.benchmarks.batch_alone
        alone = batch.folder / "alone" / name
        assert main(["--config_file", str(batch.ledger.config(name)), "--output_dir", str(alone)]) == 0
        ours, theirs = (weights(folder / f"{name}.safetensors") for folder in (batch.output / name, alone))
        assert ours == theirs
    assert batch.ledger.read("two-lora-s1").results["median_rank"] == 2


def test_lycoris_forgets_the_preset_of_the_job_before(batch):
    """Its classes keep the preset of the last network."""
    first = '[methods.a]\nnetwork_module = "lycoris.kohya"\nnetwork_dim = 2\n'
    first += 'network_args = ["algo=lokr", "preset=unet-only"]\n'
    second = first.replace(".a]", ".b]").replace("preset=unet-only", "preset=unet-transformer-only")
    batch.write(more=first + second, steps=1)
    assert batch.run("--only", "one-[ab]-s1") == 0
    from train_network import main

    alone = batch.folder / "alone"
    assert main(["--config_file", str(batch.ledger.config("one-b-s1")), "--output_dir", str(alone)]) == 0
    ours, theirs = (weights(f / "one-b-s1.safetensors") for f in (batch.output / "one-b-s1", alone))
    assert ours == theirs


def test_a_dataset_of_unreadable_pictures_alone_fails_and_names_one(batch, styles):
    for picture in (styles / "two" / "1_sks").glob("*.png"):
        picture.write_bytes(b"no picture")
    assert batch.run("--only", "two*") == 3
    record = batch.ledger.read("two-lora-s1")
    assert (record.state, len(record.attempts)) == ("failed", 1)
    assert record.last is not None
    assert f"{styles}/two/1_sks/2.png" in record.last.message


def test_a_job_that_changes_the_base_weights_costs_a_second_load_and_no_other_job(batch, tmp_path, monkeypatch):
    from library.batch import training
    from train_network import main

    batch.write(steps=1)
    assert batch.run("--only", "one*") == 0
    merged = tmp_path / "merged.safetensors"
    (batch.output / "one-lora-s1" / "one-lora-s1.safetensors").rename(merged)
    trainers = []
    made = training.TrainerHere
    monkeypatch.setattr(training, "TrainerHere", lambda: trainers.append(made()) or trainers[-1])
    more = f'[[override]]\nmatch = {{ dataset = "three" }}\nset = {{ base_weights = ["{merged}"] }}\n'
    batch.write(more=more, steps=1)
    assert batch.run("--only", "t*") == 0
    assert trainers[0].models.loads == 2
    alone = tmp_path / "alone"
    assert main(["--config_file", str(batch.ledger.config("two-lora-s1")), "--output_dir", str(alone)]) == 0
    ours, theirs = (weights(f / "two-lora-s1.safetensors") for f in (batch.output / "two-lora-s1", alone))
    assert ours == theirs


def test_a_copy_shares_the_weights_and_nothing_that_is_done_to_its_modules(tiny_model):
    from library.models.load import load_model

    model = load_model(tiny_model)
    before = checksums(model)
    copied = shared_copy(model)
    ours, theirs = (next(iter(m.unet.modules())) for m in (model, copied))
    layer = copied.unet.conv_in
    layer.forward = lambda input: input
    copied.unet.register_forward_hook(lambda *_: None)
    copied.tokenizers[0].add_tokens(["newword"])
    assert "forward" not in vars(model.unet.conv_in)
    assert not ours._forward_hooks
    assert theirs._forward_hooks
    assert len(copied.tokenizers[0]) == len(model.tokenizers[0]) + 1
    pairs = zip(model.unet.parameters(), copied.unet.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    assert checksums(model) == before
    with torch.no_grad():
        next(copied.unet.parameters()).view(-1)[0] += 1e-6
    assert checksums(model) != before


def test_the_model_as_it_is_leaves_pictures_and_a_validation_loss(batch, tmp_path):
    prompts = tmp_path / "one.txt"
    prompts.write_text("a red circle --w 64 --h 64 --s 2 --d 5\n", encoding="utf-8")
    more = "[methods.base]\ntrain = false\n"
    batch.write(more=more, batch=f'sample_prompts = "{tmp_path}/{{dataset}}.txt"', base="validation_split = 0.5\n")
    for name in ("two", "three"):
        prompts.with_stem(name).write_text(prompts.read_text(encoding="utf-8"), encoding="utf-8")
    assert batch.run("--only", "one-base-s1") == 0
    record = batch.ledger.read("one-base-s1")
    assert record.results["validation_loss"] > 0
    assert [output["path"].split("_")[-1] for output in record.outputs] == ["5.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on the size of files is POSIX'")
def test_a_full_disk_is_no_mistake_of_the_job_and_leaves_what_was_there(batch):
    import resource

    batch.write(steps=1)
    kept = batch.output / "one-lora-s1" / "one-lora-s1.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"an older file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))  # bytes: a record fits, weights do not
    try:
        assert batch.run("--only", "one*") == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    record = batch.ledger.read("one-lora-s1")
    assert [attempt.exit for attempt in record.attempts] == [NO_ROOM, NO_ROOM]
    assert "there is no room left on the disk" in record.attempts[0].message
    assert kept.read_bytes() == b"an older file"
    assert not list(batch.output.rglob(".*.tmp-*"))
    assert batch.run("--only", "one*", "--retry", "failed") == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("no"), BY_USER),
        (ValueError("a bug"), FAULT),
        (OSError(28, "No space left on device"), NO_ROOM),
        (torch.OutOfMemoryError("CUDA out of memory"), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY),
        (Interrupted(signal.SIGINT), STOPPED),
    ],
)
def test_whose_doing_an_error_is(error, kind):
    assert outcome_of(error).error_class == kind
