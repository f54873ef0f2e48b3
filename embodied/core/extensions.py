"""Methods that live outside the package: folders laid out like it, named by the variable `EMBODIED_EXTENSIONS`.

    my_methods/policies/heads/mine.py        policy.head=mine
    my_methods/policies/necks/mine.py        policy.neck=mine
    my_methods/encoders/mine.py              artifacts of its class load
    my_methods/objectives/mine.py            with my_methods/conf/objective/mine.yaml: objective=mine
    my_methods/envs/suites/mine.py           with my_methods/conf/env/mine.yaml: env=mine
    my_methods/datasets/importers/mine.py    format=mine

A module of such a folder is imported under the package's own name, `embodied.policies.heads.mine`, so whatever is found
by its place in the package is found there too, and files that name it load wherever the folder is named. Of two modules
or settings of one name the package's own is taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from embodied.core.errors import UsageError, UserError

VARIABLE = "EMBODIED_EXTENSIONS"
PACKAGE = "embodied"
CONF = "conf"


def extensions() -> list[Path]:
    """The folders that the variable names, separated as in PATH, absolute."""
    named = (part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip())
    return [Path(part).expanduser().absolute() for part in named]


def extension_conf() -> list[Path]:
    """Their folders of settings."""
    return [folder / CONF for folder in extensions() if (folder / CONF).is_dir()]


def check_extensions() -> None:
    """Raises UsageError: a folder is not there, or holds no part that is laid out like the package."""
    for folder in extensions():
        if not folder.is_dir():
            raise UsageError(f"{VARIABLE}: no folder at {folder}")
        if not any(_places(folder)):
            raise UsageError(
                f"{VARIABLE}: {folder} holds nothing that is laid out like the package: expected policies/heads, "
                "policies/necks, encoders, objectives, envs/suites, datasets/importers, conf, ..."
            )


def import_part(module: str) -> ModuleType:
    """One of the modules that are found by their place, whoever wrote it.

    Raises:
        UserError: it cannot be imported; says which file it is, and why.
    """
    try:
        return import_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error


def install() -> None:
    """Let every package below `embodied` look into the extensions, too; again: nothing."""
    if extensions() and not any(isinstance(finder, _Extended) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Extended())


class _Extended(MetaPathFinder):
    """Finds packages where they are, and gives them the folders of the same place in the extensions."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.submodule_search_locations is not None:
            places = (folder.joinpath(*fullname.split(".")[1:]) for folder in extensions())
            own = [str(place) for place in places if place.is_dir()]
            spec.submodule_search_locations = [*spec.submodule_search_locations, *own]
        return spec


def _places(folder: Path) -> Iterator[Path]:
    """Folders of an extension that are folders of the package."""
    for parent in sys.modules[PACKAGE].__path__:
        for found in folder.iterdir():
            if found.is_dir() and (Path(parent) / found.name).is_dir():
                yield found
