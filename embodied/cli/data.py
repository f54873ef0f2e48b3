"""Import, look at, check, edit and export datasets.

embodied data <command> --help shows the settings of a command; stores are local folders, .zip files or s3://...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.cli.config import compose_config
from embodied.core.errors import UsageError, unknown_name

_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


@dataclass(frozen=True)
class DataVerb:
    """A command of `embodied data`: `embodied.cli.<module>.<function>(config, as_json) -> exit code`.

    Args:
        module, function: what runs.
        help, example: for people.
        positional: settings that arguments without a name fill, one after the other; the last takes all the rest.
        texts: settings whose value is taken as it stands, whatever characters it has.
        json: whether `--json` is known.
    """

    module: str
    function: str
    help: str
    example: str
    positional: tuple[str, ...] = ("store",)
    texts: tuple[str, ...] = ()
    json: bool = False


DATA_VERBS = {
    "import": DataVerb(
        "data_import",
        "run_import",
        "Import a dataset of another format into an episode store.",
        "path/to/dataset to=stores/mine",
        positional=("source", "to"),
        texts=("source", "to", "map", "map_file", "episodes"),
    ),
    "export": DataVerb(
        "data_export",
        "run_export",
        "Write an episode store in another format.",
        "stores/mine format=lerobot to=path/to/new",
        positional=("store", "to"),
        texts=("store", "to"),
    ),
    "info": DataVerb("data_inspect", "run_info", "Say what a store holds.", "stores/mine --json", json=True),
    "stats": DataVerb("data_inspect", "run_stats", "Statistics of every key.", "stores/mine --json", json=True),
    "validate": DataVerb(
        "data_inspect", "run_validate", "Read everything and name every damage.", "stores/mine", json=True
    ),
    "view": DataVerb(
        "data_view",
        "run_view",
        "Draw episodes: a contact sheet, a video, a Rerun recording.",
        "stores/mine episode=0",
        positional=("store", "to"),
        texts=("store", "to", "episode"),
    ),
    "merge": DataVerb(
        "data_edit",
        "run_merge",
        "Several stores as one.",
        "stores/a stores/b to=stores/both",
        positional=("stores",),
        texts=("to",),
    ),
    "split": DataVerb(
        "data_edit",
        "run_split",
        "One store as several, by episode.",
        "stores/mine fractions='{train: 0.8, val: 0.2}' to=stores/parts",
        positional=("store", "to"),
        texts=("store", "to"),
    ),
    "pack": DataVerb(
        "data_edit",
        "run_pack",
        "A store as one .zip file, readable in place.",
        "stores/mine to=mine.zip",
        positional=("store", "to"),
        texts=("store", "to"),
    ),
    "filter": DataVerb(
        "data_edit",
        "run_filter",
        "The part of a store that meets conditions.",
        "stores/mine success=true task='*drawer*' to=stores/good",
        positional=("store", "to"),
        texts=("store", "to", "task", "episodes"),
    ),
}


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied data`."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print_help()
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in DATA_VERBS:
        raise unknown_name("command of embodied data", name, DATA_VERBS)
    if "--help" in rest or "-h" in rest:
        print_verb_help(name)
        return 0
    verb = DATA_VERBS[name]
    as_json = verb.json and "--json" in rest
    overrides = to_overrides(verb, [argument for argument in rest if not (as_json and argument == "--json")])
    config = compose_config(f"data_{name}", overrides)
    run: Callable[..., int] = getattr(import_module(f"embodied.cli.{verb.module}"), verb.function)
    return run(config, as_json=as_json) if verb.json else run(config)


def to_overrides(verb: DataVerb, arguments: Sequence[str]) -> list[str]:
    """The arguments as settings in Hydra's grammar: paths without a name get one, and texts are quoted."""
    overrides: list[str] = []
    unnamed: list[str] = []
    for argument in arguments:
        if argument.startswith("-"):
            raise UsageError(f"unknown option {argument!r}: see embodied data --help")
        if not _SETTING.match(argument):
            unnamed.append(argument)
            continue
        name, value = argument.split("=", 1)
        if name in verb.texts and value not in ("null", ""):
            value = quoted(value)
        overrides.append(f"{'+' if name.startswith('options.') else ''}{name}={value}")
    if verb.positional == ("stores",):
        return overrides + ([f"stores=[{','.join(map(quoted, unnamed))}]"] if unnamed else [])
    if len(unnamed) > len(verb.positional):
        raise UsageError(f"{unnamed[-1]!r} is one path too many: write name=value, for example to={unnamed[-1]}")
    return overrides + [f"{name}={quoted(value)}" for name, value in zip(verb.positional, unnamed, strict=False)]


def quoted(value: str) -> str:
    """A value as a quoted string in Hydra's grammar; one that is quoted already stays."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def required_path(config: DictConfig, name: str, what: str) -> str:
    """The path in a setting that has no default.

    Raises:
        UsageError: it is not set.
    """
    value = config[name]
    if value is None or not str(value).strip():
        raise UsageError(f"{what}: {name}=path")
    return str(Path(value).expanduser()) if str(value).startswith("~") else str(value)


def format_options(config: DictConfig) -> dict[str, Any]:
    """The `options` of a format."""
    options = OmegaConf.to_container(config.options, resolve=True)
    assert isinstance(options, dict), type(options)
    return {str(name): value for name, value in options.items()}


def listed(config: DictConfig, name: str) -> list[str]:
    """A setting that is null, one text or several, as a list."""
    value = config[name]
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not OmegaConf.is_list(value):
        raise UsageError(f"{name} must be a text or a list, '[a,b]', got {value}")
    return [str(item) for item in value]


def print_help() -> None:
    """`embodied data --help`."""
    console = Console()
    console.print(f"[bold]embodied data[/]: {__doc__.splitlines()[0]}\n" if __doc__ else "", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, verb in DATA_VERBS.items():
        table.add_row(f"[bold cyan]{name}[/]", verb.help, f"[dim]embodied data {name} {escape(verb.example)}[/]")
    console.print(table)
    console.print(
        "\nA store is a local folder, a .zip file (read only) or s3://bucket/prefix."
        "\n[cyan]embodied data <command> --help[/] shows its settings; [cyan]embodied list formats[/] the formats.",
        highlight=False,
    )


def print_verb_help(name: str) -> None:
    """`embodied data <command> --help`: what the module says of it, and its settings."""
    from embodied.cli.listing import format_table
    from embodied.cli.main import print_settings

    verb, console = DATA_VERBS[name], Console()
    function = getattr(import_module(f"embodied.cli.{verb.module}"), verb.function)
    console.print(f"[bold]embodied data {name}[/]: {verb.help}\n", highlight=False)
    console.print(f"  embodied data {name} {verb.example}\n", highlight=False, markup=False)
    for paragraph in (function.__doc__ or "").split("\n\n")[1:]:
        console.print(" ".join(paragraph.split()) + "\n", highlight=False, markup=False)
    print_settings(console, f"data_{name}")
    if name == "import":
        console.print(format_table("import"))
    elif name == "export":
        console.print(format_table("export"))
