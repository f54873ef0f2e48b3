"""Scripted behaviour for Adroit's relocate: palm above the ball, down, fingers around it, up and to the target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.envs.suites.adroit.reaching import PalmReaching, fingers, shortened
from embodied.envs.suites.adroit.simulation import AdroitSimulation

# All of these were found by a random search over the episodes of seeds 1000 to 1039.
_OFFSET = np.array([0.018, -0.05, 0.0])  # m: the grasp point's place beside the ball
_ABOVE, _AROUND = 0.087, 0.0  # m: its height over the ball's before and while the fingers close
_REACH = {"above": 0.093, "down": 0.052, "close": 0.05, "carry": 0.028}  # m that are aimed at in one action
_PATIENCE = {"above": 80, "down": 70, "close": 10}  # actions; the ball comes to rest under the palm meanwhile
_NEAR = {"above": 0.02, "down": 0.012}  # m, at which a phase is over; `above` counts along the table only
_ARM_LEAD, _WRIST_LEAD = 4.754, 1.38
_LIFTED = 0.07  # m: height of the ball from which on it is carried to the target
_LOST = 0.13  # m between ball and grasp point
_THUMB = {"THJ4": 0.475}
_OPEN = {"J1": 0.3, "J0": 0.3, **_THUMB, "THJ3": 0.957}
_CLOSED = {"J2": 1.377, "J1": 1.6, "J0": 1.6, **_THUMB, "THJ3": 0.881, "THJ1": -0.634}


class RelocateExpert:
    """Takes the ball with the whole hand and brings it to the target; when it slips away, tries again.

    Args:
        simulation: of the task, which is only read.
    """

    def __init__(self, simulation: AdroitSimulation) -> None:
        self._simulation = simulation
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._palm = PalmReaching(self._simulation, arm_lead=_ARM_LEAD, wrist_lead=_WRIST_LEAD)
        self._phase, self._actions = "above", 0
        self._place = self._palm.position

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        data, palm = self._simulation.data, self._palm.position
        ball = data.body("Object").xpos
        self._actions += 1
        if self._phase == "carry" and np.linalg.norm(ball - palm) > _LOST:
            self._enter("above")
        if self._phase in ("above", "down"):
            self._place = ball + _OFFSET + (0.0, 0.0, _ABOVE if self._phase == "above" else _AROUND)
        elif self._phase == "carry":
            way = data.site("target").xpos - ball if ball[2] >= _LIFTED else np.array([0.0, 0.0, 1.0])
            self._place = palm + shortened(way, _REACH["carry"])
        closed = self._phase in ("close", "carry")
        action = self._palm.action(self._place, fingers(_CLOSED if closed else _OPEN), reach=_REACH[self._phase])
        self._follow_up(self._place - palm)
        return action

    def _enter(self, phase: str) -> None:
        self._phase, self._actions = phase, 0

    def _follow_up(self, missing: np.ndarray) -> None:
        """The next phase, where this one is over."""
        if self._phase == "carry":
            return
        distance = np.linalg.norm(missing[:2] if self._phase == "above" else missing)
        if distance < _NEAR.get(self._phase, 0.0) or self._actions > _PATIENCE[self._phase]:
            self._enter({"above": "down", "down": "close", "close": "carry"}[self._phase])
