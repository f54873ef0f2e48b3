"""The numbers of an inspection while an encoder trains: health and probes on frames it does not train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from embodied.bench.inspection.features import COARSE, raw_pixels, read_features
from embodied.bench.inspection.health import complaints, health
from embodied.bench.inspection.measure import why_no_probe
from embodied.bench.inspection.probes import knn_probe, linear_probe, moving_values
from embodied.bench.inspection.samples import Part


class InspectionMonitor:
    """A `training.pretrain.Monitor`: RankMe, spread and mean |cos| of pooled features, R^2 of probes; loud on collapse.

    Args:
        parts: the frames; those with a state of at least four episodes are probed, R^2 is their mean.
        every: steps.
        target: the key of `Part.states`.
        warn: shows a line that must be seen.
    """

    def __init__(self, parts: Sequence[Part], *, every: int, target: str, warn: Callable[[str], None]) -> None:
        self.every = every
        self._parts, self._warn = parts, warn
        self._pixels = health(np.concatenate([raw_pixels(part.frames) for part in parts]))
        self._states = {
            number: moving_values(part.states)
            for number, part in enumerate(parts)
            if part.states is not None and why_no_probe(part, target) is None
        }

    def __call__(self, step: int, objective: nn.Module) -> Mapping[str, float]:
        """Values to log; the objective is in eval mode."""
        encoder = objective.encoder
        assert isinstance(encoder, nn.Module), type(encoder)
        features = [read_features(encoder, part.frames) for part in self._parts]
        pooled = np.concatenate([each["pooled"] for each in features])
        if not np.isfinite(pooled).all():
            self._warn(f"step {step}: COLLAPSED: the encoder gives NaN or infinite features")
            return {"finite_features": 0.0}
        numbers = health(pooled)
        for complaint in complaints(numbers, self._pixels):
            self._warn(f"step {step}: {complaint}")
        return {**numbers, **self._probes(features)}

    def baseline(self) -> dict[str, float]:
        """The same probes on raw 16x16 pixels."""
        return self._probes([{"pixels": raw_pixels(part.frames)} for part in self._parts])

    def _probes(self, features: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for number, states in self._states.items():
            episodes = self._parts[number].episodes
            for name, values in features[number].items():
                if name != COARSE:  # ten times the cost of the others
                    found.setdefault(f"linear_r2_{name}", []).append(linear_probe(values, states, episodes).r2)
                    found.setdefault(f"knn_r2_{name}", []).append(knn_probe(values, states, episodes).r2)
        return {name: float(np.mean(values)) for name, values in found.items()}
