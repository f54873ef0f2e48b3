"""Closed-loop evaluation: several environments side by side, one batched policy call per step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from embodied.core.protocols import Policy, Reporter
from embodied.training.episode_lanes import (
    ActTogether,
    Enough,
    Lane,
    LaneRun,
    Outcome,
    ReadInstructions,
    ResetSlots,
    SlotEnvironment,
    act_alone,
    run_lanes,
)

__all__ = ["Enough", "Lane", "Outcome", "SlotEnvironment", "evaluate", "evaluate_lanes"]


def evaluate(
    policy: Policy,
    environment: SlotEnvironment,
    reset_slots: ResetSlots,
    seeds: Sequence[int],
    *,
    device: torch.device,
    reporter: Reporter,
    description: str = "evaluate",
    record_key: str | None = None,
    read_instructions: ReadInstructions | None = None,
    enough: Enough | None = None,
) -> list[Outcome]:
    """Run one episode per seed and return the outcomes in the order of `seeds`.

    A slot whose episode ends takes the next seed at once, so no environment waits for another one's failure. The
    order of the batched calls is a function of the seeds alone: the same call gives the same outcomes.

    Args:
        policy: in eval mode, on `device`.
        environment: as many slots as episodes that should run side by side.
        reset_slots: see `ResetSlots`.
        seeds: one per episode.
        device: where observations are put.
        reporter: shows progress.
        description: name of the progress bar.
        record_key: the observation to keep as frames for the first success and the first failure.
        read_instructions: for an `InstructedPolicy`.
        enough: ends it early, see `Lane`; then the outcomes are those of the first seeds.
    """
    lane = Lane(
        policy=policy,
        seeds=seeds,
        slots=environment.num_envs,
        record_key=record_key,
        read_instructions=read_instructions,
        enough=enough,
    )
    (outcomes,) = evaluate_lanes(
        [lane], environment, reset_slots, device=device, reporter=reporter, description=description
    )
    return outcomes


def evaluate_lanes(
    lanes: Sequence[Lane],
    environment: SlotEnvironment,
    reset_slots: ResetSlots,
    *,
    device: torch.device,
    reporter: Reporter,
    description: str = "evaluate",
    act: ActTogether = act_alone,
) -> list[list[Outcome]]:
    """The outcomes of several policies whose episodes run side by side, each in the order of its lane's seeds.

    Args:
        lanes: whose slots add up to those of the environment.
        environment, reset_slots, device, reporter, description: see `evaluate`.
        act: acts for all lanes at once, each as if alone.
    """
    firsts = [sum(lane.slots for lane in lanes[:number]) for number in range(len(lanes) + 1)]
    assert firsts[-1] == environment.num_envs, (firsts, environment.num_envs)
    runs = [LaneRun(lane, first) for lane, first in zip(lanes, firsts, strict=False)]
    stream = run_lanes(runs, environment, reset_slots, device=device, act=act)
    total = sum(len(lane.seeds) for lane in lanes)
    for _ in reporter.track(stream, total=total, description=description):
        pass
    return [run.outcomes for run in runs]
