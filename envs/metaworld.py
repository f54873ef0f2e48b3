"""Meta-World v3 on the observation contract (https://github.com/Farama-Foundation/Metaworld, Yu et al. 2019)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces import Dict as DictSpace

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE, STATE, image_key
from embodied.envs.registration import METAWORLD_TASKS
from embodied.envs.rendering import FrameRenderer, Quality, select_gl_backend

# The library mounts the corner cameras upside down; True: turn the picture by 180 degrees.
CAMERAS = {
    "corner": True,
    "corner2": True,
    "corner3": True,
    "corner4": True,
    "topview": False,
    "behindGripper": False,
    "gripperPOV": False,
}
# The close view of pixel-based work: the library's far corner2, moved to the table.
MOVED_CAMERAS = {"corner4": ("corner2", (0.75, 0.075, 0.7))}
HORIZON_LIMIT = 500  # the simulator refuses longer episodes
FPS = 80.0  # 5 physics steps of 2.5 ms per action


def list_tasks() -> list[str]:
    """The 50 task names, sorted."""
    return sorted(METAWORLD_TASKS)


def task_description(task: str) -> str:
    """The instruction of a task in English, from its name: `door-open-v3` is "open the door"."""
    if task in _INSTRUCTIONS:
        return _INSTRUCTIONS[task]
    words = task.removesuffix("-v3").split("-")
    for verb in ("open", "close", "unlock", "lock", "press", "pull", "push", "turn", "slide", "insert", "pick"):
        if verb in words:
            others = [word for word in words if word != verb]
            return f"{verb} the {' '.join(others)}" if others else verb
    return " ".join(words)


_INSTRUCTIONS = {
    "assembly-v3": "pick up the nut and place it onto the peg",
    "basketball-v3": "put the basketball through the hoop",
    "bin-picking-v3": "move the puck from one bin to the other",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "press the button from above, over the wall",
    "button-press-wall-v3": "press the button behind the wall",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "pick the nut off the peg",
    "faucet-close-v3": "turn the faucet off",
    "faucet-open-v3": "turn the faucet on",
    "hammer-v3": "hammer the nail into the box",
    "hand-insert-v3": "put the hand into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-pull-side-v3": "pull the handle up from the side",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole from the side",
    "peg-unplug-side-v3": "unplug the peg from the side",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "pick-place-v3": "pick up the puck and place it at the goal",
    "pick-place-wall-v3": "pick up the puck and place it at the goal behind the wall",
    "plate-slide-back-side-v3": "slide the plate back out of the cabinet sideways",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet sideways",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "push the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "place the puck on the shelf",
    "soccer-v3": "push the ball into the goal",
    "stick-pull-v3": "pull the thermos with the stick",
    "stick-push-v3": "push the thermos with the stick",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
}


class MetaWorldEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One Meta-World task.

    Observation: `observation.images.<camera>` uint8 [S, S, 3]; `observation.state` float32 [4] = hand position in
    metres and gripper opening in [0, 1]; `observation.environment_state` float32 [39] = the simulator's full
    observation with the goal, for the oracle only. Action: float32 [4] in [-1, 1] = hand displacement (1 is 1 cm) and
    gripper closing. The episode terminates on success; `info["success"]` is a bool.

    The same seed gives the same trajectory in any process and after any other episodes.

    Args:
        task: see `list_tasks`.
        camera: see `CAMERAS`.
        image_size: S, pixels.
        render: `lean` or `full`, see `FrameRenderer`.
        horizon: steps after which the episode is truncated, at most 500.
        images: False leaves the frames out of the observation, which is over ten times faster.
        render_mode: `rgb_array`, for Gymnasium's recorders; `render()` gives the camera's frame.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(
        self,
        *,
        task: str = "hammer-v3",
        camera: str = "corner4",
        image_size: int = 128,
        render: Quality = "lean",
        horizon: int = 250,
        images: bool = True,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if camera not in CAMERAS:
            raise unknown_name("camera", camera, CAMERAS)
        if render not in ("lean", "full"):
            raise unknown_name("render", render, ["lean", "full"])
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        if image_size < 1:
            raise UsageError(f"image_size must be at least 1, got {image_size}")
        if not 1 <= horizon <= HORIZON_LIMIT:
            raise UsageError(f"horizon must be in [1, {HORIZON_LIMIT}], got {horizon}")
        if task not in list_tasks():
            raise unknown_name("task", task, list_tasks())
        select_gl_backend()
        self.task, self.camera, self.horizon, self.images = task, camera, horizon, images
        self.task_description = task_description(task)
        self.render_mode = render_mode
        self._image_size, self._quality = image_size, render
        self._renderer: FrameRenderer | None = None
        self._simulator = make_simulator(task)
        self._camera_name, position = MOVED_CAMERAS.get(camera, (camera, None))
        if position is not None:
            # Before the first reset: where a camera is in the world is computed with the rest of the kinematics.
            self._simulator.model.cam_pos[self._simulator.model.camera(self._camera_name).id] = position
        self._steps = 0
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        spaces: dict[str, gymnasium.Space[Any]] = {
            STATE: Box(-np.inf, np.inf, (4,), np.float32),
            ENVIRONMENT_STATE: Box(-np.inf, np.inf, (39,), np.float32),
        }
        if images:
            spaces[image_key(camera)] = Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space: gymnasium.Space[Any] = DictSpace(spaces)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; without a seed the placement is drawn from the seeds before it."""
        super().reset(seed=seed)
        placement = int(self.np_random.integers(2**31)) if seed is None else seed
        # The simulator draws placements from its own generator, and a few tasks from the global one.
        global_state = np.random.get_state()
        np.random.seed(placement % 2**32)
        try:
            self._simulator.seed(placement)
            self._restore_model()
            state, _ = self._simulator.reset()
        finally:
            np.random.set_state(global_state)
        self._steps = 0
        return self._observation(state), {"success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        state, reward, _, _, info = self._simulator.step(np.asarray(action, np.float32))
        self._steps += 1
        success = bool(info["success"])
        truncated = not success and self._steps >= self.horizon
        return self._observation(state), float(reward), success, truncated, {"success": success}

    def render(self) -> np.ndarray | None:
        """The camera's frame, uint8 [S, S, 3]; None without a render mode."""
        return self._frame() if self.render_mode else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._simulator.close()

    @property
    def simulator(self) -> Any:
        """Meta-World's own environment, for experts and tests."""
        return self._simulator

    def _restore_model(self) -> None:
        # Tasks move bodies and sites of the model at reset and some never move them back.
        for name, values in self._simulator.embodied_model_state.items():
            getattr(self._simulator.model, name)[:] = values
        self._simulator.data.ctrl[:] = 0
        import mujoco

        mujoco.mj_resetData(self._simulator.model, self._simulator.data)

    def _observation(self, state: np.ndarray) -> dict[str, np.ndarray]:
        observation = {STATE: state[:4].astype(np.float32), ENVIRONMENT_STATE: state.astype(np.float32)}
        if self.images:
            observation[image_key(self.camera)] = self._frame()
        return observation

    def _frame(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = FrameRenderer(
                self._simulator.model,
                camera=self._camera_name,
                height=self._image_size,
                width=self._image_size,
                quality=self._quality,
                flip=CAMERAS[self.camera],
            )
        return self._renderer.render(self._simulator.data)


MODEL_FIELDS = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_quat", "geom_rgba", "site_rgba")


def make_simulator(task: str) -> Any:
    """Meta-World's environment of a task with free placements and the goal in the observation."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    simulator = ALL_V3_ENVIRONMENTS[task]()
    simulator._partially_observable = False
    simulator._freeze_rand_vec = False
    simulator.seeded_rand_vec = True
    simulator._set_task_called = True
    simulator.__dict__.pop("sawyer_observation_space", None)  # cached for the partially observable task
    simulator.embodied_model_state = {name: getattr(simulator.model, name).copy() for name in MODEL_FIELDS}
    return simulator
