"""One robosuite task as a `Simulation`, without the library's observables, renderer and bookkeeping."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.simulation import Camera, Progress, TaskSpec
from embodied.envs.suites.robosuite.hand import Hand
from embodied.envs.suites.robosuite.library import empty, make_library_environment
from embodied.envs.suites.robosuite.scene import SceneState
from embodied.envs.suites.robosuite.tasks import CONTROLLERS, ROBOTS, TASKS

FPS = 20.0  # 25 physics steps of 2 ms per action
_HIDDEN_GROUP = 3  # of geoms: renderers draw groups 0 to 2


class RobosuiteSimulation:
    """One robosuite task.

    State: per robot the joints' positions in radians and velocities in rad/s, the position of the point between the
    fingers in metres and the hand's orientation as a quaternion (x, y, z, w), both in the world's frame, and the
    positions of the finger joints. Privileged state: that, the bodies, sites and joints of `tasks.TASKS`, the way from
    each hand to each body, and for Wipe x, y and presence of every piece of dirt.

    Action: per robot the arm's, see `CONTROLLERS`, where 1 is 5 cm and 0.5 rad with OSC_POSE and OSC_POSITION (in the
    frame of the robot's base, from where the hand is) and 0.05 rad with JOINT_POSITION; then the gripper, of which only
    the sign counts (1 closes).

    The scene is built once, from a fixed seed: where the library draws sizes of objects anew each episode (Lift's cube,
    4.0 to 4.4 cm; handles of hammers), here they are the same in every episode.

    Success is the library's, at the moment. The reward is the library's dense one where there is one. Wipe ends without
    success when the arm touches the table or a joint nears its limit, as in the library.

    `protocol=robomimic` is the setting of robomimic's data and results: sparse reward, episodes that do not end with
    success, actions in the world's frame, and the library's physics from before its version 1.5, which takes longer.

    Args:
        task: see `tasks.TASKS`.
        protocol: None or `robomimic`.
        robot: see `ROBOTS`; tasks for two arms get two of them.
        controller: see `CONTROLLERS`.

    Raises:
        UsageError: a name is unknown, or does not go with the protocol.
        MissingExtraError: robosuite is not installed.
    """

    def __init__(
        self, task: str, *, protocol: str | None = None, robot: str = "Panda", controller: str = "OSC_POSE"
    ) -> None:
        if robot not in ROBOTS:
            raise unknown_name("robot of robosuite", robot, ROBOTS)
        if controller not in CONTROLLERS:
            raise unknown_name("controller of robosuite", controller, CONTROLLERS)
        robomimic = protocol == "robomimic"
        if robomimic and (robot, controller) != ("Panda", "OSC_POSE"):
            raise UsageError(f"protocol robomimic means robot=Panda controller=OSC_POSE, got {robot} and {controller}")
        found = TASKS[task]
        self.library = make_library_environment(task, found, robot, controller, robomimic=robomimic)
        weakref.finalize(self, empty, self.library).atexit = False
        self.controller = controller
        self.hands = [Hand(each) for each in self.library.robots]
        # Geoms for collisions only; the library hides them with an option of its renderer.
        self.model.geom_group[self.model.geom_group == 0] = _HIDDEN_GROUP
        self._scene = SceneState(found, self.library)
        prefixes = [""] if found.arms == 1 else [f"robot{number}." for number in range(found.arms)]
        state = [prefix + name for prefix, hand in zip(prefixes, self.hands, strict=True) for name in hand.state]
        action = [
            prefix + name for prefix, hand in zip(prefixes, self.hands, strict=True) for name in hand.action(controller)
        ]
        low, high = self.library.action_spec
        assert len(low) == len(action), (len(low), action)
        self.spec = TaskSpec(
            suite="robosuite",
            task=task,
            instruction=found.instruction,
            robot=robot,
            cameras={name: Camera(name=name) for name in _camera_names(self.model)},
            fps=FPS,
            horizon=found.horizon,
            horizon_limit=10_000,
            state=tuple(state),
            environment_state=(*state, *self._scene.names(prefixes)),
            action=tuple(action),
            action_low=np.asarray(low, np.float32),
            action_high=np.asarray(high, np.float32),
            gripper=tuple(index for index, name in enumerate(action) if name.endswith("gripper")),
            ends_on_success=not robomimic,
        )

    @property
    def model(self) -> Any:
        return self.library.sim.model._model

    @property
    def data(self) -> Any:
        return self.library.sim.data._data

    @property
    def dirt(self) -> np.ndarray:
        """Where dirt is left on Wipe's table, float64 [K, 2], metres."""
        return self._scene.dirt(self.model, self.data)

    def reset(self, seed: int) -> None:
        # In place: the samplers of placements hold this generator.
        self.library.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.library.reset()
        for hand in self.hands:
            hand.start()

    def step(self, action: np.ndarray) -> Progress:
        library, sim = self.library, self.library.sim
        library.timestep += 1
        before, after = (sim.step1, sim.step2) if library.lite_physics else (sim.forward, sim.step)
        before()
        library._pre_action(action.astype(np.float64), policy_step=True)
        after()
        # The library repeats its checks and its records of the action at each physics step; the torques are the same.
        for _ in range(1, int(library.control_timestep / library.model_timestep)):
            before()
            for hand in self.hands:
                hand.drive(self.data)
            after()
        library.cur_time += library.control_timestep
        reward, ended, _ = library._post_action(action)
        success = bool(library._check_success())
        return Progress(float(reward), success, failed=bool(ended) and not success)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        state = np.concatenate([hand.read(self.data) for hand in self.hands])
        scene = self._scene.read(self.model, self.data, [self.data.site_xpos[hand.site] for hand in self.hands])
        return state.astype(np.float32), np.concatenate([state, scene]).astype(np.float32)


def _camera_names(model: Any) -> list[str]:
    return [model.camera(number).name for number in range(model.ncam)]
