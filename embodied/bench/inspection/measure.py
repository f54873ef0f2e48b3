"""The numbers of an inspection: of health and of probes. While an encoder trains they are the same (see `monitor`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from embodied.bench.feature_checks import check_features
from embodied.bench.inspection.features import raw_pixels, read_features
from embodied.bench.inspection.probes import FOLDS, Score, knn_probe, linear_probe, mean_probe, moving_values
from embodied.bench.inspection.samples import Part

PIXELS, MEAN = "raw pixels 16x16", "mean state"


@dataclass(frozen=True)
class ProbeRow:
    """What two probes read out of features with so many values; the mean state has no neighbours."""

    features: str
    values: int
    linear: Score
    knn: Score | None


@dataclass(frozen=True)
class ProbeTable:
    """The probes on one store.

    Args:
        part: the store's name.
        frames, episodes: how many.
        moving, dimensions: values of the state that vary, and all.
        rows: the encoder's features, then the baselines.
    """

    part: str
    frames: int
    episodes: int
    moving: int
    dimensions: int
    rows: Sequence[ProbeRow]


def checked_features(encoder: nn.Module, parts: Sequence[Part], spec: str) -> list[dict[str, np.ndarray]]:
    """Features of every part.

    Raises:
        UserError: they are no finite numbers, or the same for all frames.
    """
    found = [read_features(encoder, part.frames) for part in parts]
    for name in found[0]:
        check_features([np.concatenate([features[name] for features in found])], spec)
    return found


def why_no_probe(part: Part, target: str) -> str | None:
    """A reason, None where the part can be probed for `target`."""
    if part.states is None:
        return f"it has no {target}"
    if not np.isfinite(part.states).all():
        return f"its {target} holds NaN or infinite values"
    episodes = len(np.unique(part.episodes))
    if episodes < FOLDS:
        return f"it has {episodes} episodes: {FOLDS} are needed to hold some out"
    if not moving_values(part.states).shape[1]:
        return f"its {target} never changes"
    return None


def probe_table(part: Part, features: Mapping[str, np.ndarray], *, baselines: bool = True) -> ProbeTable:
    """Both probes on every kind of features, for a part that `why_no_probe` has nothing against."""
    assert part.states is not None
    states = moving_values(part.states)
    every = {**features, PIXELS: raw_pixels(part.frames)} if baselines else features
    rows = [
        ProbeRow(
            name,
            values.shape[1],
            linear_probe(values, states, part.episodes),
            knn_probe(values, states, part.episodes),
        )
        for name, values in every.items()
    ]
    if baselines:
        rows.append(ProbeRow(MEAN, 0, mean_probe(states, part.episodes), None))
    episodes = len(np.unique(part.episodes))
    return ProbeTable(part.name, len(part), episodes, states.shape[1], part.states.shape[1], rows)
