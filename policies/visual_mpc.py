"""Planning with a world model: look, search for the plan whose predicted future costs least, begin with it, look again.

Visual foresight (Finn and Levine 2017, https://arxiv.org/abs/1610.00696; Ebert et al. 2018,
https://arxiv.org/abs/1812.00568), as MaskViT (Gupta et al. 2022, https://arxiv.org/abs/2206.11894) and VP2 (Tian et al.
2023, https://arxiv.org/abs/2304.13723) plan with predicted videos.

Legend: B environments, R of them that plan now, K candidates, H actions of a plan, A action, G goals, M frames,
V values of a feature, S image side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import image_key
from embodied.encoders.modality import looks as reads_frames
from embodied.models.sequence.world_model import Context, TokenModel, WorldModel
from embodied.policies.action_space import ActionSpace
from embodied.policies.assembly import at_least_one
from embodied.policies.chunk_execution import ChunkQueue, advance, episode_keys, episode_noise, refill
from embodied.policies.visual_planning.costs import (
    Cost,
    Distance,
    FeatureCost,
    Over,
    PixelCost,
    RewardCost,
    TokenCost,
    chosen_frames,
)
from embodied.policies.visual_planning.goals import Goals, nearest_goal
from embodied.policies.visual_planning.memory import (
    Carry,
    at_rest,
    context_of,
    first_frames,
    initial_memory,
    remember,
)
from embodied.policies.visual_planning.models import ModelSettings, make_world_model
from embodied.policies.visual_planning.planners import make_planner
from embodied.policies.visual_planning.reward_head import RewardHead
from embodied.policies.visual_planning.sampling import Bounds, Plan

ENCODED_AT_ONCE = 256  # frames
FIXED = ("encoder.", "model.")  # what names of weights begin with that the policy file only names


class VisualMPC(nn.Module):
    """A policy that plans.

    Every `execute` steps it searches from the plan before, moved on by what was executed with its last action repeated,
    and executes the first `execute` actions of what it finds. Noise depends on how the episode began (on its seed with
    the simulator as model) and on the step alone: the same episode, the same actions, whatever runs beside it.

    An episode's goal is that of the demonstration which began most like it (`goals.nearest_goal`).

    Args:
        encoder: frozen, whose features `cost=features` compares and `cost=reward` reads.
        model: `simulator`, or the run folder of a video objective; see `models.ModelSettings` for it and for
            `model_fingerprint`, `env`, `context`, `rows` and `draws`.
        camera: whose frames it looks at.
        image_size: S, of the environment's frames.
        action_space: `ActionSpace.record` of the environment; finite.
        episode_steps: of an episode at most.
        planner: `cem`, `mppi` or `shooting`, with `planner_options`; see their classes.
        horizon: H, in steps of the environment.
        execute: actions of a plan, before the next one.
        cost: `pixels`, `features`, `tokens` or `reward`, see `costs`.
        feature: the encoder's output; its width is `feature_width`.
        distance: of features.
        over: predicted frames that count: `last` or `all`; None: as the cost has it.
        goals: G, that `set_goals` or the policy file gives; 0 with `cost=reward`.
        starts: whether goals come with the frames that their episodes began with.
        reward_hidden: widths of the head of `cost=reward`; None: no head, the model knows rewards.
        world: a model, in place of `model`.

    Raises:
        UsageError: settings do not go together.
    """

    instructions = None  # it follows none

    def __init__(
        self,
        encoder: nn.Module,
        *,
        model: str,
        camera: str,
        image_size: int,
        action_space: Mapping[str, Any],
        episode_steps: int,
        model_fingerprint: str = "",
        env: Mapping[str, Any] | None = None,
        context: int | None = None,
        rows: int = 64,
        draws: bool = False,
        planner: str = "cem",
        planner_options: Mapping[str, Any] | None = None,
        horizon: int = 10,
        execute: int = 1,
        cost: str = "pixels",
        feature: str = "pooled",
        feature_width: int = 0,
        distance: str = "l1",
        over: str | None = None,
        goals: int = 0,
        starts: bool = False,
        reward_hidden: Sequence[int] | None = None,
        world: WorldModel | None = None,
    ) -> None:
        super().__init__()
        counting, shown = chosen_frames(cost, over, reads=reward_hidden is not None)
        space = ActionSpace.of(action_space)
        self.horizon = at_least_one("policy.horizon", horizon)
        self.execute = at_least_one("policy.execute", execute)
        if self.execute > self.horizon:
            raise UsageError(f"policy.execute must be in [1, policy.horizon={horizon}], got {execute}")
        self.encoder, self.camera, self.input_key = encoder, camera, image_key(camera)
        if not reads_frames(encoder):
            raise UsageError("policy=visual_mpc looks at frames: choose an encoder that reads them, such as default")
        self.image_size, self.episode_steps, self.feature = image_size, episode_steps, feature
        self.action_space, self.bounds = space, Bounds(low=space.low, high=space.high)
        self.head = None if reward_hidden is None else RewardHead(width=feature_width, hidden=reward_hidden)
        settings = ModelSettings(
            name=model,
            fingerprint=model_fingerprint,
            env=env or {},
            camera=camera,
            action_dim=len(space.low),
            context=context,
            rows=rows,
            draws=draws,
        )
        self.model = make_world_model(settings, frames=shown) if world is None else world
        self._check_horizon()
        self.cost = self._make_cost(cost, counting, distance)
        self.planner = make_planner(planner, planner_options or {}, summed_pixels=cost == "pixels")
        self.goals: Tensor
        self.register_buffer("goals", torch.zeros(goals, image_size, image_size, 3, dtype=torch.uint8))
        self.starts: Tensor
        kept = goals if starts else 0
        self.register_buffer("starts", torch.zeros(kept, image_size, image_size, 3, dtype=torch.uint8))
        if cost != "reward" and not goals:
            raise UsageError(f"policy.cost={cost} needs a goal: give policy.goal a picture or a store, or leave it out")

    @property
    def told_seeds(self) -> bool:
        """Whether `initial` wants the simulator's seeds."""
        return self.model.privileged

    def _check_horizon(self) -> None:
        if self.horizon % self.model.stride:
            raise UsageError(
                f"policy.horizon must be a multiple of the model's stride of {self.model.stride}, got {self.horizon}"
            )
        if self.model.limit is not None and self.horizon > self.model.limit:
            raise UsageError(f"policy.horizon must be at most {self.model.limit} for this model, got {self.horizon}")

    def _make_cost(self, kind: str, over: Over, distance: str) -> Cost:
        if kind == "pixels":
            return PixelCost(over=over)
        if kind == "features":
            return FeatureCost(featurize=self.features, distance=cast(Distance, distance), over=over)
        if kind == "tokens":
            if not hasattr(self.model, "code_vectors"):
                raise UsageError("policy.cost=tokens compares codes: the simulator predicts none, choose another cost")
            return TokenCost(model=cast(TokenModel, self.model), over=over)
        return RewardCost(worth=None if self.head is None else self.worth, over=over)

    def set_goals(self, goals: Goals) -> None:
        """Take goals, as many as the policy was made for."""
        self.goals.copy_(goals.frames)
        if len(self.starts):
            assert goals.starts is not None, "goals without the frames that their episodes began with"
            self.starts.copy_(goals.starts)

    def features(self, frames: UInt8[Tensor, "M S S 3"]) -> Float[Tensor, "M V"]:
        """The encoder's output for frames, flat.

        Raises:
            UsageError: it has no such output.
        """
        found = []
        for part in frames.split(ENCODED_AT_ONCE):
            tokens, out = self.encoder(self.encoder.preprocess(part))  # type: ignore[operator]
            outputs = {"tokens": tokens, **out}
            if self.feature not in outputs:
                raise UsageError(f"policy.feature must be one of {', '.join(sorted(outputs))}, got {self.feature!r}")
            found.append(outputs[self.feature].flatten(1).float())
        return torch.cat(found)

    def worth(self, frames: UInt8[Tensor, "M S S 3"]) -> Float[Tensor, " M"]:
        """What the head thinks of frames."""
        assert self.head is not None
        worth: Tensor = self.head(self.features(frames))
        return worth

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the head that reads rewards, all that learns here; `batch` as `RewardSamples` gives it."""
        if self.head is None:
            raise UsageError("this planning policy has nothing to learn: only policy.cost=reward has a head")
        return self.head.loss(batch)

    def initial(self, batch_size: int, *, seeds: Sequence[int] | None = None) -> Carry:
        """What an episode remembers, a row each, at its start; see `visual_planning.memory`.

        Args:
            seeds: of the episodes, for the simulator as model.
        """
        middle = self.bounds.centre(torch.zeros((), device=self.goals.device))
        return initial_memory(
            batch_size,
            model=self.model,
            mean=middle.expand(self.horizon, -1),
            image_size=self.image_size,
            episode_steps=self.episode_steps,
            seeds=seeds,
        )

    @torch.inference_mode()
    def act(self, carry: Carry, observation: Mapping[str, Tensor]) -> tuple[Carry, Tensor]:
        """What is planned from this step on, [B, H, A] inside the bounds; the first action is to be executed now."""
        frames = observation[self.input_key]
        frames = frames if frames.ndim == 4 else frames[:, -1]  # of a history the present one
        self._check_frames(frames)
        carry = self._begun(carry, frames)
        due = (carry["left"] == 0).nonzero()[:, 0]
        queue = ChunkQueue(carry["queue"], carry["left"])
        if len(due):
            plan = self.plan(context_of(carry, frames, due), goal=carry["goal"][due], mean=carry["mean"][due])
            queue = refill(queue, due, plan.actions, execute=self.execute)
            carry = {**carry, "mean": carry["mean"].index_copy(0, due, self._moved_on(plan.actions))}
        queue, chunk = advance(queue)
        return remember({**carry, "queue": queue.actions, "left": queue.left}, frames, chunk[:, 0]), chunk

    def plan(self, context: Context, *, goal: Tensor, mean: Float[Tensor, "R H A"]) -> Plan:
        """The plan for every row of a context.

        Args:
            context: what has been seen.
            goal: int64 [R], a number of a goal each.
            mean: where the search starts.
        """
        wanted = self.cost.goal(self.model, self.goals[goal] if len(self.goals) else self.goals.new_zeros(len(goal), 0))
        keys, steps = context.keys, context.steps * self.planner.draws

        def score(actions: Float[Tensor, "R K H A"]) -> Float[Tensor, "R K"]:
            return self.cost(self.model.rollout(context, actions), wanted)

        def draw(iteration: int, samples: int) -> Float[Tensor, "R K H A"]:
            return episode_noise(keys, steps + iteration, (samples, *mean.shape[1:]), like=mean)

        return self.planner.plan(score, mean, self.bounds, draw)

    def looks(self, carry: Carry) -> Tensor:
        """Whether the next `act` with this carry looks at the frames, bool [B]: always, if it remembers any."""
        return (carry["left"] == 0) | (self.model.history > 1)

    def rest(self, carry: Carry, resting: Tensor) -> Carry:
        """The carry with no more planning for episodes, bool [B], that are over."""
        return at_rest(carry, resting)

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a policy file holds: goals, and the head. Encoder and model are named by their fingerprints."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(FIXED)}

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_tensors`; those of another policy are refused."""
        expected = self.trained_tensors()
        for name in sorted(expected.keys() | tensors.keys()):
            if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape:
                raise UsageError(f"the checkpoint belongs to another policy: it differs in {name}")
        self.load_state_dict(dict(tensors), strict=False)

    def _check_frames(self, frames: Tensor) -> None:
        side = self.image_size
        if frames.shape[1:] != (side, side, 3):
            raise UsageError(
                f"{self.input_key}: this policy was made for frames of {side} x {side} pixels, got "
                f"{list(frames.shape[1:])}"
            )

    def _begun(self, carry: Carry, frames: UInt8[Tensor, "B S S 3"]) -> Carry:
        """The carry with key, goal and former frames where an episode begins."""
        started = carry["started"]
        if bool(started.all()):
            return carry
        keys = carry["seed"] if "seed" in carry else episode_keys(frames).to(started.device)
        goals = nearest_goal(frames, self.starts, goals=len(self.goals))
        return {
            **first_frames(carry, frames),
            "key": torch.where(started, carry["key"], keys),
            "goal": torch.where(started, carry["goal"], goals),
            "started": torch.ones_like(started),
        }

    def _moved_on(self, actions: Float[Tensor, "R H A"]) -> Float[Tensor, "R H A"]:
        """A plan as the start of the next search: from the first action on that is not executed."""
        rest = actions[:, self.execute :]
        return torch.cat([rest, actions[:, -1:].expand(-1, self.execute, -1)], dim=1)
