"""The environment class of every suite: Gymnasium's contract and the names of data, on top of a `Simulation`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces import Dict as DictSpace

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE, STATE, image_key
from embodied.envs.choices import camera_names, check_names, require_positive, task_name
from embodied.envs.gl import select_gl_backend
from embodied.envs.registry import load_suite
from embodied.envs.rendering import Appearance, FrameRenderer, Quality, check_quality
from embodied.envs.simulation import Progress
from embodied.envs.visuals.draw import make_visuals

_TOLERANCE = 1e-5  # by which a float32 action may leave its bounds


class TaskEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One task of one suite, or several, one in each episode or one after the other.

    Observation: `observation.images.<camera>` uint8 [S, S, 3] per camera; `observation.state` float32 [P], left out
    where the robot has none; `observation.environment_state` float32 [S'], privileged, for the oracle only. With
    `history` of more than 1 each of them but the last has that many moments in front, [T, ...], the newest last; at the
    start of an episode the first is repeated.

    `info["success"]` is a bool: the task is done now, by the suite's rule. `info["success_once"]`: it was at some step
    of this episode. `info["score"]`: what benchmarks of the suite report of an episode that ends here, in [0, 1].

    The same seed gives the same trajectory in any process and after any other episodes.

    Attributes:
        looking: False lets `step` leave out the rendering, which costs most of it, for somebody who will not look: the
            frames stay those of the moment before. It has no effect with a history, of which later steps show more.

    Args:
        suite: see `registry.suite_names`.
        task, camera: of the suite; None takes its default. Several tasks, where the suite has sets of them, are drawn
            from; several cameras are rendered from one GL context.
        image_size: S, pixels.
        render: `lean`, `lean+` or `full`, see `FrameRenderer`.
        horizon: steps after which the episode is truncated, counted anew where another task of it begins; None: the
            suite's for the task.
        images: False leaves the frames out of the observation, which is over ten times faster.
        history: moments in an observation.
        action_repeat: simulated actions per step; rewards are added up. `horizon` counts steps; the suite's, and its
            limit, count simulated actions.
        protocol: of a benchmark, such as `cortex`; see the suite. None: our own.
        visuals: `static`, or `varied`: every episode draws its own camera pose, light, colours and clutter.
        shift: visual shifts, joined with `+`; see `visuals.SHIFTS`. None: none.
        shift_strength: 1 to 5.
        render_mode: `rgb_array`, for Gymnasium's recorders; `render()` gives the first camera's frame.
        options: further ones of the suite.

    Raises:
        UsageError: an argument makes no sense; says what would.
        UserError: nothing renders here.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(
        self,
        *,
        suite: str = "metaworld",
        task: str | Sequence[str] | None = None,
        camera: str | Sequence[str] | None = None,
        image_size: int = 128,
        render: Quality = "lean",
        horizon: int | None = None,
        images: bool = True,
        history: int = 1,
        action_repeat: int = 1,
        protocol: str | None = None,
        visuals: str = "static",
        shift: str | None = None,
        shift_strength: int = 3,
        render_mode: str | None = "rgb_array",
        **options: Any,
    ) -> None:
        found = load_suite(suite)
        check_quality(render)
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        require_positive(image_size=image_size, history=history, action_repeat=action_repeat)
        if horizon is not None:
            require_positive(horizon=horizon)
        self.suite, self.task = suite, task_name(found, task)
        check_names(found, self.task, protocol, options)
        self.cameras = camera_names(found, camera)
        self._visuals = make_visuals(visuals=visuals, shift=shift, strength=shift_strength)
        select_gl_backend()
        self.simulation = found.make(self.task, protocol=protocol, **{**found.options, **options})
        self.spec_of_task = self._spec_seen = task_spec = self.simulation.spec
        for name in self.cameras:
            if name not in task_spec.cameras:
                raise unknown_name(f"camera of {self.task}", name, task_spec.cameras)
        self.horizon = max(1, task_spec.horizon // action_repeat) if horizon is None else horizon
        limit = max(1, task_spec.horizon_limit // action_repeat)
        if self.horizon > limit:
            raise UsageError(f"horizon must be in [1, {limit}], got {horizon}")
        self.task_description = task_spec.instruction
        self.fps = task_spec.fps / action_repeat
        self.images, self.render_mode = images, render_mode
        self.metadata = {**self.metadata, "render_fps": max(1, round(self.fps))}
        self._image_size, self._quality, self._repeat = image_size, render, action_repeat
        self._appearance: Appearance | None = None
        self._renderer: FrameRenderer | None = None
        self._attached: Any = None  # the model that cameras were placed in
        self._attach()
        self._history = history
        self._moments: deque[dict[str, np.ndarray]] = deque(maxlen=history)
        self._steps = self._begun = self._placement = 0
        self._succeeded = self._over = False
        self.looking = True
        self.action_space = Box(task_spec.action_low, task_spec.action_high, dtype=np.float32)
        self.observation_space: gymnasium.Space[Any] = DictSpace(self._spaces())

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Of one frame: [S, S, 3]."""
        return (self._image_size, self._image_size, 3)

    def _spaces(self) -> dict[str, gymnasium.Space[Any]]:
        spec = self.spec_of_task
        lead = () if self._history == 1 else (self._history,)
        size = spec.environment_state if isinstance(spec.environment_state, int) else len(spec.environment_state)
        spaces: dict[str, gymnasium.Space[Any]] = {ENVIRONMENT_STATE: Box(-np.inf, np.inf, (size,), np.float32)}
        if spec.state:
            spaces[STATE] = Box(-np.inf, np.inf, (*lead, len(spec.state)), np.float32)
        if self.images:
            frames = Box(0, 255, (*lead, *self.frame_shape), np.uint8)
            spaces.update({image_key(camera): frames for camera in self.cameras})
        return spaces

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; without a seed the placement is drawn from the seeds before it."""
        super().reset(seed=seed)
        self._placement = int(self.np_random.integers(2**31)) if seed is None else seed
        self.simulation.reset(self._placement)
        self._begun = 0
        self._begin()
        self._succeeded = self._over = False
        return self._observation(look=True), {"success": False, "success_once": False, "score": 0.0}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        wanted = self._checked(action)
        reward, progress = 0.0, Progress(0.0, success=False)
        for _ in range(self._repeat):
            progress = self.simulation.step(wanted)
            reward += progress.reward
            self._succeeded = self._succeeded or progress.success
            terminated = progress.failed or (progress.success and self.spec_of_task.ends_on_success)
            if terminated or self.simulation.spec is not self._spec_seen:
                break
        self._steps += 1
        if self.simulation.spec is not self._spec_seen:
            self._begin()
        truncated = not terminated and self._steps >= self.horizon
        score = float(progress.success) if progress.score is None else progress.score
        info = {"success": progress.success, "success_once": self._succeeded, "score": score}
        if self._begun > 1:
            info["tasks_begun"] = self._begun
        return self._observation(look=self.looking or self._history > 1), reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The first camera's frame, uint8 [S, S, 3]; None without a render mode."""
        return self._frame(self.cameras[0]) if self.render_mode else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _begin(self) -> None:
        """Another task, or the same again: its model, its words, its look, which an episode's tasks share."""
        if self.simulation.spec is not self._spec_seen:
            self.spec_of_task = self._spec_seen = self.simulation.spec
            self.task_description = self.spec_of_task.instruction
        self._attach()
        if self._visuals is not None:
            self._appearance = self._visuals.draw(self._placement, self.simulation, self.cameras)
        self._moments.clear()
        self._steps = 0
        self._begun += 1

    def _checked(self, action: np.ndarray) -> np.ndarray:
        wanted = np.asarray(action, np.float32)
        low, high = self.spec_of_task.action_low, self.spec_of_task.action_high
        if wanted.shape != low.shape:
            raise UsageError(f"action: expected shape {list(low.shape)}, got {list(wanted.shape)}")
        outside = ~((wanted >= low - _TOLERANCE) & (wanted <= high + _TOLERANCE))  # true for nan
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            raise UsageError(
                f"action[{index}] ({self.spec_of_task.action[index]}) must be in [{low[index]:g}, {high[index]:g}], "
                f"got {wanted[index]:g}: clip actions to the action space"
            )
        return np.clip(wanted, low, high)

    def _observation(self, *, look: bool) -> dict[str, np.ndarray]:
        state, environment_state = self.simulation.observe()
        moment = {STATE: state} if self.spec_of_task.state else {}
        if self.images:
            for key, camera in zip(map(image_key, self.cameras), self.cameras, strict=True):
                moment[key] = self._frame(camera) if look or not self._moments else self._moments[-1][key]
        self._moments.append(moment)
        observation = moment
        if self._history > 1:
            moments = [self._moments[0]] * (self._history - len(self._moments)) + list(self._moments)
            observation = {name: np.stack([each[name] for each in moments]) for name in moment}
        return {ENVIRONMENT_STATE: environment_state, **observation}

    def _frame(self, camera: str) -> np.ndarray:
        if self._renderer is None:
            side = self._image_size
            self._renderer = FrameRenderer(self.simulation.model, height=side, width=side, quality=self._quality)
        return self._renderer.render(self.simulation.data, self.spec_of_task.cameras[camera], self._appearance)

    def _attach(self) -> None:
        """Place moved cameras in the simulation's model, when it is one we have not seen."""
        model = self.simulation.model
        if model is self._attached:
            return
        self.close()  # the renderer of one model takes 75 MB: nobody keeps those of ten
        for camera in self.spec_of_task.cameras.values():
            if camera.name and camera.position is not None:
                model.cam_pos[model.camera(camera.name).id] = camera.position
        import mujoco

        mujoco.mj_camlight(model, self.simulation.data)
        self._attached = model
