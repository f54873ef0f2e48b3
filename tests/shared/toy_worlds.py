"""Beads on wires, which a picture shows whole: an environment, and the world model that knows it exactly."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import image_key
from embodied.encoders.artifact import freeze
from embodied.encoders.pixels import PixelEncoder
from embodied.models.sequence.world_model import Context, Rollout
from embodied.policies.action_space import ActionSpace
from embodied.policies.visual_mpc import VisualMPC
from embodied.policies.visual_planning.goals import Goals

BEADS, SIDE, CAMERA = 8, 16, "front"
KEY = image_key(CAMERA)
STRIDE, END, NEAR = 0.3, 1.5, 0.15  # of an action of 1; where wires end; how near a goal is reached
GOAL = torch.tensor([0.6, -0.9, 1.1, -0.2, -1.2, 0.9, 0.0, -0.6])
SPACE = ActionSpace(low=(-1.0,) * BEADS, high=(1.0,) * BEADS)
_PLACES = torch.linspace(-4, 4, SIDE)


def pictures(places: Tensor) -> Tensor:
    """Frames of beads at places [..., BEADS], uint8 [..., S, S, 3]: a row of blurred light each."""
    light = torch.exp(
        -((_PLACES - places[..., None]) ** 2) / (2 * 0.8**2)
    )  # so wide that a far goal is felt  # (..., BEADS, S)
    rows = light.repeat_interleave(SIDE // BEADS, dim=-2)
    return (255 * rows)[..., None].expand(*rows.shape, 3).round().to(torch.uint8)


def places(frames: Tensor) -> Tensor:
    """The inverse of `pictures`, as well as 8 bits allow."""
    light = frames[..., :: SIDE // BEADS, :, 0].double()
    return ((light * _PLACES).sum(dim=-1) / light.sum(dim=-1)).float()


def moved(there: Tensor, action: Tensor) -> Tensor:
    """Where beads are after an action."""
    return (there + STRIDE * action).clamp(-END, END)


class Beads(gymnasium.Env[Any, Any]):
    """To be brought to `GOAL`; an episode begins anywhere, and ends there or after `horizon` steps."""

    def __init__(self, horizon: int = 25) -> None:
        self.action_space = Box(-1, 1, (BEADS,), np.float32)
        self.observation_space = Dict({KEY: Box(0, 255, (SIDE, SIDE, 3), np.uint8)})
        self._horizon, self.there, self.steps = horizon, GOAL, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.there = torch.from_numpy(self.np_random.uniform(-1.3, 1.3, BEADS)).float()
        self.steps = 0
        return {KEY: pictures(self.there).numpy()}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.there = moved(self.there, torch.from_numpy(np.asarray(action, np.float32)))
        self.steps += 1
        far = float((self.there - GOAL).abs().max())
        done = far < NEAR
        return {KEY: pictures(self.there).numpy()}, -far, done, not done and self.steps >= self._horizon, {}


class BeadWorld:
    """`Beads` as a world model; it also keeps what it was asked."""

    stride: int = 1
    limit: int | None = None
    privileged = False

    def __init__(self, *, history: int = 1, rewards: bool = False, broken: bool = False) -> None:
        self.history, self._rewards, self._broken = history, rewards, broken
        self.asked: list[tuple[Context, Tensor]] = []

    def rollout(self, context: Context, actions: Tensor, *, generator: torch.Generator | None = None) -> Rollout:
        if actions.shape[-1] != BEADS:
            raise UsageError(f"actions: expected {BEADS} values per step, got {actions.shape[-1]}")
        assert context.frames.shape[1] == self.history, context.frames.shape
        self.asked.append((context, actions))
        there = places(context.frames[:, -1])[:, None].expand(*actions.shape[:2], BEADS)
        seen = []
        for step in range(actions.shape[2]):
            there = moved(there, actions[:, :, step])
            seen.append(there)
        walk = torch.stack(seen, dim=2)  # (B, K, H, BEADS)
        rewards = -(walk - GOAL).abs().amax(dim=-1) * (torch.nan if self._broken else 1)
        return Rollout(frames=pictures(walk), rewards=rewards if self._rewards or self._broken else None)

    def shows(self, frames: Tensor) -> Tensor:
        return frames


def bead_policy(world: Any | None = None, **settings: Any) -> VisualMPC:
    """A policy that plans for beads, with `GOAL` as the one goal unless it has others."""
    arguments: dict[str, Any] = {
        **{"model": "given", "camera": CAMERA, "image_size": SIDE, "action_space": SPACE.record()},
        **{"episode_steps": 25, "horizon": 4, "planner_options": {"samples": 48}, "goals": 1},
    }
    policy = VisualMPC(freeze(PixelEncoder()), world=world or BeadWorld(), **{**arguments, **settings})
    if len(policy.goals) == 1:
        policy.set_goals(Goals(frames=pictures(GOAL)[None]))
    return policy.eval()


def run_beads(policy: VisualMPC, seeds: list[int], *, horizon: int = 25) -> list[tuple[bool, int, float]]:
    """Success, steps and mean distance in the end of an episode per seed, all side by side."""
    environments = [Beads(horizon) for _ in seeds]
    frames = [env.reset(seed=seed)[0][KEY] for env, seed in zip(environments, seeds, strict=True)]
    carry = policy.initial(len(seeds))
    found: dict[int, tuple[bool, int, float]] = {}
    while len(found) < len(seeds):
        carry, chunk = policy.act(carry, {KEY: torch.from_numpy(np.stack(frames))})
        for row, env in enumerate(environments):
            if row not in found:
                observation, _, success, over, _ = env.step(chunk[row, 0].numpy())
                frames[row] = observation[KEY]
                if success or over:
                    found[row] = success, env.steps, float((env.there - GOAL).abs().mean())
    return [found[row] for row in range(len(seeds))]
