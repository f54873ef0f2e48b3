"""Numbers that show a collapsed or lame encoder. Legend: F frames, D values of a feature."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

COLLAPSED_SHARE = 0.02  # of the spread of raw pixels: random transformers keep half of it or more
COLLAPSED_RANK = 2.0  # everything but one direction has gone
_TINY = 1e-12


def health(features: Float[np.ndarray, "F D"]) -> dict[str, float]:
    """Health of pooled features of at least two different frames; every number is independent of their scale.

    `rankme` is that of Garrido et al. 2023 (arXiv 2210.02885); `rank_centred` the same after the mean is taken off,
    since a large mean common to all frames hides the rest. `spread` is the mean over dimensions of the standard
    deviation of L2-normalised features, times sqrt(D): 1 where directions are random, 0 where all frames are alike.
    `mean_cosine` is the mean |cos| over all pairs of frames.
    """
    values = np.asarray(features, np.float64)
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _TINY)
    cosines = np.abs(unit @ unit.T)
    pairs = len(values) * (len(values) - 1)
    return {
        "rankme": rank_me(values),
        "rank_centred": rank_me(values - values.mean(axis=0)),
        "spread": float(unit.std(axis=0).mean() * np.sqrt(values.shape[1])),
        "mean_cosine": float((cosines.sum() - np.trace(cosines)) / max(pairs, 1)),
    }


def rank_me(features: Float[np.ndarray, "F D"]) -> float:
    """exp of the entropy of the singular values, as shares of their sum (Eq. 1-2 of RankMe)."""
    singular = np.linalg.svd(features, compute_uv=False)
    if singular.sum() <= _TINY:
        return 1.0
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares + _TINY)).sum()))


def patch_cosine(tokens: Float[np.ndarray, "F N D"]) -> float:
    """Mean cosine between the patches of a frame: 1 where the map is the same everywhere."""
    unit = tokens / np.maximum(np.linalg.norm(tokens, axis=2, keepdims=True), _TINY)
    count = unit.shape[1]
    if count < 2:
        return 1.0
    sums = (unit.sum(axis=1) ** 2).sum(axis=1)  # of all pairs, a patch with itself included
    return float(((sums - count) / (count * (count - 1))).mean())


def complaints(numbers: Mapping[str, float], pixels: Mapping[str, float]) -> list[str]:
    """What is wrong, one sentence each; empty for a healthy encoder.

    Args:
        numbers: the `health` of its features.
        pixels: that of the raw pixels of the same frames: frames of a scene that never changes are all alike.
    """
    found = []
    if numbers["spread"] < COLLAPSED_SHARE * pixels["spread"]:
        found.append(
            f"COLLAPSED: features of different frames are next to equal (spread {numbers['spread']:.2g}, raw pixels "
            f"{pixels['spread']:.2g}; mean |cos| {numbers['mean_cosine']:.6f})"
        )
    if numbers["rank_centred"] < COLLAPSED_RANK <= pixels["rank_centred"]:  # two frames differ along one direction
        found.append(
            f"COLLAPSED: features differ along {numbers['rank_centred']:.1f} directions only (effective rank of "
            "centred features)"
        )
    return found
