"""What can be read out of frozen features: linear and nearest-neighbour probes, judged on episodes they never saw.

Legend: F frames, E episodes, D values of a feature, P values of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from embodied.core.seeding import numpy_generator

FOLDS = 4
PENALTIES = tuple(10.0**power for power in range(-8, 2))  # of the mean squared norm of a feature
NEIGHBOURS = (1, 3, 5, 10, 20)
RESAMPLES = 1000
_STILL = 1e-8  # a value that varies less is no target

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]
"""Training features, training states and test features to one prediction per setting."""


@dataclass(frozen=True)
class Score:
    """R^2, the mean over the values that vary, with its 95 % interval by drawing episodes again."""

    r2: float
    low: float
    high: float


def moving_values(states: Float[np.ndarray, "F P"]) -> Float[np.ndarray, "F Q"]:
    """The values of a state that vary at all, each with standard deviation 1."""
    spread = states.std(axis=0)
    chosen = spread > _STILL
    return states[:, chosen] / spread[chosen]


def linear_probe(features: np.ndarray, states: np.ndarray, episodes: np.ndarray) -> Score:
    """Ridge regression; see `probe`. Features are centred and scaled by one number, not each by its own."""
    return probe(features, states, episodes, ridge)


def knn_probe(features: np.ndarray, states: np.ndarray, episodes: np.ndarray) -> Score:
    """The mean state of the k frames with the largest cosine, of centred features; see `probe`."""
    return probe(features, states, episodes, nearest)


def mean_probe(states: np.ndarray, episodes: np.ndarray) -> Score:
    """Always the mean state of the other episodes: what looking at nothing gives."""
    return probe(np.zeros((len(states), 1)), states, episodes, lambda _, known, test: [_mean(known, len(test))])


def probe(
    features: Float[np.ndarray, "F D"],
    states: Float[np.ndarray, "F P"],
    episodes: Int[np.ndarray, " F"],
    predict: Predict,
) -> Score:
    """R^2 of `held_out_guesses`; the states are `moving_values`."""
    return score(held_out_guesses(features, states, episodes, predict), states, episodes)


def held_out_guesses(
    features: Float[np.ndarray, "F D"],
    states: Float[np.ndarray, "F P"],
    episodes: Int[np.ndarray, " F"],
    predict: Predict,
) -> Float[np.ndarray, "F P"]:
    """Every episode is predicted once, from the episodes of the other folds.

    The setting (penalty, k) is chosen on folds of the training episodes, by squared error, never on those that count.

    Args:
        features: of at least `FOLDS` episodes.
        states: what is predicted.
        episodes: which episode a frame is of.
        predict: the kind of probe.
    """
    guesses = np.empty_like(states)
    for train, test in episode_folds(episodes):
        known, targets = features[train], states[train]
        errors: list[np.ndarray] = []
        for inner, outer in episode_folds(episodes[train]):
            tried = predict(known[inner], targets[inner], known[outer])
            errors.append(np.array([((guess - targets[outer]) ** 2).sum() for guess in tried]))
        best = int(np.argmin(np.sum(errors, axis=0)))
        guesses[test] = predict(known, targets, features[test])[best]
    return guesses


def episode_folds(episodes: Int[np.ndarray, " F"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Train and test masks over frames, bool [F]; whole episodes, dealt to the folds at random, the same every time."""
    names = np.unique(episodes)
    order = numpy_generator(0, "probe folds", len(names)).permutation(names)
    for fold in range(min(FOLDS, len(names))):
        test = np.isin(episodes, order[fold::FOLDS])
        yield ~test, test


def ridge(known: np.ndarray, targets: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """One prediction per penalty, by the smaller system: the dual where features are longer than there are frames."""
    centre, middle = known.mean(axis=0), targets.mean(axis=0)
    known, test, targets = known.astype(np.float64) - centre, test.astype(np.float64) - centre, targets - middle
    scale = float((known**2).sum(axis=1).mean()) or 1.0
    frames, length = known.shape
    if length > frames:
        test, known = test @ known.T / scale, known @ known.T / scale
    else:
        targets, known = known.T @ targets / scale, known.T @ known / scale
    values, vectors = np.linalg.eigh(known)
    turned, across = vectors.T @ targets, test @ vectors
    return [middle + across @ (turned / (np.maximum(values, 0.0) + penalty * frames)[:, None]) for penalty in PENALTIES]


def nearest(known: np.ndarray, targets: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """One prediction per number of neighbours."""
    centre = known.mean(axis=0)
    order = np.argsort(-unit_rows(test - centre) @ unit_rows(known - centre).T, axis=1, kind="stable")
    return [targets[order[:, :count]].mean(axis=1) for count in NEIGHBOURS]


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Each row with norm 1; a row of zeros stays."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def score(guesses: np.ndarray, states: np.ndarray, episodes: np.ndarray) -> Score:
    """R^2 of predictions [F, P]: 1 minus squared error over variance about the mean, averaged over P."""
    names, owner = np.unique(episodes, return_inverse=True)
    sums = [
        np.stack([np.bincount(owner, values, len(names)) for values in column.T], axis=1)  # (E, P)
        for column in ((guesses - states) ** 2, states, states**2)
    ]
    counts = np.bincount(owner, minlength=len(names))
    draws = numpy_generator(0, "probe interval").multinomial(len(names), [1 / len(names)] * len(names), RESAMPLES)
    (whole,) = _r2(np.ones((1, len(names))), counts, sums)
    low, high = np.quantile(_r2(draws, counts, sums), [0.025, 0.975])
    return Score(float(whole), float(low), float(high))


def _r2(weights: np.ndarray, counts: np.ndarray, sums: Sequence[np.ndarray]) -> np.ndarray:
    """Per row of weights [R, E] the mean R^2."""
    errors, first, second = (weights @ each for each in sums)  # (R, P)
    variance = second - first**2 / (weights @ counts)[:, None]
    return (1 - errors / np.maximum(variance, _STILL)).mean(axis=1)


def _mean(known: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(known.mean(axis=0), (count, known.shape[1]))
