"""What Minari's two storage formats share: names of arrays, how rows pair up, spaces.

An episode of T steps has T actions, rewards, terminations and truncations, and T + 1 observations and infos: those of
the reset and those after each action. Frame t has observation t, the info that came with it, and action t.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from embodied.datasets.episode_source import Block
from embodied.datasets.importers.foreign_keys import Found
from embodied.datasets.store.episode_index import KeySpec

JPEG = b"\xff\xd8\xff"
INFOS = "infos"
OBSERVATIONS = "observations"


class Episodes(Protocol):
    """The episodes of a dataset in one of the storage formats; what is damaged raises UserError."""

    def close(self) -> None: ...

    def numbers(self) -> list[int]:
        """The numbers of the episodes, in order."""
        ...

    def metadata(self, episode: int) -> dict[str, Any]:
        """JSON-able: `id`, `seed`, `options` and what else the episode has."""
        ...

    def length(self, episode: int) -> int:
        """T, at least 1."""
        ...

    def specs(self, episode: int) -> Found:
        """The arrays, by dotted names such as `observations.camera`; elements of tuples by their number."""
        ...

    def blocks(self, episode: int, keys: Mapping[str, KeySpec]) -> Iterator[Block]:
        """T frames of these keys, which the episode has."""
        ...

    def column(self, episode: int, name: str) -> list[Any]:
        """All rows, T or T + 1, of an array of numbers or texts; empty if there is no such array."""
        ...


def with_observation(name: str) -> bool:
    """Whether an array has a row for the reset too."""
    return name.split(".")[0] in (OBSERVATIONS, INFOS)


def texts(space: Mapping[str, Any] | None, prefix: str) -> list[str]:
    """The dotted names of the texts in a serialised space that is called `prefix`."""
    if not isinstance(space, Mapping):
        return []
    if space.get("type") == "Text":
        return [prefix]
    return [name for key, inner in _subspaces(space) for name in texts(inner, f"{prefix}.{key}")]


def space_shape(space: Mapping[str, Any] | None, name: str) -> tuple[int, ...] | None:
    """The shape of the space with a dotted name, its own first part left out; None if it does not say."""
    for part in name.split(".")[1:]:
        space = dict(_subspaces(space)).get(part) if isinstance(space, Mapping) else None
    if not isinstance(space, Mapping):
        return None
    kind, shape = space.get("type"), space.get("shape")
    if kind == "MultiBinary":
        shape = [space.get("n")] if isinstance(space.get("n"), int) else space.get("n")
    elif kind == "MultiDiscrete":
        shape, inner = [], space.get("nvec")
        while isinstance(inner, list) and inner:
            shape.append(len(inner))
            inner = inner[0]
    if not isinstance(shape, list) or not all(isinstance(size, int) and 0 < size < 1 << 20 for size in shape):
        return None
    return tuple(shape)


def _subspaces(space: Mapping[str, Any]) -> list[tuple[str, Any]]:
    inner = space.get("subspaces")
    if isinstance(inner, Mapping):
        return list(inner.items())
    return [(str(number), item) for number, item in enumerate(inner)] if isinstance(inner, list) else []
