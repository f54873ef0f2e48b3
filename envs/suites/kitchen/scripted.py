"""Scripted behaviour for the kitchen: take the object, move it along its joint, let go, go on to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.suites.kitchen.mechanism import Mechanism
from embodied.envs.suites.kitchen.reaching import Reaching, pointing
from embodied.envs.suites.kitchen.simulation import KitchenSimulation
from embodied.envs.suites.kitchen.tasks import GOALS, goals_of

_PATIENCE = {"approach": 40, "touch": 25, "close": 4, "retreat": 8}  # actions, of each phase
_NEAR = {"approach": 0.03, "touch": 0.015}  # metres, at which a phase is over
_RETREAT = 0.15  # metres


@dataclass(frozen=True, kw_only=True)
class Handling:
    """How an object is moved.

    Args:
        joint: of the object; empty for the kettle, which is pushed into the kitchen.
        site: on the object, that offsets start from.
        approach, contact: where the fingers go first and then, metres from the site, in the world.
        lead: how far the fingers aim ahead of the object along its joint, rad or m.
        grasp: whether the fingers hold the object; else they are closed and push.
        twist: whether the gripper turns with the object.
        pitch, yaw: rad by which the gripper points down and to the left.
        posture, rotation_weight, drift: see `Reaching`.
        patience: actions after which moving it gives way to another try.
        turned: whether `approach` turns with the object, as `contact` does.
        until: how far its joint is moved in this way, rad or m.
        then: how it is moved from there.
    """

    joint: str
    site: str
    approach: tuple[float, float, float]
    contact: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lead: float
    grasp: bool = False
    twist: bool = False
    pitch: float = 0.0
    yaw: float = 0.0
    posture: tuple[float, ...] | None = None
    rotation_weight: float = 0.15
    drift: float = 0.1
    patience: int = 60
    turned: bool = False
    until: float = 0.0
    then: Handling | None = None


_MIDDLE = (0.0, -1.0, 1.0, -2.2, 0.0, 1.2, 1.5)


def _knob(number: int) -> Handling:
    return Handling(
        joint=f"knob_Joint_{number}",
        site=f"knob{number}_site",
        approach=(0.0, -0.09, 0.0),
        lead=0.6,
        grasp=True,
        twist=True,
        yaw=-0.4,
        posture=_MIDDLE,
    )


HANDLINGS = {
    **{f"knob{number}_on": _knob(number) for number in (1, 2, 3, 4)},
    "light_on": Handling(
        joint="light_switch", site="light_site", approach=(0.09, -0.06, 0.0), contact=(0.045, 0.0, 0.0), lead=0.5
    ),
    "sdoor_open": Handling(
        joint="slide_cabinet",
        site="slide_site",
        approach=(-0.09, -0.06, 0.0),
        contact=(-0.06, 0.01, 0.0),
        lead=0.12,
        pitch=-0.3,
        yaw=-0.4,
    ),
    # The arm cannot follow its handle that far: from half way on it pushes from within, near the lower corner.
    "ldoor_open": Handling(
        joint="left_hinge_cabinet",
        site="hinge_site1",
        approach=(0.03, -0.1, -0.145),
        contact=(0.0, -0.025, -0.145),
        lead=0.25,
        grasp=True,
        pitch=-0.35,
        yaw=0.9,
        rotation_weight=0.05,
        patience=25,
        until=0.5,
        then=Handling(
            joint="left_hinge_cabinet",
            site="hinge_site1",
            approach=(0.15, 0.17, -0.185),
            contact=(0.075, 0.16, -0.185),
            lead=0.3,
            pitch=-0.3,
            yaw=1.1,
            rotation_weight=0.015,
            patience=25,
            turned=True,
        ),
    ),
    "rdoor_open": Handling(
        joint="right_hinge_cabinet", site="hinge_site2", approach=(0.0, -0.1, 0.0), lead=0.25, grasp=True
    ),
    "micro_open": Handling(
        joint="microwave",
        site="microhandle_site",
        approach=(0.0, -0.1, 0.0),
        lead=0.25,
        grasp=True,
        pitch=0.7,
        yaw=0.4,
    ),
    "kettle_move": Handling(
        joint="", site="kettle_site", approach=(0.0, -0.2, -0.209), contact=(0.0, -0.135, -0.209), lead=0.12, pitch=1.2
    ),
}


class ScriptedExpert:
    """Does the objects of a task one after another; a phase that takes too long is followed by another try.

    Args:
        task: see `tasks.INSTRUCTIONS`.
        simulation: the task's, which is only read.
    """

    def __init__(self, task: str, simulation: KitchenSimulation) -> None:
        self._simulation, self._objects = simulation, goals_of(task)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._take_on(0)

    def _take_on(self, number: int) -> None:
        self._number = number
        self._handle(HANDLINGS[self._objects[number]])

    def _handle(self, how: Handling) -> None:
        self._handling = how
        posture = None if how.posture is None else np.array(how.posture)
        self._arm = Reaching(self._simulation, posture=posture, rotation_weight=how.rotation_weight, drift=how.drift)
        self._rotation = pointing(pitch=how.pitch, yaw=how.yaw)
        self._mechanism = Mechanism(self._simulation, joint=how.joint, aim=self._aim())
        self._enter("approach")

    def _way(self) -> Handling:
        """How the object is to be moved from where it is."""
        how = self._handling
        return how.then if how.then is not None and abs(self._mechanism.value) > how.until else how

    def _aim(self) -> float:
        goal = GOALS[self._objects[self._number]]
        if self._simulation.protocol == "r3m" and goal.r3m is not None:
            return goal.r3m[1]
        return max(goal.target, key=abs)  # of the joints that belong to an object only one is far from 0

    def _enter(self, phase: str) -> None:
        self._phase, self._actions = phase, 0
        self._way_out = self._arm.position - _RETREAT * self._rotation[:, 2]

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        done = observation[ENVIRONMENT_STATE][-len(self._objects) :] > 0
        self._follow_up(bool(done[self._number]))
        self._actions += 1
        rotation, how = self._rotation, self._handling
        if how.twist and self._phase != "retreat":
            rotation = self._mechanism.turned(how.lead if self._phase == "move" else 0.0) @ rotation
        closed = self._phase in ("close", "move") if how.grasp else self._phase != "retreat"
        return self._arm.action(self._target(), rotation, closed=closed)

    def _follow_up(self, done: bool) -> None:
        """The next phase, where this one is over."""
        last = self._number == len(self._objects) - 1
        late = self._actions >= (self._handling.patience if self._phase == "move" else _PATIENCE[self._phase])
        if done and not last and self._phase == "move":
            self._enter("retreat")
        elif self._phase == "retreat" and late:
            if done and not last:
                self._take_on(self._number + 1)
            else:
                self._handle(self._way())
        elif self._phase == "move" and (late or self._way() is not self._handling) and not done:
            self._enter("retreat")
        elif self._phase in ("approach", "touch", "close"):
            near = np.linalg.norm(self._target() - self._arm.position) < _NEAR.get(self._phase, 0.0)
            if near or late:
                grasp = self._handling.grasp
                self._enter({"approach": "touch", "touch": "close" if grasp else "move", "close": "move"}[self._phase])

    def _target(self) -> np.ndarray:
        """Where the fingers shall be, [3], m."""
        how = self._handling
        site = self._simulation.data.site(how.site).xpos
        if self._phase == "retreat":
            return self._way_out
        if self._phase == "approach":
            return np.asarray(site + (self._mechanism.turned() if how.turned else np.eye(3)) @ how.approach)
        contact = np.asarray(site + self._mechanism.turned() @ how.contact)
        return self._mechanism.ahead(contact, how.lead) if self._phase == "move" else contact
