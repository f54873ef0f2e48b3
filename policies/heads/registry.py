"""Which action heads there are: every module of `policies/heads/` that names one as `HEAD`."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from embodied.core.errors import unknown_name
from embodied.core.extensions import import_part
from embodied.core.protocols import ActionHead

PACKAGE = "embodied.policies.heads"


@cache
def head_modules() -> dict[str, ModuleType]:
    """The module of every head by its name, sorted."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    names = {path.stem for folder in spec.submodule_search_locations for path in Path(folder).glob("*.py")}
    modules = {name: import_part(f"{PACKAGE}.{name}") for name in sorted(names - {"registry", "__init__"})}
    return {name: module for name, module in modules.items() if hasattr(module, "HEAD")}


def heads() -> dict[str, type[ActionHead]]:
    """The class of every head by the name of its module, sorted."""
    return {name: module.HEAD for name, module in head_modules().items()}


def load_head(name: str) -> type[ActionHead]:
    """The class of the head of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in heads():
        raise unknown_name("policy head", name, heads())
    return heads()[name]
