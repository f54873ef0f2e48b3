"""What an encoder reads of an observation: pictures, the simulator's state, or nothing but the robot's own body."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ENVIRONMENT_STATE, STATE, image_key

VECTORS = {"state": ENVIRONMENT_STATE, "proprioception": STATE}  # the key that each modality without pictures reads


def looks(encoder: object) -> bool:
    """Whether it reads frames, so that frames have to be rendered."""
    return getattr(encoder, "modality", "image") not in VECTORS


def input_keys(encoder: object, cameras: Sequence[str]) -> list[str]:
    """The names of what it reads: the frames of these cameras, or one vector."""
    modality = getattr(encoder, "modality", "image")
    return [VECTORS[modality]] if modality in VECTORS else [image_key(name) for name in cameras]


def encode_vectors(encoder: nn.Module, rows: np.ndarray, feature: str) -> np.ndarray:
    """An output for float [F, S]: where nothing is looked at, that costs less than a cache.

    Raises:
        UsageError: `feature` is not an output of the encoder.
    """
    with torch.inference_mode():
        tokens, out = encoder(encoder.preprocess(torch.from_numpy(rows)))  # type: ignore[operator]
    outputs = {"tokens": tokens, **out}
    if feature not in outputs:
        raise UsageError(f"this encoder has no output {feature!r}: choose one of {', '.join(sorted(outputs))}")
    return outputs[feature].numpy()
