"""Which arrays of a foreign dataset an import takes, those that all its episodes have alike, and how much at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

import numpy as np

from embodied.core.errors import UserError, unknown_name
from embodied.datasets.episode_source import BLOCK_BYTES
from embodied.datasets.store.episode_index import KeySpec

DTYPES = frozenset({"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}) | frozenset(
    {"float16", "float32", "float64"}
)  # of arrays that a store can keep
LARGEST_FRAME = 256 << 20  # bytes
Found = Mapping[str, KeySpec | str]
"""The arrays of an episode: what a frame is, or why the array cannot be imported."""

_log = logging.getLogger(__name__)


def choose_keys(
    first: Found,
    others: Iterable[tuple[str, Found]],
    *,
    where: str,
    optional: Callable[[str], bool],
    exclude: Sequence[str] = (),
) -> tuple[dict[str, KeySpec], dict[str, str]]:
    """The keys of a source, and what was left out and why.

    Args:
        first: of the first episode, which decides.
        others: names and arrays of the other episodes; only looked at for the sake of optional keys.
        where: names the source in messages.
        optional: whether a key is left out, with a warning, where another episode does not have it alike; other keys
            stay, and such an episode is refused when it is read.
        exclude: keys that the user does not want.

    Raises:
        UsageError: a key to exclude does not exist.
        UserError: no key is left.
    """
    found = dict(first)
    for name in exclude:
        if name not in found:
            raise unknown_name("key to exclude", name, found)
        found[name] = "excluded"
    extras = {name: spec for name, spec in found.items() if isinstance(spec, KeySpec) and optional(name)}
    for episode, specs in others if extras else ():
        for name in [name for name, spec in extras.items() if specs.get(name) != spec]:
            found[name] = (
                f"{described(specs.get(name))} in {episode}, {extras.pop(name).describe()} in the first episode"
            )
            _log.warning("%s: left out %s: %s", where, name, found[name])
    keys = {name: spec for name, spec in found.items() if isinstance(spec, KeySpec)}
    if not keys:
        raise UserError(f"{where}: nothing is left to import of {', '.join(found) or 'an empty episode'}")
    return keys, {name: spec for name, spec in sorted(found.items()) if isinstance(spec, str)}


def names_to_exclude(given: str | Sequence[str]) -> list[str]:
    """The option `exclude` as a list, however it was written."""
    return [given] if isinstance(given, str) else [str(name) for name in given]


def frames_per_block(keys: Mapping[str, KeySpec]) -> int:
    """How many frames of all keys together make a block."""
    return max(1, BLOCK_BYTES // sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in keys.values()))


def require_alike(keys: Mapping[str, KeySpec], found: Found, *, where: str, episode: str) -> None:
    """Check that an episode has the keys of its source.

    Raises:
        UserError: it has not; says which, and how to go on.
    """
    for name, spec in keys.items():
        if found.get(name) != spec:
            raise UserError(
                f"{where}: {name} of {episode} is {described(found.get(name))}, and {spec.describe()} in the first "
                f"episode: leave out the key (options.exclude=[{name}]) or the episode"
            )


def described(spec: KeySpec | str | None) -> str:
    """`float32 [T, 7]`, why it is no key, or `missing`."""
    return spec.describe() if isinstance(spec, KeySpec) else spec or "missing"
