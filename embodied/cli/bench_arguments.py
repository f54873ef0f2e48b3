"""Arguments of the verbs that read benchmarks: some without a name, the others `name=value`."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console

from embodied.cli.config import command, compose_config
from embodied.cli.data import DataVerb, to_overrides
from embodied.core.errors import UsageError


def compose_sub_verb(
    name: str, arguments: Sequence[str], *, positional: tuple[str, ...], about: str | None, beside: str | None = None
) -> DictConfig | None:
    """The settings of `embodied/conf/<name>.yaml`.

    Args:
        name: of the yaml file.
        arguments: of the command line.
        positional: settings that arguments without a name fill, and that must be there.
        about: the text of `--help`.
        beside: the yaml file whose settings it takes too, for the help.

    Returns:
        None when help was asked for and has been printed.

    Raises:
        UsageError: an argument is unknown, malformed or missing.
    """
    if "--help" in arguments or "-h" in arguments:
        _print_help(name, positional, about, beside)
        return None
    unknown = [argument for argument in arguments if argument.startswith("-")]
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}: see {command(name)} --help")
    verb = DataVerb("", "", "", "", positional=positional, texts=(*positional, "folder", "to", "baseline"))
    config = compose_config(name, to_overrides(verb, arguments))
    for setting in positional:
        if config[setting] is None:
            raise UsageError(f"{setting} is missing: {command(name)} {' '.join(item.upper() for item in positional)}")
    return config


def _print_help(name: str, positional: tuple[str, ...], about: str | None, beside: str | None) -> None:
    from embodied.cli.main import print_settings

    console = Console()
    shown = " ".join(item.upper() for item in positional)
    console.print(f"[bold]{command(name)}[/] {shown}\n\n{(about or '').strip()}\n", highlight=False)
    for each in (name, beside):
        if each is not None:
            print_settings(console, each)
