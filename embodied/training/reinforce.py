"""Reinforcement learning: the loop around an algorithm of stable-baselines3."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UserError
from embodied.core.protocols import LogMetrics, Reporter
from embodied.core.seeding import derive_seed
from embodied.datasets.ticking import ticking
from embodied.training.checkpoints import checkpoint_path, drop_old_states, resume_step, state_path

NO_DISTRIBUTION = "to satisfy the constraint"  # torch's words where a distribution's parameters are not finite


class Algorithm(Protocol):
    """What this loop asks of an algorithm."""

    num_timesteps: int
    action_space: Any
    logger: Any

    def learn(self, total_timesteps: int, *, callback: Any, reset_num_timesteps: bool, log_interval: int) -> Any: ...

    def set_logger(self, logger: Any) -> None: ...


class Environments(Protocol):
    """What it asks of the environments (`policies.rl.vec_env.SlotVecEnv`, wrapped or not)."""

    def restart(self, seed: int) -> None: ...


class AgentState(Protocol):
    """How the whole state of an algorithm is kept (`policies.rl.state`)."""

    def save_state(self, path: Path, algorithm: Any) -> None: ...

    def load_state(self, path: Path, algorithm: Any) -> None: ...

    def end_running_episodes(self, algorithm: Any) -> None: ...


def reinforce(
    algorithm: Algorithm,
    environments: Environments,
    state: AgentState,
    *,
    total_steps: int,
    checkpoint_every: int,
    seed: int,
    folder: Path,
    policy_tensors: Callable[[], Mapping[str, Tensor]],
    metadata: Mapping[str, Any],
    evaluate: Callable[[Path], Mapping[str, float]],
    evaluated: bool,
    log: LogMetrics,
    reporter: Reporter,
) -> Path:
    """Let an algorithm learn, in pieces that each end with a checkpoint, and go on after the last one there is.

    At the start of every piece the environments are restarted and all generators seeded from (seed, piece). So a run
    that was killed continues with what an uninterrupted one would have seen, simulators included, at the price of one
    cut episode per environment and piece.

    Args:
        algorithm: built on `environments`, untrained.
        environments: of the training.
        state: keeps everything that the algorithm is, a replay buffer included.
        total_steps: of all environments together; the algorithm may take a few more to finish an iteration.
        checkpoint_every: steps of a piece.
        seed: of everything.
        folder: gets `step_<n>.safetensors` (policies) and one `state_<n>.safetensors` (to continue).
        policy_tensors: what a policy file holds now.
        metadata: what rebuilds a policy from it.
        evaluate: success, score and return of a policy file on environments of its own; after the state is saved, so
            that an evaluation that fails or is killed costs nothing but itself.
        evaluated: whether an earlier attempt has logged the evaluation of the step to go on from. If not, that comes
            first.
        log: called with every record of the algorithm and of the evaluations.
        reporter: shows progress.

    Returns:
        The path of the final policy.

    Raises:
        UserError: losses, actions or weights are no longer finite. What was saved before stays as it is.
    """
    from stable_baselines3.common.logger import Logger

    done = resume_step(folder)
    if done:
        state.load_state(state_path(folder, done), algorithm)
        if not evaluated:
            log({"step": done, **evaluate(checkpoint_path(folder, done))})
    algorithm.set_logger(Logger(None, [_metrics_writer(log)]))
    with ticking(reporter, total=total_steps, description="train", done=algorithm.num_timesteps) as advance:
        while algorithm.num_timesteps < total_steps:
            piece = algorithm.num_timesteps
            _seed_everything(derive_seed(seed, "reinforce", piece), algorithm)
            environments.restart(derive_seed(seed, "environments", piece))
            state.end_running_episodes(algorithm)
            try:
                algorithm.learn(
                    min(checkpoint_every, total_steps - piece),
                    callback=_counter(advance),
                    reset_num_timesteps=False,
                    log_interval=1,
                )
            except ValueError as error:
                if NO_DISTRIBUTION not in str(error):
                    raise
                raise _diverged("actions of the agent", algorithm.num_timesteps) from error
            step = algorithm.num_timesteps
            algorithm.logger.dump(step)  # what the last update recorded would be lost at a restart
            policy = checkpoint_path(folder, step)
            tensors = dict(policy_tensors())
            if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
                raise _diverged("weights of the agent", step)
            save_checkpoint(policy, tensors, {**metadata, "step": step})
            state.save_state(state_path(folder, step), algorithm)
            drop_old_states(folder)
            log({"step": step, **evaluate(policy)})
    return checkpoint_path(folder, algorithm.num_timesteps)


def _seed_everything(seed: int, algorithm: Algorithm) -> None:
    # stable-baselines3 draws actions and minibatches from the global generators.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    algorithm.action_space.seed(seed % 2**31)


def _diverged(what: str, step: int) -> UserError:
    return UserError(f"the {what} are not finite after {step} steps: lower policy.learning_rate")


def _counter(advance: Callable[[int], None]) -> Any:
    from stable_baselines3.common.callbacks import BaseCallback

    class Counter(BaseCallback):
        """Moves the progress bar."""

        def _on_step(self) -> bool:
            advance(self.training_env.num_envs)
            return True

    return Counter()


def _metrics_writer(log: LogMetrics) -> Any:
    from stable_baselines3.common.logger import KVWriter

    class MetricsWriter(KVWriter):
        """The algorithm's records in metrics.jsonl; its clock is left out, for equal runs to be equal."""

        def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
            kept = {key: float(value) for key, value in key_values.items() if not key.startswith("time/")}
            log({"step": step, **kept})
            if not all(isfinite(value) for key, value in kept.items() if key.endswith("loss")):
                raise _diverged("losses of the agent", step)

        def close(self) -> None:
            pass

    return MetricsWriter()
