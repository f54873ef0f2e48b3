"""Commands of a command, such as `embodied data import`: their arguments, their help, and running them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.cli.config import compose_config
from embodied.core.errors import UsageError, unknown_name

_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


@dataclass(frozen=True)
class Subcommand:
    """A command of a group: `embodied.cli.<module>.<function>(config) -> exit code`, with `as_json` where it is known.

    Args:
        module, function: what runs.
        help, example: for people.
        positional: settings that arguments without a name fill, one after the other; `stores` takes all of them.
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


@dataclass(frozen=True)
class Group:
    """`embodied <name> <command>`.

    Args:
        help: one line.
        commands: by name; the settings of one are in `conf/<name>_<command>.yaml`, with `_` for `-`.
        footer: below the list of commands.
        more_help: tables below the help of a command.
    """

    name: str
    help: str
    commands: Mapping[str, Subcommand]
    footer: str
    more_help: Callable[[str], list[Any]] = lambda name: []


def run_group(group: Group, arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, or show help; the exit code.

    Raises:
        UsageError: an unknown command, option or setting.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        _print_group(group)
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in group.commands:
        raise unknown_name(f"command of embodied {group.name}", name, group.commands)
    if "--help" in rest or "-h" in rest:
        _print_command(group, name)
        return 0
    command = group.commands[name]
    as_json = command.json and "--json" in rest
    overrides = to_overrides(command, [argument for argument in rest if not (as_json and argument == "--json")])
    config = compose_config(_config(group, name), overrides)
    run: Callable[..., int] = getattr(import_module(f"embodied.cli.{command.module}"), command.function)
    return run(config, as_json=as_json) if command.json else run(config)


def to_overrides(command: Subcommand, arguments: Sequence[str]) -> list[str]:
    """The arguments as settings in Hydra's grammar: values without a name get one, and texts are quoted."""
    overrides: list[str] = []
    unnamed: list[str] = []
    for argument in arguments:
        if argument.startswith("-"):
            known = "--help, --json and --debug" if command.json else "--help and --debug"
            raise UsageError(f"unknown option {argument!r}: options are {known}; settings are name=value")
        if not _SETTING.match(argument):
            unnamed.append(argument)
            continue
        name, value = argument.split("=", 1)
        if name in command.texts and value not in ("null", ""):
            value = quoted(value)
        overrides.append(f"{'+' if name.startswith('options.') else ''}{name}={value}")
    if command.positional == ("stores",):
        return overrides + ([f"stores=[{','.join(map(quoted, unnamed))}]"] if unnamed else [])
    if len(unnamed) > len(command.positional):
        if not command.positional:
            raise UsageError(f"{unnamed[0]!r} is not a setting: write name=value")
        raise UsageError(f"{unnamed[-1]!r} is one path too many: write name=value, for example to={unnamed[-1]}")
    return overrides + [f"{name}={quoted(value)}" for name, value in zip(command.positional, unnamed, strict=False)]


def quoted(value: str) -> str:
    """A value as a quoted string in Hydra's grammar; one that is quoted already stays."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _config(group: Group, name: str) -> str:
    return f"{group.name}_{name.replace('-', '_')}"


def _print_group(group: Group) -> None:
    """`embodied <group> --help`."""
    console = Console()
    console.print(f"[bold]embodied {group.name}[/]: {group.help}\n", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, command in group.commands.items():
        example = escape(f"embodied {group.name} {name} {command.example}")
        table.add_row(f"[bold cyan]{name}[/]", command.help, f"[dim]{example}[/]")
    console.print(table)
    console.print(f"\n{group.footer}", highlight=False)


def _print_command(group: Group, name: str) -> None:
    """`embodied <group> <command> --help`: what the function says of it, and its settings."""
    from embodied.cli.main import print_settings

    command, console = group.commands[name], Console()
    function = getattr(import_module(f"embodied.cli.{command.module}"), command.function)
    console.print(f"[bold]embodied {group.name} {name}[/]: {command.help}\n", highlight=False)
    console.print(f"  embodied {group.name} {name} {command.example}\n", highlight=False, markup=False)
    for paragraph in (function.__doc__ or "").split("\n\n")[1:]:
        console.print(" ".join(paragraph.split()) + "\n", highlight=False, markup=False)
    print_settings(console, _config(group, name))
    for table in group.more_help(name):
        console.print(table)
