"""The numbers of an inspection while an encoder trains: health and probes on frames it does not train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from embodied.bench.inspection.class_probes import chance_accuracy, knn_accuracy, linear_accuracy, why_no_classes
from embodied.bench.inspection.features import COARSE, LOOKED_AT, flat_patches, raw_pixels, read_features
from embodied.bench.inspection.health import complaints, health
from embodied.bench.inspection.measure import why_no_probe
from embodied.bench.inspection.probes import knn_probe, linear_probe, moving_values
from embodied.bench.inspection.samples import Part, spaced


class InspectionMonitor:
    """A `training.pretrain.Monitor`: RankMe, spread and mean |cos| of pooled features, probes; loud on collapse.

    `probe_flat_patches` is the share of patches of the probe's frames that show one colour and nothing else. It is of
    frames and patches alone, and stays.

    Probes are of the state (R^2) and of the class (top-1 accuracy, beside that of always guessing the most frequent
    one, `chance_top1`), each a mean over the parts that have at least four episodes with it.

    Args:
        parts: the frames.
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
        self._classes = {
            number: part.classes
            for number, part in enumerate(parts)
            if part.classes is not None and why_no_classes(part) is None
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
        return {**numbers, **self._flat(encoder), **self._probes(features), **self._chance()}

    def baseline(self) -> dict[str, float]:
        """The same probes on raw 16x16 pixels."""
        pixels = self._probes([{"pixels": raw_pixels(part.frames)} for part in self._parts])
        return {**pixels, **self._chance()}

    def _flat(self, encoder: nn.Module) -> dict[str, float]:
        looked_at = [part.frames[spaced(len(part), LOOKED_AT)] for part in self._parts]
        shares = [share for frames in looked_at if (share := flat_patches(encoder, frames)) is not None]
        return {"probe_flat_patches": float(np.mean(shares))} if shares else {}

    def _probes(self, features: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for number, part in enumerate(self._parts):
            for name, values in features[number].items():
                if name != COARSE:  # ten times the cost of the others
                    for kind, value in self._probe(number, values, part.episodes).items():
                        found.setdefault(f"{kind}_{name}", []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _probe(self, number: int, values: np.ndarray, episodes: np.ndarray) -> dict[str, float]:
        """What can be read out of one kind of features of a part."""
        found = {}
        if number in self._states:
            states = self._states[number]
            found["linear_r2"] = linear_probe(values, states, episodes).r2
            found["knn_r2"] = knn_probe(values, states, episodes).r2
        if number in self._classes:
            classes = self._classes[number]
            found["linear_top1"] = linear_accuracy(values, classes, episodes)
            found["knn_top1"] = knn_accuracy(values, classes, episodes)
        return found

    def _chance(self) -> dict[str, float]:
        found = [chance_accuracy(classes) for classes in self._classes.values()]
        return {"chance_top1": float(np.mean(found))} if found else {}
