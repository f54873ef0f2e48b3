"""Behaviour cloning of an experiment, phase by phase: encode, train, select."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embodied.bench.experiment import Experiment
from embodied.bench.imitation_data import (
    demonstrations,
    episode_rows,
    feature_inputs,
    measure,
    raw_inputs,
    read_episodes,
)
from embodied.bench.policy_episodes import (
    SELECTION_SEEDS,
    episode_seeds,
    evaluate_checkpoint,
    open_simulators,
)
from embodied.core.files import write_text
from embodied.core.protocols import Reporter
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.encoders.modality import encode_vectors
from embodied.encoders.sensorimotor import frame_encoder
from embodied.policies.artifact import build_policy
from embodied.policies.card import CARD, policy_card
from embodied.training.checkpoints import checkpoint_path, checkpoint_steps, resume_step
from embodied.training.imitate import Demonstrations as Samples
from embodied.training.imitate import imitate


def encode(experiment: Experiment, reporter: Reporter, episodes: Sequence[int] | None = None) -> list[Any]:
    """What the policy trains on, per camera [F, ...]: cached features, or raw frames for an encoder that learns.

    Args:
        experiment, reporter: as of `train`.
        episodes: numbers, ascending; None: those that are trained on.
    """
    store = experiment.episode_store
    chosen = experiment.trained_episodes if episodes is None else episodes
    if experiment.trainable:
        return raw_inputs(
            store,
            experiment.input_keys,
            chosen,
            size=experiment.frame_size if experiment.looks else None,
            cache_root=experiment.cache / "frames",
            reporter=reporter,
            max_bytes=experiment.cache_bytes,
        )
    if not experiment.looks:
        rows = read_episodes(store, experiment.input_keys[0], chosen)
        return [encode_vectors(experiment.frozen_encoder, rows, experiment.assembly.feature)]
    return feature_inputs(
        store,
        frame_encoder(experiment.frozen_encoder),
        image_keys=experiment.input_keys,
        feature=experiment.assembly.feature,
        frames=episode_rows(store, chosen),
        cache_root=experiment.cache / "features",
        device=experiment.device,
        reporter=reporter,
        max_bytes=experiment.cache_bytes,
        views=experiment.views,
        size=experiment.frame_size,
    )


def samples_of(experiment: Experiment, reporter: Reporter) -> Demonstrations:
    """What the policy trains on, as samples."""
    made = experiment.assembly
    return demonstrations(
        experiment.episode_store,
        encode(experiment, reporter),
        episodes=experiment.trained_episodes,
        history=made.history,
        chunk=made.chunk,
        forward=made.recurrent,
        text_encoder=experiment.text_encoder,
        memories=made.neck == "sequence",
        views=experiment.views.count,
    )


@contextmanager
def fresh_weights(seed: int) -> Iterator[None]:
    """A policy that is built within begins as the seed says."""
    # Fresh weights come from the global generator, as torch's own layers draw them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "policy"))
        yield


def train(experiment: Experiment, run: RunFolder, reporter: Reporter) -> Path:
    """Train the policy, or go on with it; returns the final checkpoint."""
    samples, metadata = samples_of(experiment, reporter), experiment.policy_metadata()
    with fresh_weights(experiment.seed):
        policy = build_policy(metadata, experiment.frozen_encoder, experiment.text_encoder)
    measure(policy, samples, device=experiment.device)
    return optimize(policy, samples, experiment, run, reporter, metadata=metadata)


def optimize(
    policy: nn.Module,
    samples: Samples,
    experiment: Experiment,
    run: RunFolder,
    reporter: Reporter,
    *,
    metadata: Mapping[str, Any],
    weights: np.ndarray | None = None,
) -> Path:
    """Train a policy with the experiment's settings, or go on with it; returns the final checkpoint.

    Args:
        metadata: of its files; weights: of the samples, see `imitate`.
    """
    settings = experiment.training
    with run.metrics(keep=resume_step(run.checkpoints)) as log:
        path = imitate(
            policy.to(experiment.device),
            samples,
            settings,
            seed=experiment.seed,
            checkpoint_folder=run.checkpoints,
            metadata=metadata,
            device=experiment.device,
            log=log,
            reporter=reporter,
            weights=weights,
        )
    card = policy_card(metadata, experiment.assembly, command=run.command, training=settings.record())
    write_text(run.checkpoints / CARD, card)
    return path


def select(experiment: Experiment, run: RunFolder, reporter: Reporter) -> dict[str, Any] | None:
    """Success and score of every checkpoint on seeds of its own, and the best of them by score, the later of equals."""
    if not experiment.selection_episodes:
        return None
    seeds = episode_seeds(SELECTION_SEEDS, experiment.seed, experiment.selection_episodes)
    steps = checkpoint_steps(experiment.training.steps, experiment.training.checkpoints)
    tried = []
    with open_simulators(
        checkpoint_path(run.checkpoints, steps[-1]),
        device=experiment.device,
        count=min(experiment.slots or experiment.workers, len(seeds)),
        frames=False,
        workers=experiment.workers,
        session=experiment.session,
    ) as simulators:
        for step in steps:
            outcomes = evaluate_checkpoint(
                checkpoint_path(run.checkpoints, step),
                seeds,
                simulators,
                device=experiment.device,
                reporter=reporter,
                description=f"select {step}",
                session=experiment.session,
            )
            success_rate = float(np.mean([outcome.success for outcome in outcomes]))
            score = float(np.mean([outcome.score for outcome in outcomes]))
            tried.append({"step": step, "success_rate": success_rate, "score": score})
    best = max(tried, key=lambda row: (row["score"], row["step"]))
    return {**best, "episodes": len(seeds), "seeds": seeds, "checkpoints": tried}
