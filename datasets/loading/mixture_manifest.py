"""The manifest of a mixture: which datasets train together, what their keys mean, how often each is drawn.

datasets:
  - path: sawyer/hammer            # an episode store, or a folder of stores that are one dataset; from here
    embodiment: sawyer             # whose body: datasets of one share stems and head; default: the name
  - path: panda
    name: lift                     # default: the last part of path
    cameras: [agentview]           # default: all
    keys: {observation.state: observation.joints}    # ours: theirs
    normalize: zscore              # of proprioception: limits (to [-1, 1], the default), zscore, none
    weight: 2                      # times what mixing gives; default 1
    action_meaning: end-effector displacement in m, base frame
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE

SUFFIXES = (".yaml", ".yml")
NORMALIZATIONS = ("limits", "zscore", "none")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One dataset of a mixture.

    Attributes:
        name: in logs.
        paths: of its stores.
        embodiment: whose stems and head it uses.
        cameras: which are read; None: all.
        keys: our name of a key to the store's.
        normalize: how proprioception is scaled, one of `NORMALIZATIONS`.
        weight: times what the mixing gives.
        action_meaning: units and frame of actions, in any words; datasets of one embodiment must agree.

    Raises:
        UsageError: a value makes no sense.
    """

    name: str
    paths: tuple[str, ...]
    embodiment: str
    cameras: tuple[str, ...] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    normalize: str = "limits"
    weight: float = 1.0
    action_meaning: str | None = None

    def __post_init__(self) -> None:
        for what, name in (("name", self.name), ("embodiment", self.embodiment)):
            if not _NAME.fullmatch(name):
                raise UsageError(f"{what} of a dataset: expected letters, digits, - and _, got {name!r}: give it one")
        if self.normalize not in NORMALIZATIONS:
            raise unknown_name(f"normalize of {self.name}", self.normalize, NORMALIZATIONS)
        if not 0 < self.weight < float("inf"):
            raise UsageError(f"weight of {self.name} must be positive, got {self.weight}")
        for key in self.keys:
            if key not in (STATE, ACTION) and not key.startswith(IMAGE_PREFIX):
                raise unknown_name(f"key of {self.name}", key, (STATE, ACTION, IMAGE_PREFIX + "<camera>"))


def read_manifest(path: Path) -> list[DatasetEntry]:
    """The datasets of a manifest; their paths are relative to its folder.

    Raises:
        UserError: there is no such file, or it is no YAML.
        UsageError: it does not say what is expected.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the manifest {path}: {error.strerror}: check data=") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping) or set(content) != {"datasets"}:
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise UsageError(f"{path}: expected one entry, datasets, got {found}")
    records = content["datasets"]
    if not isinstance(records, list) or not records:
        raise UsageError(f"{path}: datasets must be a list of at least one")
    entries = []
    for number, record in enumerate(records):
        try:
            entries.append(_entry(record, path.parent))
        except UsageError as error:
            raise UsageError(f"{path}, dataset {number + 1}: {error}") from error
    return checked_entries(entries)


def checked_entries(entries: Sequence[DatasetEntry]) -> list[DatasetEntry]:
    """The entries, if they go together.

    Raises:
        UsageError: two have one name, or datasets of one embodiment are declared to differ.
    """
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two datasets are called {twice[0]}: give each a name of its own")
    firsts: dict[str, DatasetEntry] = {}
    for entry in entries:
        first = firsts.setdefault(entry.embodiment, entry)
        if entry.normalize != first.normalize:
            raise UsageError(
                f"{first.name} and {entry.name} are of the embodiment {entry.embodiment}, which has one scale: "
                f"normalize is {first.normalize} and {entry.normalize}"
            )
        if entry.action_meaning != first.action_meaning:
            raise UsageError(
                f"actions of the embodiment {entry.embodiment} mean {first.action_meaning or 'what is not said'!r} in "
                f"{first.name}, {entry.action_meaning or 'what is not said'!r} in {entry.name}: give the datasets "
                "different embodiments, or the same action_meaning if it is one"
            )
    return list(entries)


def _entry(record: Any, folder: Path) -> DatasetEntry:
    known = ["path", *(each.name for each in fields(DatasetEntry) if each.name != "paths")]
    if not isinstance(record, Mapping) or "path" not in record:
        raise UsageError(f"expected settings, path among them, got {record!r}")
    for name in record:
        if name not in known:
            raise unknown_name("setting", str(name), known)
    settings: dict[str, Any] = {str(name): value for name, value in record.items() if value is not None}
    path = folder / Path(str(settings.pop("path"))).expanduser()
    settings["name"] = str(settings.get("name", path.name))
    settings["embodiment"] = str(settings.get("embodiment", settings["name"]))
    cameras, keys, weight = settings.get("cameras"), settings.get("keys", {}), settings.get("weight", 1.0)
    if cameras is not None:
        if not isinstance(cameras, list) or not cameras:
            raise UsageError(f"cameras: expected a list of names, got {cameras!r}")
        settings["cameras"] = tuple(map(str, cameras))
    if not isinstance(keys, Mapping):
        raise UsageError(f"keys: expected our names and the store's, got {keys!r}")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UsageError(f"weight: expected a number, got {weight!r}")
    settings["keys"] = {str(ours): str(theirs) for ours, theirs in keys.items()}
    settings["weight"] = float(weight)
    for name in ("normalize", "action_meaning"):
        if name in settings:
            settings[name] = str(settings[name])
    return DatasetEntry(paths=(str(path),), **settings)
