"""What `policy.action_frame` asks for, and which actions it is about: those named as a value of the state, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.relative_actions import KINDS, Kind

ABSOLUTE = "absolute"
GRIPPER = "gripper"  # in the name of an action, where no action space says which are: LeRobot leaves these out, too


@dataclass(frozen=True, kw_only=True)
class FrameChoice:
    """A setting that was read.

    Args:
        kind: see `relative_actions`.
        keep: names of actions that stay absolute, besides grippers, or parts of such names.
        turning: the same of actions that are radians of joints without an end.
    """

    kind: Kind
    keep: tuple[str, ...] = ()
    turning: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """How messages call it."""
        return f"policy.action_frame={self.kind}"


def read_frame(settings: Any) -> FrameChoice | None:
    """From `policy.action_frame`: a name, a group, or None; None: actions are learned as they are.

    Raises:
        UsageError: it is neither, or has an unknown name or entry.
    """
    if settings is None or settings == ABSOLUTE:
        return None
    group = {"kind": settings} if isinstance(settings, str) else settings
    if not isinstance(group, Mapping) or "kind" not in group:
        raise UsageError(
            "policy.action_frame must be absolute, relative, delta, or a group with these as its kind, "
            f"'{{kind: relative, keep: [hand]}}', got {settings!r}"
        )
    for name in group:
        if name not in FrameChoice.__dataclass_fields__:
            raise unknown_name("entry of policy.action_frame", str(name), FrameChoice.__dataclass_fields__)
    if group["kind"] not in KINDS:
        raise unknown_name("policy.action_frame", str(group["kind"]), (ABSOLUTE, *KINDS))
    return FrameChoice(kind=group["kind"], keep=_parts(group, "keep"), turning=_parts(group, "turning"))


def _parts(group: Mapping[str, Any], entry: str) -> tuple[str, ...]:
    given = group.get(entry) or ()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(part, str) for part in given):
        raise UsageError(
            f"policy.action_frame.{entry} must be a list of names of actions, or of parts of them, got {given!r}"
        )
    return tuple(given)


def match_actions(
    choice: FrameChoice, *, action: Sequence[str], state: Sequence[str], gripper: Sequence[int], where: str
) -> dict[str, Any]:
    """Arguments of `RelativeActions`, JSON-able.

    Args:
        action, state: names of the values of actions and state. An action without a namesake stays absolute.
        gripper: numbers of the actions that are known to open and close.
        where: whose they are, for messages.

    Raises:
        UsageError: nothing is left to convert, or a part of a name is in none.
    """
    kept = {index for index, name in enumerate(action) if index in gripper or GRIPPER in name.lower()}
    kept |= _named(choice.keep, "keep", action)
    unique = {name: index for index, name in enumerate(state) if list(state).count(name) == 1}
    found = [None if index in kept else unique.get(name) for index, name in enumerate(action)]
    if all(number is None for number in found):
        staying = f"; {', '.join(action[index] for index in sorted(kept))} stay absolute" if kept else ""
        raise UsageError(
            f"{choice.setting} is for actions that are targets of values of observation.state, which are found by "
            f"their names, and {where} has none: its actions are {', '.join(action)}, its state is {', '.join(state)}"
            f"{staying}. Displacements and velocities are relative already: leave policy.action_frame out"
        )
    turning = sorted(index for index in _named(choice.turning, "turning", action) if found[index] is not None)
    if choice.turning and not turning:
        raise UsageError(
            f"policy.action_frame.turning: {', '.join(choice.turning)} stays absolute in {where}, since no value of "
            "the state has its name or it is kept: leave it out"
        )
    return {"kind": choice.kind, "state": found, **({"turning": turning} if turning else {})}


def _named(parts: Sequence[str], entry: str, names: Sequence[str]) -> set[int]:
    found: set[int] = set()
    for part in parts:
        # A whole name is that action alone: joint_1 is not joint_10.
        these = {index for index, name in enumerate(names) if (name == part if part in names else part in name)}
        if not these:
            raise unknown_name(f"action in policy.action_frame.{entry}", part, names)
        found |= these
    return found


def frame_words(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """What `match_actions` found, in words."""
    how = {"relative": "offsets from the present state", "delta": "steps, the first from the present state"}
    staying = [names[index] if names else str(index) for index, number in enumerate(record["state"]) if number is None]
    count = len(record["state"]) - len(staying)
    absolute = f"; absolute: {', '.join(staying)}" if staying else ""
    return f"{count} of {len(record['state'])} learned as {how[record['kind']]}{absolute}"
