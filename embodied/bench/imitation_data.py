"""What behaviour cloning learns from: an episode store as features, samples, and the statistics of both.

Legend: F frames, S samples, T moments of history.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from embodied.core.errors import UserError, unknown_name
from embodied.core.protocols import ACTION, FEATURES, INPUTS, STATE, Reporter
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.feature_cache import encode_store
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.policies.bc import BCPolicy

SCALE_SAMPLES = 512  # windows that the scale of the features is measured on
ENCODED_AT_ONCE = 64  # frames, where an encoder that learns is measured


def output_shape(encoder: nn.Module, inputs: Tensor, name: str) -> tuple[int, ...]:
    """Shape of one frame's `tokens` or named output.

    Raises:
        UsageError: the encoder has no such output.
    """
    with torch.inference_mode():
        tokens, out = encoder(encoder.preprocess(inputs))  # type: ignore[operator]
    outputs = {"tokens": tokens, **out}
    if name not in outputs:
        raise unknown_name("policy.feature", name, outputs)
    return tuple(outputs[name].shape[1:])


def feature_inputs(
    store: EpisodeStore,
    encoder: nn.Module,
    *,
    image_keys: Sequence[str],
    feature: str,
    frames: int,
    cache_root: Path,
    device: torch.device,
    reporter: Reporter,
    max_bytes: int | None,
) -> list[np.ndarray]:
    """The first `frames` features of every camera [F, ...], from the cache, which is filled where it is not."""
    found = []
    for key in image_keys:
        cache = encode_store(
            store,
            encoder,
            image_key=key,
            outputs=[feature],
            cache_root=cache_root,
            encoder_fingerprint=fingerprint(encoder),
            device=device,
            reporter=reporter,
            max_bytes=max_bytes,
            dtype="float32",  # consecutive frames differ by little more than float16 can tell apart
        )
        found.append(cache.array(feature)[:frames])
    return found


def demonstrations(
    store: EpisodeStore,
    inputs: Sequence[np.ndarray | Rows],
    *,
    episodes: int,
    history: int,
    chunk: int,
    forward: bool,
) -> Demonstrations:
    """Samples of the first `episodes` of a store, see `Demonstrations`.

    Raises:
        UserError: the store holds no episodes or no actions, or numbers that are none.
    """
    if not store.lengths:
        raise UserError(f"{store.path} holds no episodes: collect some before training on it")
    if ACTION not in store.keys:
        raise UserError(f"{store.path} holds no {ACTION!r}: behaviour cloning needs demonstrations with actions")
    lengths = store.lengths[:episodes]
    frames = sum(lengths)
    return Demonstrations(
        inputs,
        state=store.read(STATE, 0, frames) if STATE in store.keys else np.zeros((frames, 0), np.float32),
        action=store.read(ACTION, 0, frames),
        lengths=lengths,
        history=history,
        chunk=chunk,
        forward=forward,
    )


def measure(policy: nn.Module, samples: Demonstrations, *, device: torch.device) -> None:
    """Give a fresh policy the statistics of actions, proprioception and features.

    An encoder that learns from scratch has no features to measure yet; one that is tuned is measured as it starts.
    """
    cloned = cast(BCPolicy, policy)
    cloned.normalizer.fit(samples.actions)
    cloned.controller.fit_state(samples.states)
    count = min(len(samples), SCALE_SAMPLES)
    batch = samples.batch(np.linspace(0, len(samples) - 1, count).astype(np.int64))
    if not cloned.trainable_encoder:
        cloned.controller.fit_features(batch[FEATURES])
    elif cloned.tune != "frozen":
        cloned.to(device)
        frames = batch[INPUTS]
        with torch.inference_mode():
            encoded = [cloned.encode(part.to(device)).cpu() for part in frames.flatten(0, 1).split(ENCODED_AT_ONCE)]
        cloned.cpu().controller.fit_features(torch.cat(encoded).unflatten(0, frames.shape[:2]))
    cloned.after_measuring()
