"""Where the grip shall be next, for each of the four things to do: way points from the privileged state. Metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embodied.envs.suites.pixmc.assembly import GRIP
from embodied.envs.suites.pixmc.goals import OPENING, Pick
from embodied.envs.suites.pixmc.scenes import CUBE, CUBE_HALF, DRAWER, GOAL, HANDLE
from embodied.envs.suites.pixmc.simulation import PixMCSimulation
from embodied.envs.suites.pixmc.techniques import TECHNIQUES, grip_rotation

_ABOVE = 0.12  # the cube, before it is gone for
_LOST = 0.07  # from the grip: what was held is held no more
_CARRY_HEIGHT = 0.1


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Where the grip shall be: position [3], orientation [3, 3] (None: any), targets of the fingers."""

    position: np.ndarray
    rotation: np.ndarray | None
    fingers: tuple[float, ...]


class Plan(Protocol):
    """What to do about one thing in one episode."""

    def aim(self) -> Aim:
        """Asked once a step."""
        ...


class _Phases:
    """Which part of a plan is on, and since when."""

    def __init__(self, first: str) -> None:
        self.name, self.steps = first, 0

    def enter(self, name: str) -> None:
        self.name, self.steps = name, 0


class ReachPlan:
    """Go there."""

    def __init__(self, simulation: PixMCSimulation) -> None:
        self._ball = simulation.data.body(GOAL).xpos
        self._fingers = TECHNIQUES[simulation.robot.name].opened

    def aim(self) -> Aim:
        return Aim(position=self._ball.copy(), rotation=None, fingers=self._fingers)


class PickPlan:
    """Above the cube, down, close, lift; again from the start when it is lost."""

    def __init__(self, simulation: PixMCSimulation) -> None:
        assert isinstance(simulation.goal, Pick)
        self._goal = simulation.goal
        self._technique = TECHNIQUES[simulation.robot.name]
        self._grip, self._cube = simulation.data.site(GRIP), simulation.data.body(CUBE)
        self._phases = _Phases("above")
        self._still = np.zeros(3)  # where the grip stays while the hand closes
        self._rotation = self._alignment()

    def aim(self) -> Aim:
        phases, technique = self._phases, self._technique
        phases.steps += 1
        grip, cube = self._grip.xpos.copy(), self._cube.xpos.copy()
        fingers = technique.opened
        if phases.name == "above":
            self._rotation = self._alignment()
            target = cube + np.array([0, 0, _ABOVE])
            if np.linalg.norm(grip - target) < 0.03 and self._aligned():
                phases.enter("down")
        elif phases.name == "down":
            target = cube
            if np.linalg.norm(grip - target) < 0.008 or phases.steps > 45:
                self._still = target
                phases.enter("close")
        elif phases.name == "close":
            target, fingers = self._still, technique.closed
            if phases.steps > 12 and self._goal.held():
                phases.enter("carry")
            elif phases.steps > 40:
                phases.enter("above")
        else:
            target, fingers = grip + self._way(cube), technique.closed
            if np.linalg.norm(grip - cube) > _LOST:
                phases.enter("above")
        return Aim(position=target, rotation=self._rotation, fingers=fingers)

    def _way(self, cube: np.ndarray) -> np.ndarray:
        """Where the held cube shall go, from where it is."""
        return np.array([0.0, 0.0, 0.2 - cube[2]])

    def _alignment(self) -> np.ndarray:
        """The opening across two sides of the cube, turned as little as it takes."""
        axes = self._cube.xmat.reshape(3, 3)
        level = axes[:, np.argmin(np.abs(axes[2]))]  # the edge that is most nearly horizontal
        turn = np.degrees(np.arctan2(level[1], level[0])) - self._technique.facing
        return grip_rotation(self._technique.facing + (turn + 45) % 90 - 45, self._technique.pitch[0])

    def _aligned(self) -> bool:
        return bool(np.trace(self._rotation.T @ self._grip.xmat.reshape(3, 3)) > 1 + 2 * np.cos(np.radians(6)))


class MovePlan(PickPlan):
    """Pick the cube up and carry it low over the disc."""

    def __init__(self, simulation: PixMCSimulation) -> None:
        super().__init__(simulation)
        self._disc = simulation.data.body(GOAL).xpos

    def _way(self, cube: np.ndarray) -> np.ndarray:
        way = self._disc - cube
        arrived = np.linalg.norm(way[:2]) < 0.03
        way[2] = (CUBE_HALF + 0.015 if arrived else _CARRY_HEIGHT) - cube[2]
        if not arrived and cube[2] < _CARRY_HEIGHT / 2:
            way[:2] = 0.0
        return np.asarray(way)


class CabinetPlan:
    """Before the handle, round it, close, pull."""

    def __init__(self, simulation: PixMCSimulation) -> None:
        self._technique = TECHNIQUES[simulation.robot.name]
        self._grip, self._handle = simulation.data.site(GRIP), simulation.data.site(HANDLE)
        self._drawer = simulation.data.joint(DRAWER)
        self._rotation = grip_rotation(0, self._technique.pitch[1])
        self._phases = _Phases("before")

    def aim(self) -> Aim:
        phases, technique = self._phases, self._technique
        phases.steps += 1
        grip = self._grip.xpos.copy()
        taken = self._handle.xpos + np.array(technique.handle_m)
        fingers = technique.opened
        if phases.name == "before":
            target = taken - 0.1 * self._rotation[:, 2]
            if np.linalg.norm(grip - target) < 0.03:
                phases.enter("at")
        elif phases.name == "at":
            target = taken
            if np.linalg.norm(grip - target) < 0.01 or phases.steps > 45:
                phases.enter("close")
        elif phases.name == "close":
            target, fingers = taken, technique.hooked
            if phases.steps > 15:
                phases.enter("pull")
        else:
            further = OPENING + 0.03 - float(self._drawer.qpos[0])
            target, fingers = taken - np.array([np.clip(further, 0, 0.08), 0, 0]), technique.hooked
            if np.linalg.norm(grip - taken) > 2 * _LOST:
                phases.enter("before")
        return Aim(position=target, rotation=self._rotation, fingers=fingers)


PLANS: dict[str, Callable[[PixMCSimulation], Plan]] = {
    "reach": ReachPlan,
    "cabinet": CabinetPlan,
    "pick": PickPlan,
    "move": MovePlan,
}
