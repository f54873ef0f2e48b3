"""One experiment: demonstrations, frozen features, behaviour cloning, closed-loop evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import cache_folder
from embodied.core.protocols import ACTION, ENVIRONMENT_STATE, FEATURES, STATE, Policy, Reporter, image_key
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.feature_cache import encode_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.envs.vector import make_vector_env, reset_slots
from embodied.policies.artifact import build_policy, describe_policy, load_policy
from embodied.policies.bc import feature_name, feature_scales
from embodied.training.checkpoints import checkpoint_path, checkpoint_steps, resume_step
from embodied.training.evaluate import Outcome, SlotEnvironment, evaluate
from embodied.training.imitate import imitate

# First seeds of the episodes of each purpose: they never meet, so nothing is reported on what was trained or chosen on.
SELECTION_SEEDS = 1_000_000
REPORT_SEEDS = 2_000_000
PRETRAINING_SEEDS = 3_000_000
SEEDS_PER_RUN = 1_000
SCALE_SAMPLES = 512  # windows that the scale of the features is measured on


@dataclass(frozen=True, kw_only=True)
class Training:
    """Behaviour cloning's settings, see `training.imitate`."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    checkpoints: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to run; every field but `device`, `workers`, `cache` and `cache_bytes` decides the result.

    Args:
        store: the folder of the demonstrations.
        env: arguments of `envs.task_env.TaskEnv`.
        encoder: as `load_encoder` takes it.
        policy: import path of the policy class and its keyword arguments.
        demos: demonstrations of the store to learn from, the first ones.
        episodes: evaluation episodes; `selection_episodes` per checkpoint for the best-over-checkpoints column.
        shift: visual shift of the reported episodes: `shift` and `shift_strength` of `TaskEnv`.
        seed: of training and of the evaluation episodes.
        workers: simulator processes.
        cache_bytes: what all feature caches may take; those not in use make room.
    """

    store: Path
    env: Mapping[str, Any]
    encoder: str
    policy_target: str
    policy: Mapping[str, Any]
    training: Training
    demos: int
    episodes: int
    selection_episodes: int
    seed: int
    device: torch.device
    workers: int
    shift: Mapping[str, Any] = field(default_factory=dict)
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int | None = None

    @cached_property
    def episode_store(self) -> EpisodeStore:
        return EpisodeStore.open(self.store)

    @cached_property
    def frozen_encoder(self) -> nn.Module:
        """The encoder, on `device`; `scratch` is the one that is not frozen."""
        state_dim = self.episode_store.keys[ENVIRONMENT_STATE].shape[0]
        # The weights of a random or trainable encoder belong to the run: another seed, other weights.
        encoder = load_encoder(self.encoder, seed=derive_seed(self.seed, "encoder"), state_dim=state_dim)
        return encoder.to(self.device)

    @property
    def modality(self) -> str:
        return str(getattr(self.frozen_encoder, "modality", "image"))

    @property
    def trainable(self) -> bool:
        return bool(getattr(self.frozen_encoder, "trainable", False))

    @property
    def head(self) -> str:
        """What tables call the controller."""
        return str(self.policy["head"])

    def final_policy(self, run: RunFolder) -> Path:
        """The policy file of the last step."""
        return checkpoint_path(run.checkpoints, self.training.steps)

    @property
    def feature(self) -> str:
        """The encoder output the policy reads."""
        return str(self.policy.get("feature") or feature_name(self.policy["head"]))

    @cached_property
    def frame_count(self) -> int:
        return sum(self.episode_store.lengths[: self.demos])

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one frame's feature, found by encoding one frame."""
        inputs = torch.from_numpy(self.episode_store.read(self.input_key, 0, 1)).to(self.device)
        return output_shape(self.frozen_encoder, inputs, self.feature)

    @property
    def input_key(self) -> str:
        return ENVIRONMENT_STATE if self.modality == "state" else image_key(str(self.env["camera"]))

    def policy_metadata(self) -> dict[str, Any]:
        """Enough to rebuild the policy, see `policies.artifact`."""
        keys = self.episode_store.keys
        arguments = {
            **self.policy,
            "feature": self.feature,
            "feature_shape": list(self.feature_shape),
            "camera": self.env["camera"],
            "proprioception_dim": keys[STATE].shape[0] if STATE in keys else 0,
            "action_dim": keys[ACTION].shape[0],
        }
        encoder = {
            "spec": self.encoder,
            "seed": derive_seed(self.seed, "encoder"),
            "state_dim": keys[ENVIRONMENT_STATE].shape[0],
            "fingerprint": "" if self.trainable else fingerprint(self.frozen_encoder),
        }
        return describe_policy(self.policy_target, arguments, encoder=encoder, env=self.env)


def output_shape(encoder: nn.Module, inputs: Tensor, name: str) -> tuple[int, ...]:
    """Shape of one frame's `tokens` or named output.

    Raises:
        UsageError: the encoder has no such output.
    """
    with torch.inference_mode():
        tokens, out = encoder(encoder.preprocess(inputs))  # type: ignore[operator]
    outputs = {"tokens": tokens, **out}
    if name not in outputs:
        raise unknown_name("policy.feature", name, outputs)
    return tuple(outputs[name].shape[1:])


def check_policy(experiment: Experiment) -> None:
    """Build encoder and policy once, before anything is collected or written.

    Raises:
        UserError: the encoder cannot be loaded, or the policy's settings do not fit it.
    """
    encoder = load_encoder(experiment.encoder, state_dim=1)
    size = int(experiment.env["image_size"])
    looks = getattr(encoder, "modality", "image") == "image"
    inputs = torch.zeros((1, size, size, 3), dtype=torch.uint8) if looks else torch.zeros(1, 1)
    arguments = {
        **experiment.policy,
        "feature_shape": output_shape(encoder, inputs, experiment.feature),
        "camera": experiment.env["camera"],
        "proprioception_dim": 1,
        "action_dim": 1,
    }
    build_policy(describe_policy(experiment.policy_target, arguments, encoder={}, env={}), encoder)


def encode(experiment: Experiment, reporter: Reporter) -> np.ndarray:
    """What the policy trains on, [F, ...]: cached features, states, or raw frames for a trainable encoder."""
    store, frames = experiment.episode_store, experiment.frame_count
    if experiment.modality == "state" or experiment.trainable:
        return store.read(experiment.input_key, 0, frames)
    cache = encode_store(
        store,
        experiment.frozen_encoder,
        image_key=experiment.input_key,
        outputs=[experiment.feature],
        cache_root=experiment.cache / "features",
        encoder_fingerprint=fingerprint(experiment.frozen_encoder),
        device=experiment.device,
        reporter=reporter,
        max_bytes=experiment.cache_bytes,
        dtype="float32",  # consecutive frames differ by little more than float16 can tell apart
    )
    return cache.array(experiment.feature)[:frames]


def train(experiment: Experiment, run: RunFolder, reporter: Reporter) -> Path:
    """Train the policy, or go on with it; returns the final checkpoint."""
    store, frames = experiment.episode_store, experiment.frame_count
    demonstrations = Demonstrations(
        encode(experiment, reporter),
        state=store.read(STATE, 0, frames) if STATE in store.keys else np.zeros((frames, 0), np.float32),
        action=store.read(ACTION, 0, frames),
        lengths=store.lengths[: experiment.demos],
        history=int(experiment.policy["history"]),
    )
    metadata = experiment.policy_metadata()
    # Fresh weights come from the global generator, as torch's own layers draw them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(experiment.seed, "policy"))
        policy = build_policy(metadata, experiment.frozen_encoder)
    policy.set_action_statistics(*demonstrations.action_statistics())  # type: ignore[operator]
    if not experiment.trainable:
        sample = demonstrations.batch(np.linspace(0, frames - 1, min(frames, SCALE_SAMPLES)).astype(np.int64))
        policy.set_feature_scale(*feature_scales(sample[FEATURES]))  # type: ignore[operator]
    settings = experiment.training
    with run.metrics(keep=resume_step(run.checkpoints)) as log:
        return imitate(
            policy.to(experiment.device),
            demonstrations,
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            checkpoints=settings.checkpoints,
            seed=experiment.seed,
            checkpoint_folder=run.checkpoints,
            metadata=metadata,
            device=experiment.device,
            log=log,
            reporter=reporter,
        )


def episode_seeds(first: int, seed: int, episodes: int) -> list[int]:
    """Environment seeds of a run's episodes, disjoint between purposes and between runs with different seeds.

    Raises:
        UsageError: the seed or the number of episodes would reach into the seeds of another purpose or run.
    """
    if not 0 <= seed < SEEDS_PER_RUN:
        raise UsageError(f"seed must be in [0, {SEEDS_PER_RUN}), got {seed}")
    if not 1 <= episodes <= SEEDS_PER_RUN:
        raise UsageError(f"episodes must be in [1, {SEEDS_PER_RUN}], got {episodes}")
    return [first + SEEDS_PER_RUN * seed + number for number in range(episodes)]


def open_simulators(
    path: Path, *, device: torch.device, count: int, frames: bool, shift: Mapping[str, Any] | None = None
) -> closing[gymnasium.vector.VectorEnv[Any, Any, Any]]:
    """The environments that a policy file was trained for, `count` side by side, to be used in a `with`.

    Args:
        path: the policy file.
        device: where it will run.
        count: environments; at least one.
        frames: render even if the policy does not look.
        shift: see `Experiment`.
    """
    policy, metadata = load_policy(path, device=device)
    looks = getattr(policy.encoder, "modality", "image") == "image"
    options = {**metadata["env"], **(shift or {}), "images": frames or looks}
    return closing(make_vector_env(options, num_envs=max(1, count)))


def evaluate_checkpoint(
    path: Path,
    seeds: Sequence[int],
    simulators: gymnasium.vector.VectorEnv[Any, Any, Any],
    *,
    device: torch.device,
    reporter: Reporter,
    description: str,
    record: bool = False,
) -> list[Outcome]:
    """Closed-loop episodes of a policy file; with `record` the first success and failure keep their frames."""
    policy, metadata = load_policy(path, device=device)
    return evaluate(
        cast(Policy, policy),
        cast(SlotEnvironment, simulators),
        reset_slots,
        seeds,
        device=device,
        reporter=reporter,
        description=description,
        record_key=image_key(str(metadata["env"]["camera"])) if record else None,
    )


def select(experiment: Experiment, run: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
    """Success of every checkpoint on seeds of its own, and the best of them (the later one of equals)."""
    if not experiment.selection_episodes:
        return None
    seeds = episode_seeds(SELECTION_SEEDS, experiment.seed, experiment.selection_episodes)
    steps = checkpoint_steps(experiment.training.steps, experiment.training.checkpoints)
    tried = []
    count = min(experiment.workers, len(seeds))
    with open_simulators(
        checkpoint_path(run.checkpoints, steps[-1]), device=experiment.device, count=count, frames=False
    ) as simulators:
        for step in steps:
            outcomes = evaluate_checkpoint(
                checkpoint_path(run.checkpoints, step),
                seeds,
                simulators,
                device=experiment.device,
                reporter=reporter,
                description=f"select {step}",
            )
            tried.append({"step": step, "success_rate": float(np.mean([outcome.success for outcome in outcomes]))})
    best = max(tried, key=lambda row: (row["success_rate"], row["step"]))
    return {**best, "episodes": len(seeds), "seeds": seeds, "checkpoints": tried}


def report_final(experiment: Experiment, run: RunFolder, reporter: Reporter) -> list[Outcome]:
    """The episodes that are reported: the final checkpoint on fresh seeds, with frames to show."""
    path = checkpoint_path(run.checkpoints, experiment.training.steps)
    seeds = episode_seeds(REPORT_SEEDS, experiment.seed, experiment.episodes)
    count = min(experiment.workers, len(seeds))
    with open_simulators(
        path, device=experiment.device, count=count, frames=True, shift=experiment.shift
    ) as simulators:
        return evaluate_checkpoint(
            path,
            seeds,
            simulators,
            device=experiment.device,
            reporter=reporter,
            description="evaluate",
            record=True,
        )
