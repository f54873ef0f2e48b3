"""Transports by name: each is a module of this folder with a function `open_transport`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from embodied.core.errors import unknown_name
from embodied.core.extensions import import_part
from embodied.real_robot.transports.transport import Transport

PACKAGE = "embodied.real_robot.transports"
_FUNCTION = re.compile(r"^def open_transport\(", re.MULTILINE)


@cache
def transport_names() -> tuple[str, ...]:
    """What can be opened. Sources are searched, not imported: to read a robot's description takes no transport."""
    files = (file for folder in import_module(PACKAGE).__path__ for file in Path(folder).glob("*.py"))
    names = {file.stem for file in files if _FUNCTION.search(file.read_text(encoding="utf-8"))}
    return tuple(sorted(names - {"opening"}))


@cache
def transports() -> dict[str, Callable[..., Transport]]:
    """The functions that open them, by name."""
    return {name: import_part(f"{PACKAGE}.{name}").open_transport for name in transport_names()}


def open_transport(name: str, **options: Any) -> Transport:
    """Open a transport.

    Args:
        name: one of `transport_names()`: `dds`, `zenoh`, ...
        options: of that transport's own `open_transport`.

    Raises:
        UsageError: an unknown name or option.
        MissingExtraError: its library is not installed.
    """
    if name not in transport_names():
        raise unknown_name("transport", name, transport_names())
    function = transports()[name]
    valid = inspect.signature(function).parameters
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of transport {name}", option, valid)
    return function(**options)
