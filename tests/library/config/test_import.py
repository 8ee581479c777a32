"""Options are read before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

WITHOUT_TORCH = """
import sys
import library.config.checks, library.config.datasets, library.sampling.prompts
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.plugin_checks import plugin_problems
words = ["--optimizer_type=RAdam", "--lr_scheduler_type=StepLR", "--network_module=networks.lora"]
assert not plugin_problems(parse(words, *ALL_TRAIN_NETWORK, prog="", description=""))
heavy = {"torch", "numpy", "PIL", "cv2", "toml", "diffusers", "transformers"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


@pytest.mark.process
def test_reading_options_imports_neither_torch_nor_anything_else_that_is_heavy():
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
