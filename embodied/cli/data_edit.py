"""`embodied data merge`, `split`, `filter` and `pack`: new stores from old ones."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from embodied.cli.config import positive
from embodied.cli.data import listed, required_path
from embodied.cli.episode_numbers import episode_numbers
from embodied.cli.frames_reporter import FramesReporter
from embodied.core.errors import UsageError
from embodied.datasets.editing import copy_part, merge, select, split_episodes
from embodied.datasets.storage.location import pack
from embodied.datasets.store.episode_store import EpisodeStore

_PARTS = ("train", "val", "test")


def run_merge(config: DictConfig) -> int:
    """Copy the episodes of several stores into one, in their order.

    They must have the same keys, with the same dtypes and shapes, and the same frames per second. The same command goes
    on after an interruption.
    """
    console = Console()
    stores = listed(config, "stores")
    if not stores:
        raise UsageError("which stores? embodied data merge stores/a stores/b to=stores/both")
    to = required_path(config, "to", "where to write the merged store?")
    _announce(console, to)
    merge([EpisodeStore.open(path) for path in stores], to, reporter=FramesReporter(console))
    _describe(console, to)
    return 0


def run_split(config: DictConfig) -> int:
    """Divide the episodes of a store into disjoint stores <to>/<part>.

    With fractions= at random (seed=), with episodes= by number. The same command goes on after an interruption.
    """
    console = Console()
    path = required_path(config, "store", "which store?")
    store = EpisodeStore.open(path)
    if (config.fractions is None) == (config.episodes is None):
        raise UsageError("how to split? fractions='{train: 0.8, val: 0.2}' or episodes='{train: 0:80, val: 80:100}'")
    if config.fractions is not None:
        parts = split_episodes(store, fractions(config.fractions), seed=int(config.seed))
        settings: dict[str, Any] = {"fractions": fractions(config.fractions), "seed": int(config.seed)}
    else:
        parts = numbered_parts(config.episodes, len(store))
        settings = {"numbers": parts}
    to = required_path(config, "to", "where to write the parts?").rstrip("/")
    for name, numbers in parts.items():
        target = f"{to}/{name}"
        _announce(console, target)
        made = {"verb": "split", "part": name, **settings}
        copy_part(store, target, episodes=numbers, settings=made, reporter=FramesReporter(console))
        _describe(console, target)
    return 0


def run_filter(config: DictConfig) -> int:
    """Copy the episodes of a store that meet every condition, and the keys that are wanted.

    The same command goes on after an interruption.
    """
    console = Console()
    path = required_path(config, "store", "which store?")
    store = EpisodeStore.open(path)
    positive(config, "min_length", *(["max_length"] if config.max_length is not None else []))
    if not isinstance(config.success, bool | None):
        raise UsageError(f"success must be true or false, got {config.success!r}")
    numbers = None if config.episodes is None else episode_numbers(config.episodes, len(store))
    conditions = {"success": config.success, "task": config.task, "min_length": config.min_length}
    conditions["max_length"] = config.max_length
    chosen = select(store, episodes=numbers, **conditions)
    keys = listed(config, "keys") or None
    to = required_path(config, "to", "where to write the filtered store?")
    made = {"verb": "filter", **conditions, "numbers": numbers, "keys": keys}
    _announce(console, to)
    copy_part(store, to, episodes=chosen, keys=keys, settings=made, reporter=FramesReporter(console))
    _describe(console, to)
    return 0


def run_pack(config: DictConfig) -> int:
    """Write a store to one .zip file, to hand on or to keep.

    The file is read in place wherever a store is; appending needs the store itself.
    """
    console = Console()
    path = required_path(config, "store", "which store?")
    to = required_path(config, "to", "which file to write?")
    _announce(console, to)
    pack(path, to, reporter=FramesReporter(console))
    _describe(console, to)
    return 0


def fractions(value: object) -> dict[str, float]:
    """`{train: 0.8, val: 0.2}`; a bare list names its parts train, val and test.

    Raises:
        UsageError: it is neither.
    """
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(plain, list) and 1 <= len(plain) <= len(_PARTS):
        plain = dict(zip(_PARTS, plain, strict=False))
    if not isinstance(plain, dict) or not all(
        isinstance(part, int | float) and not isinstance(part, bool) for part in plain.values()
    ):
        raise UsageError(f"fractions must be like '{{train: 0.8, val: 0.2}}' or [0.8,0.2], got {plain}")
    return {part_name(name): float(part) for name, part in plain.items()}


def numbered_parts(value: object, count: int) -> dict[str, list[int]]:
    """`{train: 0:80, val: [80:90,95]}` as episode numbers.

    Raises:
        UsageError: it is not like that, or two parts share an episode.
    """
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if not isinstance(plain, dict) or not plain:
        raise UsageError(f"episodes must be like '{{train: 0:80, val: 80:100}}', got {plain}")
    parts = {part_name(name): episode_numbers(part, count, setting=f"episodes.{name}") for name, part in plain.items()}
    owner: dict[int, str] = {}
    for name, numbers in parts.items():
        for number in numbers:
            if number in owner:
                raise UsageError(f"episodes: episode {number} is in {owner[number]} and in {name}: give it to one")
            owner[number] = name
    return parts


def part_name(name: object) -> str:
    """The name of a part, which becomes that of a folder."""
    text = str(name)
    if not text or "/" in text or text.startswith("."):
        raise UsageError(f"{text!r} cannot be the name of a part: write one like train")
    return text


def _announce(console: Console, to: str) -> None:
    console.print(f"writes to [bold]{escape(to)}[/]", highlight=False, soft_wrap=True)


def _describe(console: Console, to: str) -> None:
    store = EpisodeStore.open(to)
    console.print(
        f"[green]✓[/] {len(store)} episodes, {store.num_frames:,} frames: [bold]{escape(to)}[/]",
        highlight=False,
        soft_wrap=True,
    )
