"""Import, look at, check, edit and export datasets.

embodied data <command> --help shows the settings of a command; stores are local folders, .zip files or s3://...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.cli.subcommands import Group, run_group
from embodied.cli.subcommands import Subcommand as DataVerb
from embodied.cli.subcommands import quoted as quoted
from embodied.cli.subcommands import to_overrides as to_overrides
from embodied.core.errors import UsageError

DATA_VERBS = {
    "import": DataVerb(
        "data_import",
        "run_import",
        "Import a dataset of another format into an episode store.",
        "path/to/dataset to=stores/mine",
        positional=("source", "to"),
        texts=("source", "to", "map", "map_file", "episodes", "robot"),
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
    group = Group(
        "data",
        (__doc__ or "").splitlines()[0],
        DATA_VERBS,
        "A store is a local folder, a .zip file (read only) or s3://bucket/prefix."
        "\n[cyan]embodied data <command> --help[/] shows its settings; [cyan]embodied list formats[/] the formats.",
        more_help=_formats,
    )
    return run_group(group, arguments)


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


def _formats(name: str) -> list[Any]:
    """The tables of formats below the help of import and export."""
    from embodied.cli.listing import format_table

    if name == "import":
        return [format_table("import")]
    return [format_table("export")] if name == "export" else []
