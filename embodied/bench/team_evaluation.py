"""The reported episodes of several cells side by side, where they share task, look and encoder.

Every cell has its own seeds and its own slots of one vector environment, as many as it would have alone, and its
policy's head gets its own rows only. Frames of all are encoded in one call: what a cell gives is what it gives alone,
up to what the encoder's rounding has to do with the size of a batch.

This pays where a larger batch costs the encoder less per frame (a GPU), and with simulators in processes of their own.
On a CPU core it saved 5 to 7 % of the processor time (benchmarks/bench_batch_cells.py), for half a GB more per cell and
items that are lost and shared out in larger portions: so it is off by default.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from embodied.bench.cpu_time import CpuWatch
from embodied.bench.phases import AnyExperiment, Phases
from embodied.bench.policy_episodes import REPORT_SEEDS, check_actions, episode_seeds, lane_of
from embodied.bench.results import save_outcomes
from embodied.core.files import hash_json, write_json
from embodied.core.protocols import Carry, Policy, Reporter
from embodied.core.run_folder import RunFolder, Stopwatch
from embodied.encoders.artifact import fingerprint
from embodied.encoders.modality import looks
from embodied.envs.vector import reset_slots
from embodied.policies.artifact import load_policy
from embodied.training.episode_lanes import SlotEnvironment, Turn
from embodied.training.evaluate import evaluate_lanes

TOGETHER = "evaluated_together.json"  # in the run folder of such a cell: with how many, and its share of the seconds


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A cell whose reported episodes are due.

    Args:
        experiment: of the cell.
        run: where the phase `evaluate` is recorded.
        trained: that holds the policy; of a shifted cell the static one.
    """

    experiment: AnyExperiment
    run: RunFolder
    trained: RunFolder


@dataclass(frozen=True, kw_only=True)
class _Member:
    cell: Trained
    path: Path
    policy: nn.Module
    metadata: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def seeds(self) -> list[int]:
        return episode_seeds(REPORT_SEEDS, self.cell.experiment.seed, self.cell.experiment.episodes)

    @property
    def slots(self) -> int:
        experiment = self.cell.experiment
        return max(1, min(experiment.slots or experiment.workers, len(self.seeds)))


def evaluate_together(cells: Sequence[Trained], reporter: Reporter) -> None:
    """Do and record the phase `evaluate` of those cells that share simulators and encoder with another one.

    Seconds of a cell are its share of the common ones, by the frames that it used. Nothing is done of other cells.
    """
    teams: dict[str, list[_Member]] = defaultdict(list)
    for cell in cells:
        member = _member(cell)
        if not _learned_along(member.policy):
            encoder = fingerprint(cast(nn.Module, member.policy.encoder))
            teams[hash_json([dict(member.options), encoder, str(cell.experiment.device)])].append(member)
    for team in teams.values():
        if len(team) > 1:
            _evaluate_team(team, reporter)


def _member(cell: Trained) -> _Member:
    experiment = cell.experiment
    path = experiment.final_policy(cell.trained)
    policy, metadata = load_policy(path, device=experiment.device, load=experiment.session.encoder)
    images = experiment.record or looks(policy.encoder)
    options = {**metadata["env"], **experiment.shift, "images": images}
    return _Member(cell=cell, path=path, policy=policy, metadata=metadata, options=options)


def _learned_along(policy: nn.Module) -> bool:
    """Whether the policy has an encoder of its own."""
    return bool(getattr(policy, "trainable_encoder", False) or getattr(policy.encoder, "trainable", False))


def _evaluate_team(team: Sequence[_Member], reporter: Reporter) -> None:
    watch, cpu = Stopwatch(), CpuWatch()
    first = team[0].cell.experiment
    together = EncodingTogether([member.policy for member in team])
    with first.session.simulators(
        team[0].options, count=sum(member.slots for member in team), workers=first.workers
    ) as simulators:
        lanes = []
        for member in team:
            check_actions(member.path, member.metadata, simulators)
            experiment = member.cell.experiment
            lanes.append(
                lane_of(
                    member.policy,
                    member.metadata,
                    member.seeds,
                    slots=member.slots,
                    record=experiment.record,
                    stopping=experiment.stopping,
                )
            )
        found = evaluate_lanes(
            lanes,
            cast(SlotEnvironment, simulators),
            reset_slots,
            device=first.device,
            reporter=reporter,
            act=together,
        )
    seconds, cpu_seconds = watch.seconds, cpu.seconds
    frames = [sum(outcome.steps for outcome in outcomes) for outcomes in found]
    common = {"cells": len(team), "slots": sum(member.slots for member in team), "seconds": round(seconds, 3)}
    for member, outcomes, used in zip(team, found, frames, strict=True):
        share = used / sum(frames)
        write_json(member.cell.run.path / TOGETHER, {**common, "share": round(share, 4)})
        saved = save_outcomes(member.cell.run, outcomes)
        Phases(member.cell.run, reporter).keep("evaluate", saved, seconds * share, cpu_seconds * share)


class _Question(Exception):
    """A policy wants these inputs encoded before it can go on."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inputs = inputs


class _Asking(nn.Module):
    """Stands for the encoder in a policy: gives the answers that it has, and asks for the first that it lacks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.modality = getattr(encoder, "modality", "image")
        self.answers: list[Any] = []
        self.given = 0

    def preprocess(self, inputs: Tensor) -> Tensor:
        return inputs

    def forward(self, inputs: Tensor) -> Any:
        if self.given == len(self.answers):
            raise _Question(inputs)
        self.given += 1
        return self.answers[self.given - 1]


class EncodingTogether:
    """Implements `ActTogether` for policies with one and the same encoder, which is called once for all of them.

    Acting is a function of carry and observation, so a policy that wants something encoded is interrupted, and begins
    its step again when it has been: once for each of its cameras, and not at all in steps in which it only goes on with
    a chunk of actions.

    Args:
        policies: whose encoders have the same weights; theirs are replaced by ones that ask for features.
    """

    def __init__(self, policies: Sequence[nn.Module]) -> None:
        self._encoder = cast(nn.Module, policies[0].encoder)
        self._asking = {id(policy): _Asking(self._encoder) for policy in policies}
        for policy in policies:
            policy.encoder = self._asking[id(policy)]
        self.calls = 0

    def __call__(self, turns: Sequence[Turn]) -> list[tuple[Carry, Tensor]]:
        done: dict[int, tuple[Carry, Tensor]] = {}
        for turn in turns:
            self._of(turn.policy).answers.clear()
        while len(done) < len(turns):
            questions = {}
            for number, turn in enumerate(turns):
                if number in done:
                    continue
                self._of(turn.policy).given = 0
                try:
                    done[number] = turn.policy.act(turn.carry, turn.observation)
                except _Question as question:
                    questions[number] = question.inputs
            if questions:
                for number, answer in zip(questions, self._encode(list(questions.values())), strict=True):
                    self._of(turns[number].policy).answers.append(answer)
        return [done[number] for number in range(len(turns))]

    def _of(self, policy: Policy) -> _Asking:
        return self._asking[id(policy)]

    @torch.inference_mode()
    def _encode(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        self.calls += 1
        tokens, out = self._encoder(self._encoder.preprocess(torch.cat(list(inputs))))  # type: ignore[operator]
        sizes = [len(rows) for rows in inputs]
        parts = {name: tensor.split(sizes) for name, tensor in out.items()}
        return [
            (mine, {name: split[number] for name, split in parts.items()})
            for number, mine in enumerate(tokens.split(sizes))
        ]
