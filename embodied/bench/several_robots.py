"""One policy that learns from recordings of several robots, each judged on its own held-out episodes.

Every robot is an `Experiment` as if it learned alone; what they share is built once, see `policies.embodiments`.

Legend: B batch, T moments of observation, H chunk; P and A proprioception and actions of a robot, Q and D the most of
any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from embodied.bench.cloning import encode, fresh_weights, optimize, samples_of
from embodied.bench.experiment import Experiment
from embodied.bench.feature_checks import check_features
from embodied.bench.imitation_data import measure_features, measure_robot
from embodied.bench.open_loop import select_open_loop
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE, Reporter
from embodied.core.run_folder import RunFolder
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.mixtures import Mixing, mixing_weights
from embodied.policies.action_space import pad_actions
from embodied.policies.artifact import build_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.embodiment_files import EMBODIMENT, ROBOTS, description_of
from embodied.policies.embodiments import Embodiments

OWN_ARGUMENTS = ("camera", "proprioception_dim", "action_dim", "action_space", "action_frame")


class MixedDemonstrations:
    """Samples of several robots in one row, the first robot's first.

    Args:
        parts: of each robot.
        mixing: how often each is drawn, see `mixing_weights`; None: every sample alike.
    """

    def __init__(self, parts: Sequence[Demonstrations], *, mixing: Mixing | None = None) -> None:
        self._parts = list(parts)
        sizes = [len(part) for part in self._parts]
        self._stops = np.cumsum(sizes)
        self._widths = {
            STATE: max(part.states.shape[1] for part in parts),
            ACTION: max(part.actions.shape[1] for part in parts),
        }
        self.weights: np.ndarray | None = None
        if mixing is not None:
            self.weights = np.repeat(np.divide(mixing_weights(sizes, mixing), sizes), sizes)

    def __len__(self) -> int:
        return int(self._stops[-1])

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Samples int64 [B] as of `Demonstrations`, robot after robot.

        Returns:
            Beside what they have, `embodiment` int64 [B]; `observation.state` is [B, T, Q] and `action` [B, H, D], with
            zeros behind a robot's own values.
        """
        owners = np.searchsorted(self._stops, indices, side="right")
        found = []
        for number in np.unique(owners):
            part = self._parts[number]
            batch = part.batch(indices[owners == number] - (self._stops[number] - len(part)))
            padded = {name: pad_actions(batch[name], width)[0] for name, width in self._widths.items()}
            found.append({**batch, **padded, EMBODIMENT: torch.full((len(batch[ACTION]),), int(number))})
        return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


@dataclass(frozen=True, kw_only=True)
class SeveralRobots:
    """What to run.

    Args:
        members: by the robot's name its experiment, open loop; they differ in demonstrations and what these decide.
        mixing: how often each robot is drawn, see `mixing_weights`; None: by size, each of its samples once per epoch.
    """

    members: Mapping[str, Experiment]
    mixing: Mixing | None = None

    @property
    def lead(self) -> Experiment:
        """The first one: for settings that all have."""
        return next(iter(self.members.values()))

    @property
    def name(self) -> str:
        """Of all robots together."""
        return "+".join(self.members)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Of a policy file, see `policies.embodiment_files`.

        Raises:
            UsageError: the encoder does not give the same of all robots.
        """
        described = {name: member.policy_metadata() for name, member in self.members.items()}
        first = next(iter(described.values()))
        shapes = {name: each["arguments"]["feature_shape"] for name, each in described.items()}
        if any(shape != first["arguments"]["feature_shape"] for shape in shapes.values()):
            told = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
            raise UsageError(f"encoder={self.lead.encoder} must make the same of all robots, got features {told}")
        robots = [
            {
                "name": name,
                "env": each["env"],
                "arguments": {key: each["arguments"][key] for key in OWN_ARGUMENTS if key in each["arguments"]},
            }
            for name, each in described.items()
        ]
        arguments = {key: value for key, value in first["arguments"].items() if key not in OWN_ARGUMENTS}
        env = {"suite": first["env"]["suite"], "task": self.name}
        return {**first, "arguments": arguments, "env": env, ROBOTS: robots}

    def build(self) -> Embodiments:
        """A fresh policy. Raises UsageError where its settings do not go with several robots."""
        with fresh_weights(self.lead.seed):
            members = [
                build_policy(
                    description_of(self.metadata, name, where="this run"), each.frozen_encoder, each.text_encoder
                )
                for name, each in self.members.items()
            ]
        return Embodiments([cast(BCPolicy, member) for member in members])


def encode_all(experiment: SeveralRobots, reporter: Reporter) -> None:
    """Fill the feature cache."""
    for member in experiment.members.values():
        features = encode(member, reporter)
        if not member.trainable:
            check_features(features, member.encoder)


def train_several(experiment: SeveralRobots, run: RunFolder, reporter: Reporter) -> Path:
    """Train the policy, or go on with it; returns the final checkpoint."""
    lead = experiment.lead
    parts = [samples_of(member, reporter) for member in experiment.members.values()]
    samples, policy = MixedDemonstrations(parts, mixing=experiment.mixing), experiment.build()
    measure_several(policy, parts, samples, device=lead.device)
    return optimize(policy, samples, lead, run, reporter, metadata=experiment.metadata, weights=samples.weights)


def measure_several(
    policy: Embodiments, parts: Sequence[Demonstrations], samples: MixedDemonstrations, *, device: torch.device
) -> None:
    """Give each robot the statistics of its own demonstrations, and the controller those of all features."""
    for member, part in zip(policy.policies, parts, strict=True):
        measure_robot(member, part)
    measure_features(policy.policies[0], samples, device=device)


def select_several(experiment: SeveralRobots, run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Errors of every checkpoint for each robot, and the best by their mean over robots, the later of equals."""
    found = {name: select_open_loop(member, run, reporter) for name, member in experiment.members.items()}
    tried = [
        {"step": rows[0]["step"], "in_deviations": float(np.mean([row["in_deviations"] for row in rows]))}
        for rows in zip(*(each["checkpoints"] for each in found.values()), strict=True)
    ]
    best = min(reversed(tried), key=lambda row: row["in_deviations"])
    return {**best, "checkpoints": tried, ROBOTS: found}
