"""Scripted behaviour for Adroit's door: press the handle down, take it from behind, pull the door open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied.envs.suites.adroit.reaching import PalmReaching, fingers
from embodied.envs.suites.adroit.simulation import AdroitSimulation


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the hand does until the next phase.

    Args:
        offset: m from the handle to the place of the palm's grasp point; turns with the door when that is pulled.
        reach: m that are aimed at in one action, at most.
        hand: a shape of the fingers.
        near: m, from which on the place counts as reached.
        patience: actions after which the next phase begins all the same.
    """

    offset: tuple[float, float, float]
    reach: float
    hand: str
    near: float = 0.0
    patience: int = 1000


# All of these were found by a random search over the episodes of seeds 1000 to 1008.
_THUMB = {"THJ4": -0.14, "THJ3": -0.718, "THJ2": -0.09, "THJ1": -1.09, "THJ0": -0.766}
_HANDS = {
    "open": {"J2": 0.374, "J1": 0.118, "J0": 0.21, **_THUMB},
    "curled": {"J2": 1.6, "J1": 1.461, "J0": 1.09, **_THUMB},
    "bent": {"J2": 0.0, "J1": 1.201, "J0": 0.64, **_THUMB},
    "hooked": {"J2": 1.136, "J1": 1.381, "J0": 1.518, **_THUMB},
}
_PHASES = {
    "above": Phase(offset=(0.0, -0.013, 0.083), reach=0.15, hand="open", near=0.045, patience=22),
    "over": Phase(offset=(-0.013, 0.088, 0.03), reach=0.076, hand="open", near=0.029, patience=21),
    "hook": Phase(offset=(-0.013, 0.088, 0.03), reach=0.048, hand="curled", near=0.004, patience=4),
    "press": Phase(offset=(-0.077, 0.0, -0.086), reach=0.083, hand="curled", patience=28),
    "beside": Phase(offset=(0.063, -0.108, -0.004), reach=0.121, hand="bent", near=0.04, patience=19),
    "grip": Phase(offset=(0.081, 0.049, -0.003), reach=0.101, hand="bent", near=0.023, patience=27),
    "close": Phase(offset=(-0.052, 0.015, -0.022), reach=0.085, hand="hooked", patience=8),
    "pull": Phase(offset=(-0.068, 0.043, 0.034), reach=0.082, hand="hooked"),
}
_ARM_LEAD, _WRIST_LEAD = 4.92, 1.346
_UNLATCHED = 1.246  # rad: of the latch, after which it is let go
_TWIST, _ROLL = 1.77, 1.464  # of the palm about the latch's axis: rad per rad of the latch, and rad once it is undone
_YAW = 1.021  # rad per rad of the door
# rad by which the palm is ahead of the door: at first, more per action, at most
_LEAD, _RAMP, _MOST = 0.234, 0.0105, 1.534
_LOST = 0.15  # m between handle and grasp point: the pulling hand has slipped off
_AJAR = 0.3  # rad: a door that has come so far is not taken again, it swings on
_NEXT = dict(zip(_PHASES, list(_PHASES)[1:], strict=False))
_HINGE, _LATCH = 28, 29  # joints of the model


class DoorExpert:
    """Turns the handle down with the hand on it, which undoes the latch for good; hooks it from beside, and pulls.

    The hand rolls with the handle and yaws with the door; when it slips off while pulling, it hooks the handle again.

    Args:
        simulation: of the task, which is only read.
    """

    def __init__(self, simulation: AdroitSimulation) -> None:
        self._simulation = simulation
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._palm = PalmReaching(self._simulation, arm_lead=_ARM_LEAD, wrist_lead=_WRIST_LEAD)
        self._enter("above")

    def _enter(self, phase: str) -> None:
        self._phase, self._actions = phase, 0

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        self._actions += 1
        phase, place = _PHASES[self._phase], self._place()
        action = self._palm.action(place, fingers(_HANDS[phase.hand]), reach=phase.reach, turn=self._turn())
        self._follow_up(phase, place)
        return action

    def _place(self) -> np.ndarray:
        """Where the palm's grasp point shall be, [3], m."""
        data, offset = self._simulation.data, np.array(_PHASES[self._phase].offset)
        handle = data.site("S_handle").xpos
        if self._phase != "pull":
            return np.asarray(handle + offset)
        anchor = data.xanchor[_HINGE]
        beside = handle + _about("z", data.qpos[_HINGE]) @ offset
        lead = min(_LEAD + _RAMP * self._actions, _MOST)
        return np.asarray(anchor + _about("z", lead) @ (beside - anchor))

    def _turn(self) -> np.ndarray:
        """Of the palm from its orientation at first, [3, 3]."""
        hinge, latch = self._simulation.data.qpos[[_HINGE, _LATCH]]
        on_top = self._phase in ("above", "over", "hook", "press")
        roll = _about("y", _TWIST * latch if on_top else _ROLL)
        return _about("z", _YAW * hinge) @ roll if self._phase == "pull" else roll

    def _follow_up(self, phase: Phase, place: np.ndarray) -> None:
        """The next phase, where this one is over."""
        data = self._simulation.data
        missing = float(np.linalg.norm(place - self._palm.position))
        if self._phase == "pull":
            slipped = np.linalg.norm(data.site("S_handle").xpos - self._palm.position) > _LOST
            if slipped and data.qpos[_HINGE] < _AJAR:
                self._enter("beside")
        elif (
            missing < phase.near
            or self._actions > phase.patience
            or (self._phase == "press" and data.qpos[_LATCH] > _UNLATCHED)
        ):
            self._enter(_NEXT[self._phase])


def _about(axis: str, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] about the world's y or z by an angle in rad."""
    cosine, sine = np.cos(angle), np.sin(angle)
    if axis == "y":
        return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
