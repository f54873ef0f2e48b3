"""Keeping a point of the robot in a box, by the forward kinematics of a MuJoCo model. N axes; m, rad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.real_robot.description.description import Workspace
from embodied.real_robot.safety.motion import Motion
from embodied.real_robot.safety.stopping import path

if TYPE_CHECKING:
    import mujoco

_BISECTIONS = 8
_MARGIN_M = 1e-3  # targets stay this far inside, so that the way to them does not graze the wall


class WorkspaceBox:
    """The box, and the model that says where a site is. Holds scratch memory, but no state between calls.

    Args:
        names: of the axes [N]; those that are no joints of the model do not move the site, and joints of the model
            that are no axes stay as the model has them.

    Raises:
        UserError: the model cannot be loaded.
        UsageError: it has no such site, or no axis among its joints.
    """

    def __init__(self, workspace: Workspace, names: tuple[str, ...]) -> None:
        import mujoco

        try:
            self._model = mujoco.MjModel.from_xml_path(str(workspace.model))
        except ValueError as error:
            raise UserError(f"{workspace.model}: not a MuJoCo model: {error}") from error
        self._data = mujoco.MjData(self._model)
        self._kinematics = mujoco.mj_kinematics
        sites = [self._model.site(i).name for i in range(self._model.nsite)]
        if workspace.site not in sites:
            raise unknown_name("workspace.site", workspace.site, sites)
        self._site = sites.index(workspace.site)
        joints = {self._model.joint(i).name: i for i in range(self._model.njnt)}
        self._axes = np.array([i for i, name in enumerate(names) if name in joints], np.int64)
        if not len(self._axes):
            raise UsageError(f"{workspace.model}: none of the axes {', '.join(names)} is a joint: {', '.join(joints)}")
        numbers = [joints[names[i]] for i in self._axes]
        self._slots = self._model.jnt_qposadr[numbers]
        self._low, self._high = np.array(workspace.low_m), np.array(workspace.high_m)
        self.reach = np.zeros(len(names))  # m that the site moves at most per rad or m of an axis, in any posture
        self.reach[self._axes] = [_reach(self._model, joint, self._site) for joint in numbers]

    def position(self, axes: np.ndarray) -> np.ndarray:
        """Where the site is, m [3]."""
        self._data.qpos[self._slots] = axes[self._axes]
        self._kinematics(self._model, self._data)
        return np.array(self._data.site_xpos[self._site])

    def slack(self, axes: np.ndarray) -> float:
        """Distance to the nearest wall, m; negative outside."""
        position = self.position(axes)
        return float(np.min(np.minimum(position - self._low, self._high - position)))

    def keeps(self, motion: Motion, period_s: float) -> bool:
        """Whether a command and each one of the plan to rest behind it are inside."""
        way, _ = path(motion.stop, motion.position, motion.velocity, motion.acceleration, period_s=period_s)
        way = np.concatenate([motion.position[None], way])
        at = 0
        while True:
            slack = self.slack(way[at])
            if slack < 0:
                return False
            # Commands too near to this one to be across the wall need no look of their own.
            far = np.abs(way[at + 1 :] - way[at]) @ self.reach > slack
            if not far.any():
                return True
            at += 1 + int(far.argmax())

    def nearest(self, inside: np.ndarray, target: np.ndarray) -> np.ndarray:
        """`target`, or the last point inside on the straight line of axes from `inside` to it, [N]."""
        if self.slack(target) >= _MARGIN_M:
            return target
        good, bad = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (good + bad) / 2
            if self.slack(inside + middle * (target - inside)) >= _MARGIN_M:
                good = middle
            else:
                bad = middle
        return inside + good * (target - inside)


def _reach(model: mujoco.MjModel, joint: int, site: int) -> float:
    """An upper bound of the site's distance from a joint's axis: the links between them laid out in one line."""
    import mujoco

    if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE:
        return 1.0
    if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
        raise UsageError(f"joint {model.joint(joint).name}: only hinges and slides can be axes")
    body, top = int(model.site_bodyid[site]), int(model.jnt_bodyid[joint])
    length = float(np.linalg.norm(model.site_pos[site])) + float(np.linalg.norm(model.jnt_pos[joint]))
    while body != top:
        if body == 0:
            return 0.0  # the joint does not carry the site
        length += float(np.linalg.norm(model.body_pos[body]))
        for i in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
            length += 2 * float(np.linalg.norm(model.jnt_pos[i]))
            if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_SLIDE:
                limited = bool(model.jnt_limited[i])
                length += float(np.max(np.abs(model.jnt_range[i]))) if limited else np.inf
        body = int(model.body_parentid[body])
    return length
