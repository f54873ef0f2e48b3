"""Encoders that tell frames apart by nothing at all, found before a controller is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from embodied.core.errors import UserError, unknown_name
from embodied.encoders.modality import input_keys, looks
from embodied.envs.task_env import TaskEnv

CHECKED_FRAMES = 1024
SAME = 1e-6  # of the largest value: a spread that is only rounding


def check_features(arrays: Sequence[np.ndarray], encoder: str) -> None:
    """Look at features of evenly spaced frames, [F, ...] per camera.

    Raises:
        UserError: some are no finite numbers, or all frames have the same.
    """
    for array in arrays:
        rows = np.asarray(array[:: max(1, len(array) // CHECKED_FRAMES)])
        if not rows.size:
            continue  # an encoder of nothing
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)).sum())
            raise UserError(
                f"encoder={encoder} gives NaN or infinite features ({bad} of {len(rows)} frames that were looked at)"
            )
        spread = float((rows.max(axis=0) - rows.min(axis=0)).max())
        if len(rows) > 1 and spread <= SAME * max(float(np.abs(rows).max()), 1e-30):
            raise UserError(
                f"encoder={encoder} gives constant features: the same for all of {len(rows)} frames that were looked at"
            )


def check_on_environment(encoder: nn.Module, spec: str, env: dict[str, object], feature: str) -> None:
    """Look at the features of the first frames of a few episodes, where there are no demonstrations.

    Raises:
        UserError: see `check_features`; or the encoder has no such output.
    """
    if not looks(encoder):
        return
    simulator = TaskEnv(**{**env, "history": 1})  # type: ignore[arg-type]
    try:
        (key,) = input_keys(encoder, [simulator.cameras[0]])
        frames = np.stack([simulator.reset(seed=seed)[0][key] for seed in range(4)])
    finally:
        simulator.close()
    frames = np.concatenate([frames, 255 - frames])  # in case that episodes begin alike
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        tokens, out = encoder(encoder.preprocess(torch.from_numpy(frames).to(device)))  # type: ignore[operator]
    outputs = {"tokens": tokens, **out}
    if feature not in outputs:
        raise unknown_name("reinforce.feature", feature, outputs)
    check_features([outputs[feature].float().cpu().numpy()], spec)
