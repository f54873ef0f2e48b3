"""Transports by name: each is a module of this folder with a function `open_transport`."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from embodied.core.errors import unknown_name
from embodied.real_robot.transports.transport import Transport


@cache
def transports() -> dict[str, Callable[..., Transport]]:
    """What can be opened, by name."""
    package = import_module("embodied.real_robot.transports")
    names = (found.name for found in pkgutil.iter_modules(package.__path__) if found.name != "opening")
    modules = {name: import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module.open_transport for name, module in modules.items() if hasattr(module, "open_transport")}


def open_transport(name: str, **options: Any) -> Transport:
    """Open a transport.

    Args:
        name: `dds`, `zenoh`, `memory`, `bag`; a key of `transports()`.
        options: of that transport's own `open_transport`.

    Raises:
        UsageError: an unknown name or option.
        MissingExtraError: its library is not installed.
    """
    if name not in transports():
        raise unknown_name("transport", name, transports())
    function = transports()[name]
    valid = inspect.signature(function).parameters
    for option in options:
        if option not in valid:
            raise unknown_name(f"option of transport {name}", option, valid)
    return function(**options)
