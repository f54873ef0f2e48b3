"""Which necks there are: every module of `policies/necks/` that names one as `NECK`."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from torch import nn

from embodied.core.errors import unknown_name
from embodied.core.extensions import import_part

PACKAGE = "embodied.policies.necks"


@cache
def neck_modules() -> dict[str, ModuleType]:
    """The module of every neck by its name, sorted."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    names = {path.stem for folder in spec.submodule_search_locations for path in Path(folder).glob("*.py")}
    modules = {name: import_part(f"{PACKAGE}.{name}") for name in sorted(names - {"registry", "__init__"})}
    return {name: module for name, module in modules.items() if hasattr(module, "NECK")}


def necks() -> dict[str, type[nn.Module]]:
    """The class of every neck by the name of its module, sorted; an instance has `output_dim`, values per moment."""
    return {name: module.NECK for name, module in neck_modules().items()}


def reads_vectors(name: str) -> bool:
    """Whether a neck reads `pooled` by default, not `tokens`: its module says `READS_VECTORS = True`."""
    return bool(getattr(neck_modules().get(name), "READS_VECTORS", False))


def fuses_history(name: str) -> bool:
    """Whether a neck makes one moment of the whole history: its module says `FUSES_HISTORY = True`."""
    return bool(getattr(neck_modules().get(name), "FUSES_HISTORY", False))


def load_neck(name: str) -> type[nn.Module]:
    """The class of the neck of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in necks():
        raise unknown_name("policy neck", name, necks())
    return necks()[name]
