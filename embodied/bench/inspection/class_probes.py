"""Whether frozen features tell classes apart: linear and nearest-neighbour probes on labels, top-1 accuracy.

Legend: F frames, D values of a feature, K classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from embodied.bench.inspection.probes import FOLDS, Predict, held_out_guesses, nearest, ridge
from embodied.bench.inspection.samples import Part


def why_no_classes(part: Part) -> str | None:
    """A reason, None where the part's classes can be probed."""
    if part.classes is None:
        return "it has no folders of classes and no different tasks"
    episodes = len(np.unique(part.episodes))
    if episodes < FOLDS:
        return f"it has {episodes} episodes: {FOLDS} are needed to hold some out"
    owners = np.unique(np.stack([part.classes, part.episodes]), axis=1)[0]  # the class of every pair that occurs
    if (np.unique(owners, return_counts=True)[1] > 1).sum() < 2:
        return "fewer than two of its classes have frames of two episodes among those looked at: raise probe_frames"
    return None


def linear_accuracy(features: np.ndarray, classes: np.ndarray, episodes: np.ndarray) -> float:
    """Ridge regression to one-hot labels, the largest wins: it has a closed form, which logistic regression lacks."""
    return accuracy(features, classes, episodes, ridge)


def knn_accuracy(features: np.ndarray, classes: np.ndarray, episodes: np.ndarray) -> float:
    """The class that most of the k frames with the largest cosine have, of centred features."""
    return accuracy(features, classes, episodes, nearest)


def accuracy(
    features: Float[np.ndarray, "F D"], classes: Int[np.ndarray, " F"], episodes: Int[np.ndarray, " F"], kind: Predict
) -> float:
    """Share of frames whose class is guessed, each from other episodes; of equal votes the first class counts.

    Penalty and k are chosen as `held_out_guesses` does, by the squared error of the one-hot labels.
    """
    labels = np.eye(int(classes.max()) + 1)[classes]  # (F, K)
    return float((held_out_guesses(features, labels, episodes, kind).argmax(axis=1) == classes).mean())


def chance_accuracy(classes: Int[np.ndarray, " F"]) -> float:
    """What always guessing the most frequent class gives."""
    return float(np.bincount(classes).max() / len(classes))
