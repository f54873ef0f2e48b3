"""One experiment of reinforcement learning: an agent on frozen features or frames, evaluated like other policies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied.bench.policy_episodes import SELECTION_SEEDS, episode_seeds, run_episodes
from embodied.bench.session import Session
from embodied.bench.statistics.sequential import SequentialTest
from embodied.core.errors import UsageError
from embodied.core.files import cache_folder, write_text
from embodied.core.protocols import ACTION, REWARD, STATE, Reporter, image_key
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import RunFolder, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.feature_cache import encode_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.encoders.modality import encode_vectors, input_keys, looks
from embodied.envs.vector import make_vector_env
from embodied.policies.artifact import describe_policy
from embodied.policies.card import CARD, agent_card
from embodied.policies.rl import state
from embodied.policies.rl.policy import RLPolicy, agent_module
from embodied.training.checkpoints import checkpoint_path, resume_step
from embodied.training.reinforce import reinforce

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

AGENTS = "embodied.policies.rl."


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """What to run; every field but `device`, `workers`, `cache`, `cache_bytes` and `session` decides the result.

    Args:
        env: arguments of `envs.task_env.TaskEnv`.
        state_dim: S of `observation.environment_state`.
        encoder: as `load_encoder` takes it; it stays frozen, but `scratch` for agents that learn one.
        method: module of the agent in `policies/rl`; `settings` of the agent.
        feature: the encoder's output that the agent sees.
        steps: of all training environments together; `num_envs` of them.
        checkpoint_every: steps between checkpoints, each evaluated on `selection_episodes` episodes of their own.
        episodes: that are reported of the final policy.
        shift: visual shift of the reported episodes: `shift` and `shift_strength` of `TaskEnv`.
        seed: of training and of the evaluation episodes.
        workers: simulator processes that all environments are spread over, of training and of an evaluation.
        store: of demonstrations, for an agent that starts from them; `demos` of its first episodes.
        cache_bytes: what all feature caches may take.
        slots, record, stopping, session: see `Experiment`.
    """

    env: Mapping[str, Any]
    state_dim: int
    encoder: str
    method: str
    settings: Mapping[str, Any]
    steps: int
    num_envs: int
    checkpoint_every: int
    selection_episodes: int
    episodes: int
    seed: int
    device: torch.device
    workers: int
    feature: str = "pooled"
    shift: Mapping[str, Any] = field(default_factory=dict)
    store: Path | None = None
    demos: int = 0
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int | None = None
    slots: int | None = None
    record: bool = True
    stopping: SequentialTest | None = None
    session: Session = field(default_factory=Session)

    @property
    def head(self) -> str:
        """What tables call the controller."""
        return self.method

    @cached_property
    def frozen_encoder(self) -> nn.Module:
        """On `device`."""
        seed = derive_seed(self.seed, "encoder")
        return self.session.encoder(self.encoder, seed=seed, state_dim=self.state_dim).to(self.device)

    @property
    def needs_demonstrations(self) -> bool:
        """Whether the agent starts from demonstrations."""
        return bool(getattr(agent_module(self.method), "NEEDS_DEMONSTRATIONS", False))

    @property
    def reads_frames(self) -> bool:
        """Whether the agent learns an encoder of its own, from frames."""
        return bool(getattr(self.frozen_encoder, "trainable", False))

    @property
    def looks(self) -> bool:
        """Whether the encoder reads frames."""
        return looks(self.frozen_encoder)

    def policy_metadata(self, **arguments: Any) -> dict[str, Any]:
        """Enough to rebuild the policy, see `policies.artifact`; `arguments` are what only the environments know."""
        encoder = {
            "spec": self.encoder,
            "seed": derive_seed(self.seed, "encoder"),
            "state_dim": self.state_dim,
            "fingerprint": "" if self.reads_frames else fingerprint(self.frozen_encoder),
        }
        fixed = {
            "method": self.method,
            "settings": dict(self.settings),
            "camera": self.env["camera"],
            "feature": self.feature,
        }
        target = f"{RLPolicy.__module__}.{RLPolicy.__name__}"
        return describe_policy(target, {**fixed, **arguments}, encoder=encoder, env=self.env)

    def final_policy(self, run: RunFolder) -> Path:
        """The policy file of the last step."""
        return checkpoint_path(run.checkpoints, resume_step(run.checkpoints))


def check_agent(experiment: Reinforcement) -> None:
    """Build the agent's settings and the encoder once, before anything is written.

    Raises:
        UserError: a setting or the encoder makes no sense, or stable-baselines3 is missing.
    """
    module = agent_module(experiment.method)
    try:
        agent = module.AGENT(**experiment.settings)
    except TypeError as error:
        raise UsageError(f"policy={experiment.method}: {error}") from error
    if hasattr(agent, "check"):
        agent.check(experiment.num_envs)
    wanted = f"policy={experiment.method} needs"
    if experiment.reads_frames and not hasattr(module.AGENT, "frames_network"):
        raise UsageError(
            f"{wanted} a frozen encoder, got encoder={experiment.encoder}: policy=ppo and policy=drqv2 learn one"
        )
    if not experiment.reads_frames and not hasattr(module.AGENT, "network"):
        raise UsageError(f"{wanted} encoder=scratch: it learns its own, got encoder={experiment.encoder}")
    if not experiment.reads_frames and int(experiment.env.get("history", 1)) > 1:
        raise UsageError("policy.history above 1 needs encoder=scratch: features are of the present frame")


def learn(experiment: Reinforcement, run: RunFolder, reporter: Reporter) -> Path:
    """Train the agent, or go on with it; returns the final policy."""
    from embodied.policies.rl.vec_env import SlotVecEnv

    agent = import_module(AGENTS + experiment.method).AGENT(**experiment.settings)
    options = {**experiment.env, "images": experiment.looks}
    environment = make_vector_env(
        options, num_envs=experiment.num_envs, workers=experiment.workers, autoreset="same_step"
    )
    with closing(environment) as simulators:
        slots = SlotVecEnv(simulators, seed=experiment.seed)
        observed, seen = observe(experiment, agent, slots)
        network = (
            agent.frames_network()
            if experiment.reads_frames
            else agent.network(feature_dim=seen["feature_dim"], normalise=experiment.looks)
        )
        algorithm = agent.build(
            observed,
            network=network,
            total_steps=experiment.steps,
            seed=derive_seed(experiment.seed, "agent") % 2**31,
            device=experiment.device,
        )
        metadata = experiment.policy_metadata(
            **seen,
            action_low=slots.action_space.low.tolist(),
            action_high=slots.action_space.high.tolist(),
        )

        def policy_tensors() -> dict[str, Tensor]:
            return {f"agent.{name}": tensor for name, tensor in algorithm.policy.state_dict().items()}

        with run.metrics(keep=resume_step(run.checkpoints)) as log:
            if experiment.needs_demonstrations and not resume_step(run.checkpoints):
                seed = derive_seed(experiment.seed, "clone")
                log({"step": 0, **agent.clone(algorithm, **demonstrations(experiment, reporter), seed=seed)})
            final = reinforce(
                algorithm,
                slots,
                state,
                total_steps=experiment.steps,
                checkpoint_every=experiment.checkpoint_every,
                seed=experiment.seed,
                folder=run.checkpoints,
                policy_tensors=policy_tensors,
                metadata=metadata,
                evaluate=lambda path: measure(experiment, path),
                evaluated=is_evaluated(experiment, run),
                log=log,
                reporter=reporter,
            )
    training = {"steps": experiment.steps, "environments": experiment.num_envs, "seed": experiment.seed}
    write_text(run.checkpoints / CARD, agent_card(metadata, command=run.command, training=training))
    return final


def is_evaluated(experiment: Reinforcement, run: RunFolder) -> bool:
    """Whether the policy of the step to go on from has been measured, if any is to be."""
    step, records = resume_step(run.checkpoints), read_metrics(run.path / "metrics.jsonl")
    return not experiment.selection_episodes or any(
        record["step"] == step for record in records if "success_rate" in record
    )


def observe(experiment: Reinforcement, agent: Any, environments: VecEnv) -> tuple[VecEnv, dict[str, Any]]:
    """The environments as the agent sees them, and what of that a policy file must say."""
    camera = str(experiment.env["camera"])
    if experiment.reads_frames:
        frames = agent.see_frames(environments, camera=camera)
        shape = list(frames.frames_shape)
        return frames, {"feature_dim": 0, "proprioception_dim": frames.state_dim, "frames_shape": shape}
    from embodied.policies.rl.frozen_features import FrozenFeatures

    features = FrozenFeatures(
        environments,
        experiment.frozen_encoder,
        camera=camera,
        feature=experiment.feature,
        device=experiment.device,
    )
    return features, {"feature_dim": features.feature_dim, "proprioception_dim": features.state_dim}


def demonstrations(experiment: Reinforcement, reporter: Reporter) -> dict[str, Any]:
    """What the agent would have seen and done in the demonstrations: observations, actions, rewards, lengths."""
    assert experiment.store is not None, experiment.method
    store = EpisodeStore.open(experiment.store)
    lengths = store.lengths[: experiment.demos]
    frames = sum(lengths)
    if experiment.looks:
        cache = encode_store(
            store,
            experiment.frozen_encoder,
            image_key=image_key(str(experiment.env["camera"])),
            outputs=[experiment.feature],
            cache_root=experiment.cache / "features",
            encoder_fingerprint=fingerprint(experiment.frozen_encoder),
            device=experiment.device,
            reporter=reporter,
            max_bytes=experiment.cache_bytes,
            dtype="float32",
        )
        features = np.asarray(cache.array(experiment.feature)[:frames])
    else:
        (key,) = input_keys(experiment.frozen_encoder, [])
        features = encode_vectors(experiment.frozen_encoder, store.read(key, 0, frames), experiment.feature)
    seen = [features.reshape(frames, np.prod(features.shape[1:], dtype=int))]
    if STATE in store.keys:
        seen.append(store.read(STATE, 0, frames))
    return {
        "observations": np.concatenate(seen, axis=1),
        "actions": store.read(ACTION, 0, frames),
        "rewards": store.read(REWARD, 0, frames),
        "lengths": lengths,
    }


def measure(experiment: Reinforcement, path: Path) -> dict[str, float]:
    """Success, score and return of a policy file on the selection episodes."""
    if not experiment.selection_episodes:
        return {}
    seeds = episode_seeds(SELECTION_SEEDS, experiment.seed, experiment.selection_episodes)
    outcomes = run_episodes(experiment, path, seeds, SilentReporter(), frames=False)
    return {
        "success_rate": float(np.mean([outcome.success for outcome in outcomes])),
        "score": float(np.mean([outcome.score for outcome in outcomes])),
        "return": float(np.mean([outcome.total_reward for outcome in outcomes])),
    }
