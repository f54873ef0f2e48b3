"""Scripted behaviour for Adroit's hammer: palm on the handle, fingers around it, up, and swing the head at the nail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.envs.suites.adroit.reaching import PalmReaching, fingers
from embodied.envs.suites.adroit.simulation import AdroitSimulation

# All of these were found by a random search over the episodes of seeds 1000 to 1009.
_OFFSET = {"over": (-0.011, -0.003, 0.053), "down": (-0.02, -0.016, 0.024)}  # m from the handle to the grasp point
_OFFSET["close"] = _OFFSET["down"]
_REACH = {"over": 0.129, "down": 0.066, "close": 0.084, "back": 0.126, "strike": 0.139}  # m aimed at in one action
_PATIENCE = {"over": 23, "down": 8, "close": 2, "back": 37, "strike": 25}  # actions
_NEAR = {"over": 0.016, "down": 0.031, "back": 0.03}  # m, at which a phase is over
_SWING, _RAISED = 0.204, -0.03  # m: from the nail's head out along the nail and up, where the swing begins
_THROUGH = 0.068  # m behind the nail's head that the blow is aimed at
_LOST = 0.12  # m between handle and grasp point
_ARM_LEAD, _WRIST_LEAD = 5.516, 0.97
_OPEN = {"J2": 0.62, "J1": 0.0, "J0": 0.081, "THJ4": -0.404, "THJ3": 0.271, "THJ2": 0.262, "THJ1": 0.435, "THJ0": 0.0}
_CLOSED = {
    **{"J2": 1.378, "J1": 1.492, "J0": 0.623},
    **{"THJ4": 1.047, "THJ3": 1.309, "THJ2": -0.262, "THJ1": -0.516, "THJ0": -0.896},
}
_NEXT = {"over": "down", "down": "close", "close": "back", "back": "strike", "strike": "back"}


class HammerExpert:
    """Takes the hammer and swings it at the nail until the nail is in; takes it again when it slips away.

    Args:
        simulation: of the task, which is only read.
    """

    def __init__(self, simulation: AdroitSimulation) -> None:
        self._simulation = simulation
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._palm = PalmReaching(self._simulation, arm_lead=_ARM_LEAD, wrist_lead=_WRIST_LEAD)
        self._enter("over")

    def _enter(self, phase: str) -> None:
        self._phase, self._actions = phase, 0

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        data = self._simulation.data
        self._actions += 1
        handle, tool = data.body("Object").xpos, data.site("tool").xpos
        if self._phase in ("back", "strike") and np.linalg.norm(handle - self._palm.position) > _LOST:
            self._enter("over")
        hand, reach = fingers(_OPEN if self._phase in ("over", "down") else _CLOSED), _REACH[self._phase]
        if self._phase in _OFFSET:
            place = handle + _OFFSET[self._phase]
            moved, action = self._palm.position, self._palm.action(place, hand, reach=reach)
        else:
            place = self._aim()
            moved, action = tool, self._palm.action_with_tool(tool, place, hand, reach=reach)
        missing = np.linalg.norm(place - moved)
        if missing < _NEAR.get(self._phase, 0.0) or self._actions > _PATIENCE[self._phase]:
            self._enter(_NEXT[self._phase])
        return action

    def _aim(self) -> np.ndarray:
        """Where the face of the hammer's head shall be, [3], m: in front of the nail, or beyond its head."""
        nail = self._simulation.data.site("S_target")
        out = nail.xmat.reshape(3, 3)[:, 2]
        if self._phase == "strike":
            return np.asarray(nail.xpos - _THROUGH * out)
        return np.asarray(nail.xpos + _SWING * out + (0.0, 0.0, _RAISED))
