"""Scripted behaviour for Adroit's hammer: palm on the handle, fingers around it, up, and swing the head at the nail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.envs.suites.adroit.reaching import PalmReaching, fingers
from embodied.envs.suites.adroit.simulation import AdroitSimulation

# All of these were found by a random search over the episodes of seeds 1000 to 1015; the reach of `back`, over 1100 to
# 1124: a hand that comes up faster swings past the height of the nail.
_OFFSET = {"over": (-0.005, -0.001, 0.046), "down": (-0.004, -0.014, 0.028)}  # m from the handle to the grasp point
_OFFSET["close"] = _OFFSET["down"]
_REACH = {"over": 0.142, "down": 0.07, "close": 0.078, "back": 0.09, "strike": 0.13}  # m aimed at in one action
_PATIENCE = {"over": 23, "down": 9, "close": 4, "back": 39, "strike": 25}  # actions
_NEAR = {"over": 0.012, "down": 0.032, "back": 0.03}  # m, at which a phase is over
_SWING, _RAISED = 0.176, -0.059  # m: from the nail's head out along the nail and up, where the swing begins
_THROUGH = 0.055  # m behind the nail's head that the blow is aimed at
_LOST = 0.12  # m between handle and grasp point
_ARM_LEAD, _WRIST_LEAD = 5.502, 0.862
_OPEN = {
    **{"J2": 0.777, "J1": 0.052, "J0": 0.069},
    **{"THJ4": -0.368, "THJ3": 0.271, "THJ2": 0.179, "THJ1": 0.463, "THJ0": -0.071},
}
_CLOSED = {
    **{"J2": 1.37, "J1": 1.552, "J0": 0.934},
    **{"THJ4": 1.047, "THJ3": 1.249, "THJ2": -0.196, "THJ1": -0.47, "THJ0": -0.791},
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
