"""Which foreign keys become which name of the store, as an import applies it and a user edits it.

A mapping is written as YAML, one line per foreign key; `null` leaves a key out, a list joins vectors end to end:

    actions: action
    wrist_rgb: observation.images.wrist
    debug_vector: null
    observation.state: [joint_pos, gripper_width]

`key_proposal.propose` makes one by rules; `key_casting` says what each name accepts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.datasets.episode_source import Block, EncodedBlock
from embodied.datasets.key_casting import ImageOptions, cast, cast_spec
from embodied.datasets.store.episode_index import JPEG, KeySpec
from embodied.datasets.store.planar_frames import Frames, PlanarFrames

Sources = dict[str, tuple[str, ...]]
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True)
class KeyMapping:
    """`sources` has, per name of the store, the foreign keys it is made of; what it does not mention is left out."""

    sources: Mapping[str, tuple[str, ...]]

    def specs(self, keys: Mapping[str, KeySpec], images: ImageOptions) -> dict[str, KeySpec]:
        """The keys of the store, from those of the source.

        Raises:
            UsageError: a foreign key does not fit its name, or none is left.
        """
        if not self.sources:
            raise UsageError("the mapping leaves every key out: keep at least one")
        return {
            name: cast_spec(name, {key: keys[key] for key in foreign}, images) for name, foreign in self.sources.items()
        }

    def apply(self, block: Block, specs: Mapping[str, KeySpec], images: ImageOptions) -> dict[str, Frames]:
        """A block of the source as a block of the store, whose keys are `specs`; planes stay such for JPEGs only.

        Raises:
            UserError: values that a name cannot hold.
        """
        made: dict[str, Frames] = {}
        for name, foreign in self.sources.items():
            frames, spec = block[foreign[0]], specs[name]
            if isinstance(frames, PlanarFrames) and spec.codec == JPEG and frames.shape[1:] == spec.shape:
                made[name] = frames
            else:
                made[name] = cast(name, spec, {key: np.asarray(block[key]) for key in foreign}, images)
        return made

    def kept_files(self, block: Block, specs: Mapping[str, KeySpec]) -> dict[str, Sequence[bytes | None]]:
        """The JPEG files of a block that the store can keep, because `apply` leaves the pixels of their key alone."""
        kept: dict[str, Sequence[bytes | None]] = {}
        if not isinstance(block, EncodedBlock):
            return kept
        for name, foreign in self.sources.items():
            frames, spec = block[foreign[0]], specs[name]
            same = (str(frames.dtype), frames.shape[1:]) == (spec.dtype, spec.shape)
            if len(foreign) == 1 and foreign[0] in block.files and same and spec.codec == JPEG:
                kept[name] = block.files[foreign[0]]
        return kept

    def changes(self, keys: Mapping[str, KeySpec], images: ImageOptions) -> bool:
        """Whether any key gets another name, dtype or shape, is joined or left out."""
        if {name: (name,) for name in keys} != dict(self.sources):
            return True
        made = self.specs(keys, images)
        return any((made[key].dtype, made[key].shape) != (spec.dtype, spec.shape) for key, spec in keys.items())


def revise(proposal: KeyMapping, keys: Mapping[str, KeySpec], changes: Mapping[str, Any]) -> KeyMapping:
    """The proposal with the user's changes, as the YAML in this module's docstring writes them.

    A key whose proposed name the user gives to another one goes back to its own name.

    Raises:
        UsageError: a foreign key does not exist or is used twice, two keys get one name, or a name cannot be one.
    """
    wanted = _wanted(keys, changes)
    taken = {key for foreign in wanted.values() for key in foreign}
    taken |= {key for key, name in changes.items() if name is None}
    sources, displaced = dict(wanted), list[str]()
    for name, foreign in proposal.sources.items():
        left = tuple(key for key in foreign if key not in taken)
        if left and name in wanted:
            displaced += left
        elif left:
            sources[name] = left
    for key in displaced:
        name = own_name(key)
        if name in sources:
            raise UsageError(f"map: {' and '.join(sources[name])} and {key} both become {name}: map {key} too")
        sources[name] = (key,)
    return KeyMapping(in_source_order(sources, keys))


def mapping_yaml(mapping: KeyMapping, keys: Mapping[str, KeySpec], images: ImageOptions) -> str:
    """The mapping as YAML that `revise` reads, with what becomes of each key as a comment."""
    specs = mapping.specs(keys, images)
    rows: list[tuple[str, str]] = []
    for name, foreign in mapping.sources.items():
        before, after = [_described(keys[key]) for key in foreign], _described(specs[name])
        comment = after if before == [after] else f"{' + '.join(before)} -> {after}"
        if len(foreign) == 1:
            rows.append((f"{_quoted(foreign[0])}: {_quoted(name)}", comment))
        else:
            rows.append((f"{_quoted(name)}: [{', '.join(map(_quoted, foreign))}]", comment))
    used = {key for foreign in mapping.sources.values() for key in foreign}
    rows += [(f"{_quoted(key)}: null", f"{_described(keys[key])}, left out") for key in keys if key not in used]
    width = min(60, max(len(entry) for entry, _ in rows))
    return "".join(f"{entry:<{width}}  # {comment}\n" for entry, comment in rows)


def own_name(key: str) -> str:
    """A foreign key as a name the store accepts: dots for slashes and spaces, nothing odd in front."""
    name = re.sub(r"[/\\\s.]+", ".", key).strip(".").lstrip("_.")
    return f"data.{name}" if name in ("", "c", "zarr.json") else name


def in_source_order(sources: Sources, keys: Mapping[str, KeySpec]) -> Sources:
    """The names in the order in which the source has their (first) keys."""
    order = {key: number for number, key in enumerate(keys)}
    return dict(sorted(sources.items(), key=lambda item: order[item[1][0]]))


def _wanted(keys: Mapping[str, KeySpec], changes: Mapping[str, Any]) -> Sources:
    """The names that the user gave, checked."""
    wanted: Sources = {}
    for left, right in changes.items():
        foreign = tuple(right) if isinstance(right, list) else (left,)
        name = left if isinstance(right, list) else right
        for key in foreign:
            if key not in keys:
                raise unknown_name("key of the source", str(key), keys)
        if right is None:
            continue
        if not isinstance(name, str) or not foreign or own_name(name) != name:
            raise UsageError(f"map: {left}: {right!r} is not the name of a key; write a dotted name, such as action")
        if name in wanted:
            both = " and ".join([*wanted[name], *foreign])
            raise UsageError(f"map: {both} both become {name}: give one another name, or null to leave it out")
        used = [key for key in foreign if any(key in others for others in wanted.values()) or foreign.count(key) > 1]
        if used:
            raise UsageError(f"map: {used[0]} is used twice: each key of the source goes to one name")
        wanted[name] = foreign
    return wanted


def _described(spec: KeySpec) -> str:
    return spec.describe() + (", jpeg" if spec.codec == "jpeg" else "")


def _quoted(text: str) -> str:
    """A YAML scalar that reads back as this text."""
    plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) and text.lower() not in _YAML_WORDS
    return text if plain else "'" + text.replace("'", "''") + "'"
