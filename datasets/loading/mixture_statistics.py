"""The scales of what every embodiment of a mixture senses and does.

Legend: V values of an image latent, P proprioception, A action.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.loading.mixtures import MixtureDataset, MixtureSource


def vector_statistics(
    data: MixtureDataset, key: str, kinds: Mapping[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Shift and scale float32 [P or A] of each embodiment that has the key: (value - shift) / scale is what is seen.

    Over all frames, held out or not. A value that never changes keeps its scale.

    Args:
        data: the mixture.
        key: `observation.state` or `action`.
        kinds: of each embodiment `limits`: the smallest and the largest value become -1 and 1; `zscore`: mean 0 and
            deviation 1; `none`.
    """
    found = {}
    for name in data.embodiments:
        rows = [
            source.rows[key][:].astype(np.float64)
            for source in data.sources
            if isinstance(source, MixtureSource) and data.owners[source.dataset] == name and key in source.rows
        ]
        if rows:
            found[name] = _shift_and_scale(np.concatenate(rows), kinds[name])
    return found


def _shift_and_scale(rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "limits":
        low, high = rows.min(axis=0), rows.max(axis=0)
        shift, scale = (low + high) / 2, (high - low) / 2
    elif kind == "zscore":
        shift, scale = rows.mean(axis=0), rows.std(axis=0)
    else:
        shift, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    return shift.astype(np.float32), scale.astype(np.float32)


def image_statistics(data: MixtureDataset, *, most: int = 2048) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation float32 [V] of each embodiment's image latents, over up to `most` frames of every camera."""
    found: dict[str, list[np.ndarray]] = {}
    for source in data.sources:
        assert isinstance(source, MixtureSource)
        for key in source.windows.windows:
            if key.startswith(IMAGE_PREFIX):
                count = len(source.rows[key])
                sample = source.rows[key].take(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
                values = sample.reshape(-1, sample.shape[-1]).astype(np.float64)
                moments = np.stack([np.full(values.shape[1], len(values)), values.sum(0), (values**2).sum(0)])
                found.setdefault(data.owners[source.dataset], []).append(moments)
    summed = {name: np.sum(parts, axis=0) for name, parts in found.items()}
    return {
        name: (
            (total / count).astype(np.float32),
            np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)).astype(np.float32),
        )
        for name, (count, total, squares) in summed.items()
    }
