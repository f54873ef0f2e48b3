"""One experiment of planning with a world model: goals or a head that reads rewards, then closed-loop episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from embodied.bench.imitation_data import output_shape
from embodied.bench.planning_speed import measure_planning
from embodied.bench.session import Session
from embodied.bench.statistics.sequential import SequentialTest
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.files import cache_folder
from embodied.core.protocols import Reporter, image_key
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.policies.action_space import ActionSpace
from embodied.policies.artifact import build_policy, describe_policy
from embodied.policies.visual_mpc import VisualMPC
from embodied.policies.visual_planning.goals import Goals, goals_from_image, goals_from_store
from embodied.policies.visual_planning.models import SIMULATOR, model_fingerprint
from embodied.policies.visual_planning.reward_head import RewardSamples, Target, explained, frame_worth
from embodied.training.checkpoints import checkpoint_path, resume_step
from embodied.training.imitate import Training, imitate

READ_AT_ONCE = 256  # frames
HELD_OUT = 5  # every fifth episode tells how good the head is


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What to run; every field but `device`, `workers`, `cache`, `cache_bytes` and `session` decides the result.

    Args:
        env: arguments of `envs.task_env.TaskEnv`.
        encoder: as `load_encoder` takes it; frozen.
        policy_target: import path of the policy class; `policy` of its keyword arguments those that settings name, and
            `model_fingerprint` where it must be that of the model.
        action_space: of the environment.
        picture: an image file of the goal; None: goals are the last frames of demonstrations, if there are any goals.
        store: of demonstrations, for goals and for the head that reads rewards; None: none are needed.
        given: whether `store` was named by the user; else the run collects it.
        demos: of the store, the first ones.
        target, discount: of the head, see `reward_head.frame_worth`.
        training: of the head.
        episodes, seed, device, workers, shift, cache, cache_bytes, slots, record, stopping, session: see `Experiment`.
    """

    env: Mapping[str, Any]
    encoder: str
    policy_target: str
    policy: Mapping[str, Any]
    action_space: ActionSpace
    training: Training
    episodes: int
    seed: int
    device: torch.device
    workers: int
    picture: Path | None = None
    store: Path | None = None
    given: bool = False
    demos: int = 0
    target: Target = "reward"
    discount: float = 0.97
    shift: Mapping[str, Any] = field(default_factory=dict)
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int | None = None
    slots: int | None = None
    record: bool = True
    stopping: SequentialTest | None = None
    session: Session = field(default_factory=Session)

    @property
    def head(self) -> str:
        """What tables call the controller."""
        model = str(self.policy["model"])
        return f"{self.policy['planner']}-{model if model == SIMULATOR else 'video'}-{self.policy['cost']}"

    @property
    def learns(self) -> bool:
        """Whether there is a head to train."""
        return self.policy.get("reward_hidden") is not None

    @property
    def has_goals(self) -> bool:
        """Whether futures are compared with pictures."""
        return self.policy["cost"] != "reward"

    @cached_property
    def frozen_encoder(self) -> nn.Module:
        """On `device`."""
        return self.session.encoder(self.encoder, seed=derive_seed(self.seed, "encoder")).to(self.device)

    @cached_property
    def goals(self) -> Goals | None:
        """What is to be reached; None where nothing is compared with a picture."""
        if not self.has_goals:
            return None
        size = int(self.env["image_size"])
        if self.picture is not None:
            return goals_from_image(self.picture, size)
        assert self.store is not None, self.policy
        store = EpisodeStore.open(self.store)
        return goals_from_store(store, camera=str(self.env["camera"]), image_size=size, episodes=self.demos)

    @cached_property
    def known_model(self) -> str:
        """The fingerprint of the model, which the policy file names.

        Raises:
            UserError: the model has another one than the policy's settings expect.
        """
        found = model_fingerprint(str(self.policy["model"]))
        expected = self.policy.get("model_fingerprint", found)
        if found != expected:
            raise UserError(
                f"policy.model={self.policy['model']} has changed since this benchmark began: its fingerprint was "
                f"{expected[:12]} and is {found[:12]}. Restore the run, or choose another root="
            )
        return found

    def policy_metadata(self) -> dict[str, Any]:
        """Enough to rebuild the policy, see `policies.artifact`."""
        goals = self.goals
        arguments = self.arguments(
            goals=0 if goals is None else len(goals.frames),
            starts=goals is not None and goals.starts is not None,
        )
        encoder = {
            "spec": self.encoder,
            "seed": derive_seed(self.seed, "encoder"),
            "state_dim": None,
            "fingerprint": fingerprint(self.frozen_encoder),
        }
        return describe_policy(self.policy_target, arguments, encoder=encoder, env=self.env)

    def arguments(self, *, goals: int, starts: bool) -> dict[str, Any]:
        """Of the policy class, beside the encoder; JSON-able."""
        size, feature = int(self.env["image_size"]), str(self.policy["feature"])
        width = 0
        if self.learns:
            frame = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=self.device)
            width = int(np.prod(output_shape(self.frozen_encoder, frame, feature)))
        return {
            **self.policy,
            "model_fingerprint": self.known_model,
            "env": dict(self.env) if self.policy["model"] == SIMULATOR else None,
            "camera": self.env["camera"],
            "image_size": size,
            "action_space": self.action_space.record(),
            "episode_steps": int(self.env["horizon"]),
            "feature_width": width,
            "goals": goals,
            "starts": starts,
        }

    def final_policy(self, run: RunFolder) -> Path:
        """The policy file."""
        return checkpoint_path(run.checkpoints, self.training.steps if self.learns else 0)


def check_planning(experiment: Planning) -> None:
    """Build encoder, model and policy once, before anything is collected or written.

    Raises:
        UserError: the model or the encoder cannot be loaded, or settings do not go together.
    """
    if experiment.picture is not None or experiment.given:
        goals = experiment.goals  # refuses what holds none
        count, starts = (0, False) if goals is None else (len(goals.frames), goals.starts is not None)
    else:
        count, starts = int(experiment.has_goals), False
    if experiment.given and experiment.learns:
        assert experiment.store is not None
        labelled(experiment, EpisodeStore.open(experiment.store))
    encoder = load_encoder(experiment.encoder, state_dim=1)
    if getattr(encoder, "trainable", False):
        raise UsageError(f"policy=visual_mpc needs a frozen encoder, got encoder={experiment.encoder}")
    arguments = experiment.arguments(goals=count, starts=starts)
    build_policy(describe_policy(experiment.policy_target, arguments, encoder={}, env={}), encoder)


def prepare(experiment: Planning, run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Give the policy its goals, or train its head, and write the policy file; what is worth to be known of that."""
    metadata = experiment.policy_metadata()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(experiment.seed, "policy"))
        policy = cast(VisualMPC, build_policy(metadata, experiment.frozen_encoder)).to(experiment.device).eval()
    found: dict[str, Any] = {}
    if experiment.goals is not None:
        policy.set_goals(experiment.goals)
        found["goals"] = len(experiment.goals.frames)
    path = experiment.final_policy(run)
    if experiment.learns:
        found |= train_head(experiment, policy, run, metadata, reporter)
    else:
        save_checkpoint(path, policy.trained_tensors(), {**metadata, "step": 0})
    speed = measure_planning(policy, calls=2)
    reporter.note(
        f"planning: {speed['calls_per_second']:.3g} plans per second, {speed['candidates_per_second']:.3g} candidates "
        f"per second of {speed['actions']:.0f} actions each"
    )
    return {**found, "checkpoint": path.name, "planning": speed}


def train_head(
    experiment: Planning, policy: VisualMPC, run: RunFolder, metadata: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Train the head on the store's frames as the model shows them; R2 on episodes that it did not see."""
    assert experiment.store is not None and policy.head is not None
    store = EpisodeStore.open(experiment.store)
    worth, known = labelled(experiment, store)
    lengths = store.lengths[: experiment.demos]
    episode = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    held = (episode % HELD_OUT == HELD_OUT - 1) & known
    trained = known & ~held
    features = shown_features(policy, store, image_key(str(experiment.env["camera"])), len(worth), reporter)
    policy.head.fit(worth[trained])
    samples = RewardSamples(features[trained], worth[trained])
    with run.metrics(keep=resume_step(run.checkpoints)) as log:
        imitate(
            policy,
            samples,
            experiment.training,
            seed=experiment.seed,
            checkpoint_folder=run.checkpoints,
            metadata=metadata,
            device=experiment.device,
            log=log,
            reporter=reporter,
        )
    policy.eval()
    with torch.inference_mode():
        predicted = policy.head(features.to(experiment.device)).cpu()
    share = explained(predicted[held], worth[held])
    told = "none to tell, since they are all worth the same" if share is None else f"{share:.3f}"
    reporter.note(f"reward head: R2 {told} on {int(held.sum())} frames of episodes that it was not trained on")
    return {"reward_r2": share, "reward_frames": int(trained.sum())}


def labelled(experiment: Planning, store: EpisodeStore) -> tuple[Tensor, Tensor]:
    """What frames are worth and whether that is known, with enough episodes to hold some out.

    Raises:
        UserError: there are too few, or the store lacks rewards or frames.
    """
    key = image_key(str(experiment.env["camera"]))
    if key not in store.keys:
        raise UserError(f"policy.cost=reward: {store.path} holds no frames of {key}: it has {list(store.image_keys)}")
    if min(len(store), experiment.demos) < HELD_OUT:
        raise UserError(
            f"policy.cost=reward: a head is trained on {HELD_OUT} episodes at least, got "
            f"{min(len(store), experiment.demos)}: raise demos"
        )
    return frame_worth(store, episodes=experiment.demos, target=experiment.target, discount=experiment.discount)


@torch.inference_mode()
def shown_features(policy: VisualMPC, store: EpisodeStore, key: str, count: int, reporter: Reporter) -> Tensor:
    """Features of the first frames as the model shows them, [F, V], on the CPU: what a predicted frame gives."""
    found = []
    for start in reporter.track(
        range(0, count, READ_AT_ONCE), total=-(-count // READ_AT_ONCE), description="encode for the reward head"
    ):
        frames = torch.from_numpy(store.read(key, start, min(start + READ_AT_ONCE, count)))
        found.append(policy.features(policy.model.shows(frames.to(policy.goals.device))).cpu())
    return torch.cat(found)
