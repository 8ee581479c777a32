"""Arguments of optimizers and schedulers: `name=value` with Python literals."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from library.bounded_text import shortened
from library.errors import UserError


def parse_arguments(arguments: Sequence[str], option: str) -> dict[str, Any]:
    """`key=value` strings with Python literals as values, as kohya writes `optimizer_args`; raises `UserError`."""
    parsed = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        shown = shortened(repr(argument))
        if not equals or not key.strip().isidentifier():
            raise UserError(f"`{option}` has {shown}; write key=value, for example weight_decay=0.01")
        value = value.strip()
        if value.endswith(",") and value[:1] not in ("(", "["):
            raise UserError(f"`{option}` has {shown}: leave out the comma at its end, which makes a list of it")
        try:
            parsed[key.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise UserError(
                f"`{option}` has {shown}, whose value is not a Python literal; "
                "write numbers, True, False, None, (0.9, 0.99) or 'text in quotes'"
            ) from None
    return parsed
