"""The contract of network modules as types says what the host calls, and the page for authors names all of it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from library.training.trained.network_contract import Network, OptionalOfModule, OptionalOfNetwork, offered

MANUAL = Path(__file__).resolve().parents[4] / "docs" / "network_modules.md"
TRAINED = Path(inspect.getfile(Network)).parent
HOST = (TRAINED / "network.py", TRAINED / "network_trainable.py", TRAINED.parents[1] / "files.py")


def methods(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("protocol", [OptionalOfNetwork, OptionalOfModule])
def test_the_page_for_authors_names_every_optional_method(protocol: type):
    page = MANUAL.read_text(encoding="utf-8")
    assert [name for name in methods(protocol) if not re.search(rf"`{name}[(`]", page)] == []


@pytest.mark.parametrize("protocol", [Network, OptionalOfNetwork])
def test_the_host_calls_every_method_of_the_contract(protocol: type):
    host = "".join(file.read_text(encoding="utf-8") for file in HOST)
    assert [name for name in methods(protocol) if f".{name}" not in host] == []


def test_what_is_no_method_is_not_offered():
    class Odd:
        announce = "a text"

        def conclude(self) -> None: ...

    odd = Odd()
    assert offered(odd, OptionalOfNetwork.announce) is None
    assert offered(odd, OptionalOfNetwork.findings) is None
    assert offered(odd, OptionalOfNetwork.conclude) == odd.conclude
