"""Modes of the command process, as a table: which signals lead from where to where."""

from __future__ import annotations

from enum import Enum, Flag, auto
from typing import NamedTuple


class Mode(Enum):
    """What the command process does.

    `shadow`: computes everything and publishes below /shadow only. `hold`: the robot comes to rest and stays.
    `active`: the policy moves it. `fault`: as hold, until somebody resets it.
    """

    SHADOW = "shadow"
    HOLD = "hold"
    ACTIVE = "active"
    FAULT = "fault"


class Signal(Flag):
    """What is true in a cycle.

    ESTOP: the stop is pressed. TRIP: something is wrong that needs a person. READY: all is fresh that the policy's
    commands rest on. ENABLED: the deadman switch is held. RELEASED: it says that it is not; neither is true of a silent
    one. ADMITTED: the first target may be approached from the pose. RESTING: the commands stand still. LIVE: the
    operator lets the robot move, not only the shadow. RESET: the operator has just acknowledged the fault.
    """

    NONE = 0
    ESTOP = auto()
    TRIP = auto()
    READY = auto()
    ENABLED = auto()
    RELEASED = auto()
    ADMITTED = auto()
    RESTING = auto()
    LIVE = auto()
    RESET = auto()


class Rule(NamedTuple):
    """From `source` to `target` where all of `needs` and none of `unless` are true."""

    source: Mode
    needs: Signal
    unless: Signal
    target: Mode
    reason: str


_NONE = Signal.NONE
# The first rule that fits is taken; where none fits the mode stays. To begin after a start or a fault the switch must
# be heard to be let go first: one that is stuck, was pressed too early or begins to speak as pressed moves nothing.
RULES = (
    Rule(Mode.SHADOW, Signal.ESTOP, _NONE, Mode.FAULT, "emergency stop"),
    Rule(Mode.HOLD, Signal.ESTOP, _NONE, Mode.FAULT, "emergency stop"),
    Rule(Mode.ACTIVE, Signal.ESTOP, _NONE, Mode.FAULT, "emergency stop"),
    Rule(Mode.ACTIVE, Signal.TRIP, _NONE, Mode.FAULT, "tripped"),
    Rule(Mode.ACTIVE, _NONE, Signal.LIVE, Mode.HOLD, "operator chose shadow"),
    Rule(Mode.ACTIVE, _NONE, Signal.ENABLED, Mode.HOLD, "switch let go"),
    Rule(Mode.ACTIVE, _NONE, Signal.READY, Mode.HOLD, "not ready"),
    Rule(Mode.SHADOW, Signal.LIVE | Signal.RELEASED, Signal.ENABLED, Mode.HOLD, "operator chose live"),
    Rule(Mode.HOLD, Signal.RESTING, Signal.LIVE, Mode.SHADOW, "operator chose shadow"),
    Rule(
        Mode.HOLD,
        Signal.LIVE | Signal.ENABLED | Signal.READY | Signal.ADMITTED | Signal.RESTING,
        Signal.TRIP,
        Mode.ACTIVE,
        "engaged",
    ),
    Rule(
        Mode.FAULT,
        Signal.RESET | Signal.RESTING | Signal.RELEASED,
        Signal.ESTOP | Signal.TRIP | Signal.ENABLED,
        Mode.HOLD,
        "reset",
    ),
)
MODES = tuple(Mode)


def next_mode(mode: Mode, signals: Signal) -> tuple[Mode, str | None]:
    """The mode after this cycle, and why it changed, or None."""
    for rule in RULES:
        if rule.source is mode and rule.needs in signals and not rule.unless & signals:
            return rule.target, rule.reason
    return mode, None
