"""A point on a line that is to be brought to a goal: environments for tests of agents, without a simulator."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, SyncVectorEnv

CAMERA = "observation.images.top"


class Point(gymnasium.Env[Any, Any]):
    """State [x], privileged state [x, goal], a picture with a bright column at x; reward is minus the distance.

    With `shows_goal` the upper half of the picture is a red column at the goal instead.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, horizon: int = 10, side: int = 8, shows_goal: bool = False) -> None:
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.observation_space = Dict(
            {
                "observation.state": Box(-np.inf, np.inf, (1,), np.float32),
                "observation.environment_state": Box(-np.inf, np.inf, (2,), np.float32),
                CAMERA: Box(0, 255, (side, side, 3), np.uint8),
            }
        )
        self._horizon, self._side, self._shows_goal = horizon, side, shows_goal

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.goal = self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self._observe(), {"success": False, "success_once": False, "score": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x = float(np.clip(self.x + 0.3 * action[0], -1.5, 1.5))
        self.steps += 1
        distance = abs(self.x - self.goal)
        success = bool(distance < 0.1)
        info = {"success": success, "success_once": success, "score": float(success)}
        return self._observe(), -distance, success, not success and self.steps >= self._horizon, info

    def _observe(self) -> dict[str, np.ndarray]:
        frame = np.zeros((self._side, self._side, 3), np.uint8)
        frame[:, self._column(self.x)] = 255
        if self._shows_goal:
            frame[: self._side // 2] = 0
            frame[: self._side // 2, self._column(self.goal), 0] = 255
        return {
            "observation.state": np.array([self.x], np.float32),
            "observation.environment_state": np.array([self.x, self.goal], np.float32),
            CAMERA: frame,
        }

    def _column(self, place: float) -> int:
        return int(np.clip((place + 1.5) / 3 * self._side, 0, self._side - 1))


def make_points(count: int, horizon: int = 10, side: int = 8, shows_goal: bool = False) -> SyncVectorEnv:
    """`count` of them, reset in the step that ends an episode."""
    makers = [lambda: Point(horizon, side, shows_goal)] * count
    return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
