"""Names of a network and of its file, both ways. That names, shapes, ranks, alphas, blocks and parameter groups are
those of sd-scripts is compared in tests/golden_table/networks.py."""

from __future__ import annotations

from typing import Any

import pytest

from library.adapters.names import from_file_names, to_file_names
from networks.lora_arguments import block_index
from tests.golden_table.comparison import read_golden
from tests.golden_table.networks import full_size, network_on

BLOCKS = read_golden("lora_keys_block_dims.json.gz")


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_names_come_back_from_the_file(name: str):
    model = full_size(name)
    own = [module.lora_name for module in network_on(model, 1, 1, conv_dim="1").loras]
    in_file = to_file_names({f"{key}.lora_up.weight": key for key in own}, model)
    assert from_file_names(in_file, model) == {f"{key}.lora_up.weight": key for key in own}
    assert to_file_names(in_file, model) == in_file  # the file's own names stay


@pytest.mark.parametrize("example", [e for e in BLOCKS["examples"] if e["block_index"]], ids=lambda e: e["family"])
def test_a_module_of_either_naming_is_in_the_same_block(example: dict):
    is_sdxl = example["family"] == "sdxl"
    own = from_file_names(example["block_index"], full_size(example["family"]))
    assert {name: block_index(name, is_sdxl) for name in own} == own
    assert not is_sdxl or not set(own) & set(example["block_index"])  # diffusers' names are others


@pytest.mark.parametrize("case", BLOCKS["odd_arguments"], ids=lambda c: f"{c['family']}-{list(c['network_args'])}")
def test_odd_block_arguments_are_refused_by_name(case: dict):
    arguments: dict[str, Any] = case["network_args"]
    if "raises" in case or list(arguments) in (["block_alphas"], ["conv_block_dims"]):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} (needs|has no effect)"):
            network_on(full_size(case["family"]), 4, 1, **arguments)
