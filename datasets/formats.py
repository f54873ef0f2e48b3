"""The formats that data comes in and goes out as: one module each in `importers/` and `exporters/`, found by FORMAT."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.extensions import import_part
from embodied.datasets.episode_source import EpisodeSource, Format
from embodied.datasets.store.episode_index import is_store

Direction = Literal["import", "export"]
DIRECTIONS: tuple[Direction, ...] = ("import", "export")
AUTO = "auto"

# Folders of pictures and films are part of many formats: they count only where nothing more telling is recognised.
_LAST_RESORT = frozenset({"images", "videos"})


def formats(direction: Direction) -> dict[str, Format]:
    """The formats that can be imported or exported, by name."""
    return {name: module.FORMAT for name, module in sorted(_modules(direction).items())}


def open_source(
    path: str, *, format: str = AUTO, options: Mapping[str, Any] | None = None
) -> tuple[str, EpisodeSource]:
    """Open foreign data for reading.

    Args:
        path: what the importer takes: a file, a folder, a pattern.
        format: one of `formats("import")`, or `auto` to recognise it.
        options: of the importer.

    Returns:
        The format's name and the opened source.

    Raises:
        UsageError: an unknown format or option, or a path that cannot be told.
        UserError: what the importer says.
    """
    modules = _modules("import")
    name = recognize(path) if format == AUTO else format
    if name not in modules:
        raise unknown_name("format", name, [AUTO, *modules])
    open_one: Callable[..., EpisodeSource] = modules[name].open_source
    return name, open_one(Path(path), **checked_options(open_one, options or {}, f"format={name}"))


def exporter(name: str) -> Callable[..., Any]:
    """The `export` function of a format."""
    modules = _modules("export")
    if name not in modules:
        raise unknown_name("format", name, modules)
    export: Callable[..., Any] = modules[name].export
    return export


def recognize(path: str) -> str:
    """The one format that recognises what is at `path`.

    Raises:
        UsageError: none does, or several do.
        UserError: there is nothing at `path`.
    """
    found = [name for name, format in formats("import").items() if format.recognizes(Path(path))]
    telling = [name for name in found if name not in _LAST_RESORT] or found
    if len(telling) == 1:
        return telling[0]
    if telling:
        raise UsageError(f"{path} may be {' or '.join(telling)}: say which with format=")
    if not Path(path).exists():
        raise UserError(f"there is no file or folder at {path}")
    if is_store(path):
        raise UsageError(f"{path} is an episode store already: embodied data info {path}")
    raise UsageError(f"the format of {path} is not recognised: say format=, one of {', '.join(formats('import'))}")


def checked_options(function: Callable[..., Any], options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The options, after checking that the function takes them and misses none."""
    takes = option_defaults(function)
    for name in options:
        if name not in takes:
            if not takes:
                raise UsageError(f"{owner} takes no options, got options.{name}")
            raise unknown_name(f"option of {owner}", name, takes)
    missing = [name for name, default in takes.items() if default is inspect.Parameter.empty and name not in options]
    if missing:
        raise UsageError(f"{owner} needs {', '.join(f'options.{name}=...' for name in missing)}")
    return dict(options)


def option_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only options of an importer or exporter and their defaults (`inspect.Parameter.empty`: it has none)."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "reporter"}


def described_options(direction: Direction, name: str) -> list[str]:
    """The options of a format with their defaults, as one writes them: `filter_key=null`."""
    module = _modules(direction)[name]
    defaults = option_defaults(module.open_source if direction == "import" else module.export)
    return [f"{option}={_as_written(default)}" for option, default in defaults.items()]


def _as_written(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "..."
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return f"[{','.join(map(str, default))}]" if isinstance(default, tuple | list) else str(default)


@cache
def _modules(direction: Direction) -> dict[str, ModuleType]:
    package = import_module(f"embodied.datasets.{direction}ers")
    modules = (import_part(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    return {module.FORMAT.name: module for module in modules if hasattr(module, "FORMAT")}
