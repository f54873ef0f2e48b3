"""Which necks there are: every module of `policies/necks/` that names one as `NECK`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from embodied.core.errors import unknown_name

PACKAGE = "embodied.policies.necks"


@cache
def necks() -> dict[str, type[nn.Module]]:
    """The class of every neck by the name of its module, sorted; an instance has `output_dim`, values per moment."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    names = {path.stem for folder in spec.submodule_search_locations for path in Path(folder).glob("*.py")}
    modules = {name: import_module(f"{PACKAGE}.{name}") for name in sorted(names - {"registry"})}
    return {name: module.NECK for name, module in modules.items() if hasattr(module, "NECK")}


def load_neck(name: str) -> type[nn.Module]:
    """The class of the neck of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in necks():
        raise unknown_name("policy neck", name, necks())
    return necks()[name]
