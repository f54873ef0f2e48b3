"""The simulator in place of a world model: the upper bound of planning, since it makes no mistake.

Legend: B environments, K candidates, H actions of a plan, F frames shown, A action, L actions of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import image_key
from embodied.envs.snapshots import Snapshot, is_exact
from embodied.envs.task_env import TaskEnv
from embodied.models.sequence.world_model import Context, Rollout

Shown = Literal["none", "last", "all"]


class SimulatorModel:
    """Tries candidates out in environments of its own, which follow those that are controlled.

    An environment of the same options, reset to the same seed and given the same actions, is where the controlled one
    is: nothing is read from that one. It is set back after each candidate (`envs.snapshots`). What it says depends on
    the context alone; that it keeps its environments where they are saves time, no more.

    Rewards are the suite's. After a success that ends an episode its reward is repeated, as if the robot rested there;
    after any other end there is none.

    Args:
        options: of `TaskEnv`.
        camera: whose frames are shown.
        frames: shown of a candidate: `none` (over ten times faster), the one after its `last` action, or `all`.

    Raises:
        UsageError: the environment has chains of tasks, of which the next one changes the scene.
        UserError: environments of this suite cannot be set back exactly.
    """

    history = 1
    stride = 1
    limit: int | None = None
    privileged = True

    def __init__(self, options: Mapping[str, Any], *, camera: str, frames: Shown = "none") -> None:
        if frames not in get_args(Shown):
            raise unknown_name("frames of the simulator", str(frames), get_args(Shown))
        if int(options.get("chain") or 1) > 1:
            raise UsageError(
                f"policy.model=simulator plans within one task: env.chain must be 1, got {options['chain']}"
            )
        self._options = {**options, "camera": camera, "images": frames != "none", "history": 1}
        self._key, self._frames = image_key(camera), frames
        self._twins: list[_Twin] = []

    def rollout(
        self, context: Context, actions: Float[Tensor, "B K H A"], *, generator: torch.Generator | None = None
    ) -> Rollout:
        """Rewards [B, K, H], and frames uint8 [B, K, F, S, S, 3] with F of 1 or H, if any are shown."""
        if context.seeds is None or context.past is None:
            raise UsageError(
                "policy.model=simulator needs to know the seed of the episode: it plans in simulation, not on a robot"
            )
        plans = actions.detach().cpu().numpy().astype(np.float32)
        rewards = np.zeros(plans.shape[:3], np.float32)
        frames = []
        rows = zip(context.seeds.tolist(), context.steps.tolist(), context.past.cpu().numpy(), strict=True)
        for row, (seed, steps, past) in enumerate(rows):
            twin = self._twin(row)
            twin.follow(seed, past[:steps])
            for candidate, plan in enumerate(plans[row]):
                rewards[row, candidate], shown = twin.try_out(plan, frames=self._frames)
                frames.append(shown)
        tried = torch.from_numpy(rewards).to(actions.device)
        if self._frames == "none":
            return Rollout(rewards=tried)
        seen = torch.from_numpy(np.stack(frames)).to(actions.device).unflatten(0, actions.shape[:2])
        return Rollout(rewards=tried, frames=seen)

    def shows(self, frames: UInt8[Tensor, "B S S 3"]) -> UInt8[Tensor, "B S S 3"]:
        """The frames themselves."""
        return frames

    def close(self) -> None:
        """End its environments."""
        for twin in self._twins:
            twin.env.close()
        self._twins.clear()

    def _twin(self, row: int) -> _Twin:
        while len(self._twins) <= row:
            env = TaskEnv(**self._options)
            if not self._twins and not is_exact(env, 0):
                env.close()
                raise UserError(
                    f"policy.model=simulator: episodes of env={env.suite} task={env.task} cannot be set back exactly, "
                    "so candidates cannot be compared: choose another suite, or a learned model"
                )
            self._twins.append(_Twin(env, self._key))
        return self._twins[row]


class _Twin:
    """An environment that is where a controlled one is."""

    def __init__(self, env: TaskEnv, key: str) -> None:
        self.env, self._key = env, key
        self._seed: int | None = None
        self._done = np.zeros((0, 0), np.float32)  # the actions since the reset
        self._snapshot: Snapshot | None = None

    def follow(self, seed: int, actions: np.ndarray) -> None:
        """Go where these actions lead from the start of that seed's episode."""
        known = len(self._done)
        if self._seed != seed or known > len(actions) or not np.array_equal(self._done, actions[:known]):
            self.env.reset(seed=seed)
            self._seed, known = seed, 0
        elif self._snapshot is not None:
            self._snapshot.restore()
        self.env.looking = False
        for action in actions[known:]:
            self.env.step(action)
        self._done = actions.copy()
        self._snapshot = Snapshot(self.env)

    def try_out(self, plan: np.ndarray, *, frames: Shown) -> tuple[np.ndarray, np.ndarray]:
        """The rewards [H] of a plan, and the frames of it that are asked for [F, S, S, 3]."""
        assert self._snapshot is not None
        self._snapshot.restore()
        rewards = np.zeros(len(plan), np.float32)
        seen = []
        over = rests = False
        for step, action in enumerate(plan):
            if over:
                rewards[step] = rewards[step - 1] if rests else 0.0
            else:
                self.env.looking = frames == "all" or (frames == "last" and step == len(plan) - 1)
                observation, rewards[step], terminated, truncated, info = self.env.step(action)
                over, rests = terminated or truncated, bool(info["success"])
                if over and frames == "last" and not self.env.looking:
                    picture = self.env.render()  # of its only camera
                    assert picture is not None, self.env.render_mode
                    observation = {self._key: picture}
            if frames == "all" or (frames == "last" and step == len(plan) - 1):
                seen.append(observation[self._key])
        return rewards, np.stack(seen) if seen else np.zeros((0,), np.uint8)
