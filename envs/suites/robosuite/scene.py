"""What is privileged about a robosuite task: where its things are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from embodied.envs.suites.robosuite.tasks import Task

_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")


class SceneState:
    """Where the model keeps what is privileged about a task."""

    def __init__(self, task: Task, library: Any) -> None:
        model = library.sim.model
        self._task = task
        self._bodies = np.array([model.body_name2id(name) for name in task.bodies], int)
        self._sites = np.array([model.site_name2id(name) for name in task.sites], int)
        self._joints = np.array([model.get_joint_qpos_addr(name) for name in task.joints], int)
        markers = getattr(library.model.mujoco_arena, "markers", [])
        self._dirt = np.array([model.body_name2id(marker.root_body) for marker in markers], int)
        self._dirt_geoms = np.array([model.geom_name2id(marker.visual_geoms[0]) for marker in markers], int)

    def names(self, prefixes: list[str]) -> Iterator[str]:
        """Of the elements of `read`."""
        for body in self._task.bodies:
            yield from (f"{body}.{axis}" for axis in _POSE)
        for body in self._task.bodies:
            yield from (f"{prefix}eef_to_{body}.{axis}" for prefix in prefixes for axis in "xyz")
        for site in self._task.sites:
            yield from (f"{site}.{axis}" for axis in "xyz")
        yield from (f"{joint}.position" for joint in self._task.joints)
        for number in range(len(self._dirt)):
            yield from (f"dirt{number}.x", f"dirt{number}.y", f"dirt{number}.present")

    def read(self, model: Any, data: Any, hands: list[np.ndarray]) -> np.ndarray:
        """Float64 [S]; hands: their positions, [3] each."""
        positions = data.xpos[self._bodies]  # [K, 3]
        present = model.geom_rgba[self._dirt_geoms, 3]  # the library makes dirt transparent that is wiped
        parts = (
            np.concatenate([positions, data.xquat[self._bodies]], axis=1),
            positions[:, None] - np.asarray(hands),
            data.site_xpos[self._sites],
            data.qpos[self._joints],
            np.concatenate([data.xpos[self._dirt, :2], present[:, None]], axis=1),
        )
        return np.concatenate([part.ravel() for part in parts])

    def dirt(self, model: Any, data: Any) -> np.ndarray:
        """Positions [K, 2] of the dirt that is left."""
        return data.xpos[self._dirt, :2][model.geom_rgba[self._dirt_geoms, 3] > 0]
