"""Closed-loop episodes of policy files: their seeds, their environments, their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from embodied.bench.session import Session, Simulators
from embodied.bench.statistics.sequential import SequentialTest
from embodied.core.errors import UsageError
from embodied.core.protocols import Policy, Reporter, image_key
from embodied.encoders.modality import looks
from embodied.envs.vector import reset_slots
from embodied.policies.action_space import ActionSpace, check_same_actions
from embodied.policies.artifact import load_policy
from embodied.training.evaluate import Enough, Lane, Outcome, SlotEnvironment, evaluate_lanes

# First seeds of the episodes of each purpose: they never meet, so nothing is reported on what was trained or chosen on.
SELECTION_SEEDS = 1_000_000
REPORT_SEEDS = 2_000_000
PRETRAINING_SEEDS = 3_000_000
SEEDS_PER_RUN = 1_000


class Evaluated(Protocol):
    """What an experiment says of its episodes; see `experiment.Experiment`."""

    @property
    def device(self) -> torch.device: ...

    @property
    def workers(self) -> int: ...

    @property
    def slots(self) -> int | None: ...

    @property
    def session(self) -> Session: ...


def camera_list(env: Mapping[str, Any]) -> list[str]:
    """The cameras of an environment's options."""
    return [env["camera"]] if isinstance(env["camera"], str) else [str(name) for name in env["camera"]]


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
    path: Path,
    *,
    device: torch.device,
    count: int,
    frames: bool,
    shift: Mapping[str, Any] | None = None,
    workers: int | None = None,
    session: Session | None = None,
) -> AbstractContextManager[Simulators]:
    """The environments that a policy file was trained for, `count` side by side, to be used in a `with`.

    Args:
        path: the policy file.
        device: where it will run.
        count: environments; at least one.
        frames: render even if the policy does not look.
        shift: see `Experiment`.
        workers: simulator processes; None: as many as environments.
        session: may have them already.
    """
    session = session or Session()
    policy, metadata = load_policy(path, device=device, load=session.encoder)
    options = {**metadata["env"], **(shift or {}), "images": frames or looks(policy.encoder)}
    return session.simulators(options, count=max(1, count), workers=count if workers is None else workers)


def evaluate_checkpoint(
    path: Path,
    seeds: Sequence[int],
    simulators: Simulators,
    *,
    device: torch.device,
    reporter: Reporter,
    description: str,
    record: bool = False,
    session: Session | None = None,
    stopping: SequentialTest | None = None,
) -> list[Outcome]:
    """Closed-loop episodes of a policy file; with `record` the first success and failure keep their frames.

    With `stopping` they end when their scores are enough for it, in the order of the seeds.
    """
    policy, metadata = load_policy(path, device=device, load=(session or Session()).encoder)
    check_actions(path, metadata, simulators)
    slots = cast(SlotEnvironment, simulators)
    lane = lane_of(policy, metadata, seeds, slots=slots.num_envs, record=record, stopping=stopping)
    (outcomes,) = evaluate_lanes([lane], slots, reset_slots, device=device, reporter=reporter, description=description)
    return outcomes


def run_episodes(
    experiment: Evaluated,
    path: Path,
    seeds: Sequence[int],
    reporter: Reporter,
    *,
    frames: bool,
    shift: Mapping[str, Any] | None = None,
    stopping: SequentialTest | None = None,
) -> list[Outcome]:
    """Closed-loop episodes of a policy file on environments of their own; see `evaluate_checkpoint`.

    Args:
        experiment: says where, and how many run side by side.
        path: the policy file.
        seeds: of the episodes.
        reporter: shows progress.
        frames: render even if the policy does not look, and film.
        shift: see `Experiment`.
        stopping: see `evaluate_checkpoint`.
    """
    with open_simulators(
        path,
        device=experiment.device,
        count=min(experiment.slots or experiment.workers, len(seeds)),
        frames=frames,
        shift=shift,
        workers=experiment.workers,
        session=experiment.session,
    ) as simulators:
        return evaluate_checkpoint(
            path,
            seeds,
            simulators,
            device=experiment.device,
            reporter=reporter,
            description="evaluate",
            record=frames,
            session=experiment.session,
            stopping=stopping,
        )


def check_actions(path: Path, metadata: Mapping[str, Any], simulators: Simulators) -> None:
    """The environments take the actions that a policy file gives.

    Raises:
        UserError: they do not.
    """
    arguments = metadata["arguments"]
    space = arguments.get("action_space")
    if space is None and "action_low" in arguments:  # an agent of reinforcement learning
        space = {"low": arguments["action_low"], "high": arguments["action_high"]}
    if space:
        bounds = cast(SlotEnvironment, simulators).single_action_space
        named = f"{metadata['env']['suite']} {metadata['env']['task']}"
        check_same_actions(
            ActionSpace.of(space), bounds.low, bounds.high, policy=str(path), environment=f"the environment {named}"
        )


def lane_of(
    policy: nn.Module,
    metadata: Mapping[str, Any],
    seeds: Sequence[int],
    *,
    slots: int,
    record: bool,
    stopping: SequentialTest | None,
) -> Lane:
    """The episodes of a policy that `load_policy` gave; see `evaluate_checkpoint`."""
    follows = getattr(policy, "instructions", None) is not None
    return Lane(
        policy=cast(Policy, policy),
        seeds=seeds,
        slots=slots,
        record_key=image_key(camera_list(metadata["env"])[0]) if record else None,
        read_instructions=instructions_of if follows else None,
        enough=enough_for(stopping),
    )


def enough_for(stopping: SequentialTest | None) -> Enough | None:
    """A sequential test as an evaluation asks it; None where the number of episodes is fixed."""
    if stopping is None:
        return None
    return lambda outcomes: stopping.enough([outcome.score for outcome in outcomes])


def instructions_of(simulators: Simulators) -> list[str]:
    """What is to be done in each environment of a vector, now; see `TaskEnv.task_description`."""
    return [str(text) for text in cast(Any, simulators).call("task_description")]  # the base class lacks `call`
