"""`embodied data info`, `stats` and `validate`: what a store holds, and whether it is whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.cli.data import listed, required_path
from embodied.datasets.editing import chosen_keys
from embodied.datasets.storage.location import open_storage
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.store.store_validation import validate_store

_ELEMENTS_SHOWN = 64  # of a key in the table of statistics; --json has all
_TASKS_SHOWN = 10
_NAMES_SHOWN = 4


def run_info(config: DictConfig, *, as_json: bool) -> int:
    """Say what a store holds.

    --json prints it for machines: episodes, frames, keys with dtype, shape, codec and names, fps, robot, tasks, bytes,
    schema, fingerprint and provenance.
    """
    path = required_path(config, "store", "which store?")
    facts = store_facts(EpisodeStore.open(path), path)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        show_info(Console(), facts)
    return 0


def run_stats(config: DictConfig, *, as_json: bool) -> int:
    """Show the statistics that a store keeps.

    Vectors have them per element over all frames; images per channel (0 to 255), over frames and pixels evenly spaced.
    """
    path = required_path(config, "store", "which store?")
    store = EpisodeStore.open(path)
    found = {key: store.statistics(key) for key in chosen_keys(store, listed(config, "keys") or None)}
    if as_json:
        lists = {key: {name: array.tolist() for name, array in values.items()} for key, values in found.items()}
        print(json.dumps(lists, indent=2))
    else:
        show_statistics(Console(), store, found)
    return 0


def run_validate(config: DictConfig, *, as_json: bool) -> int:
    """Read every chunk of a store and compare it with the checksums taken when it was written.

    Every damage is named with its episode, key, chunk and file. The exit code is 0 when there is none, else 1.
    """
    path = required_path(config, "store", "which store?")
    console = Console()
    found = []
    for damage in validate_store(path):  # which also reads a store whose index is damaged
        found.append(damage)
        if not as_json:
            console.print(f"[red]damaged[/] {escape(str(damage))}", highlight=False, soft_wrap=True)
    if as_json:
        names = ("episode", "key", "chunk", "path", "reason")
        rows = [{name: getattr(damage, name) for name in names} for damage in found]
        print(json.dumps(rows, indent=2, default=str))
    elif found:
        console.print(
            f"[red]{len(found)} damages[/] in {escape(path)}: restore those files from a copy",
            highlight=False,
            soft_wrap=True,
        )
    else:
        store = EpisodeStore.open(path)
        console.print(f"[green]✓[/] {len(store)} episodes, {store.num_frames:,} frames are whole: {escape(path)}")
    return int(bool(found))


def store_facts(store: EpisodeStore, path: str) -> dict[str, Any]:
    """What `embodied data info --json` prints."""
    storage = open_storage(path)
    results = Counter(info.success for info in store.episodes)
    lengths = store.lengths
    return {
        "path": path,
        "schema": store.schema,
        "fingerprint": store.fingerprint(),
        "episodes": len(store),
        "frames": store.num_frames,
        "seconds": store.num_frames / store.fps,
        "fps": store.fps,
        "robot": store.robot,
        "lengths": {"min": min(lengths), "median": median(lengths), "max": max(lengths)} if lengths else None,
        "success": {"true": results[True], "false": results[False], "unknown": results[None]},
        "tasks": dict(Counter(info.task for info in store.episodes).most_common()),
        "keys": {
            key: {"dtype": spec.dtype, "shape": list(spec.shape), "codec": spec.codec, "names": list(spec.names)}
            for key, spec in store.keys.items()
        },
        "bytes": sum(storage.size(name) or 0 for name in storage.list("")),
        "provenance": dict(store.provenance),
    }


def show_info(console: Console, facts: Mapping[str, Any]) -> None:
    """The same for people."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in summary_rows(facts):
        table.add_row(name, escape(value))
    console.print(
        f"[bold]{escape(facts['path'])}[/]: episode store, schema {facts['schema']}", highlight=False, soft_wrap=True
    )
    console.print(table, highlight=False)
    keys = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("key", "frame", "codec", "names"):
        keys.add_column(title, overflow="fold")
    for key, spec in facts["keys"].items():
        frame = f"{spec['dtype']} [{', '.join(map(str, spec['shape']))}]"
        keys.add_row(escape(key), escape(frame), spec["codec"], escape(names_text(spec["names"])))
    console.print()
    console.print(keys, highlight=False)


def names_text(names: Sequence[str]) -> str:
    """The names of a vector's elements, cut where there are many."""
    more = f", ... ({len(names)}; --json shows all)" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def summary_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the facts that fit on a line."""
    counts = facts["success"]
    known = [f"{counts[name]} {word}" for name, word in (("true", "successful"), ("false", "failed")) if counts[name]]
    lengths = facts["lengths"]
    rows = [("episodes", f"{facts['episodes']}" + (f" ({', '.join(known)})" if known else ""))]
    span = f", {lengths['min']} to {lengths['max']} per episode, median {lengths['median']:g}" if lengths else ""
    rows.append(("frames", f"{facts['frames']:,} ({facts['seconds']:,.1f} s at {facts['fps']:g} frames/s){span}"))
    if facts["robot"]:
        rows.append(("robot", facts["robot"]))
    tasks = [f"{task!r} ({count})" for task, count in facts["tasks"].items()]
    more = f", and {len(tasks) - _TASKS_SHOWN} more" if len(tasks) > _TASKS_SHOWN else ""
    rows.append(("tasks", ", ".join(tasks[:_TASKS_SHOWN]) + more))
    rows.append(("size", size_text(facts["bytes"])))
    rows.append(("made by", origin_text(facts["provenance"])))
    planned = facts["provenance"].get("edit", {}).get("episodes", facts["episodes"])
    if planned != facts["episodes"]:
        rows.append(("incomplete", f"{planned} episodes are meant to be here: run the command that made it again"))
    rows.append(("fingerprint", facts["fingerprint"]))
    return rows


def origin_text(provenance: Mapping[str, Any]) -> str:
    """One line of where the episodes come from."""
    if "import" in provenance:
        made = provenance["import"]
        return f"embodied data import of {made.get('source')} ({made.get('format')})"
    if "edit" in provenance:
        made = provenance["edit"]
        parents = ", ".join(str(parent.get("name")) for parent in made.get("parents", []))
        return f"embodied data {made.get('verb')} of {parents}"
    if "collect" in provenance:
        return f"embodied collect in {provenance.get('env', {}).get('task', 'an environment')}"
    return ", ".join(provenance) or "unknown"


def size_text(size: int) -> str:
    """`12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:,.3g} TB"


def show_statistics(console: Console, store: EpisodeStore, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """One table per key, a row per element."""
    for key, values in found.items():
        names = element_names(store, key, values["mean"].shape)
        table = Table(title=f"{key}  {store.keys[key].describe()}", title_justify="left", box=None, header_style="bold")
        table.add_column("")
        for name in values:
            table.add_column(name, justify="right")
        columns = [np.ravel(array) for array in values.values()]
        for row, name in enumerate(names[:_ELEMENTS_SHOWN]):
            table.add_row(escape(name), *(f"{column[row]:.4g}" for column in columns))
        console.print(table, highlight=False)
        if len(names) > _ELEMENTS_SHOWN:
            console.print(
                f"  ... {len(names) - _ELEMENTS_SHOWN} more: --json shows all", highlight=False, soft_wrap=True
            )


def element_names(store: EpisodeStore, key: str, shape: tuple[int, ...]) -> list[str]:
    """What the elements of a key's statistics are called."""
    names = store.keys[key].names
    if len(names) == int(np.prod(shape)):
        return list(names)
    if key in store.image_keys and shape == (3,):
        return ["red", "green", "blue"]
    return [", ".join(map(str, index)) or "value" for index in np.ndindex(*shape)]
