"""What behaviour cloning learns from: an episode store as features, samples, and the statistics of both.

Legend: F frames, S samples, T moments of history, N episodes, E width of an instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from embodied.bench.square_frames import SquareFrames
from embodied.core.errors import UserError, unknown_name
from embodied.core.protocols import ACTION, FEATURES, INPUTS, PAD_MASK, STATE, Reporter, TextEncoder
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.episode_rows import row_ranges, store_ranges
from embodied.datasets.loading.feature_cache import encode_store
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.picked_rows import PickedRows
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.encoders.text.instructions import Instructions
from embodied.policies.augmented_views import MovedFrames, Views
from embodied.policies.bc import BCPolicy
from embodied.training.imitate import Demonstrations as Samples

SCALE_SAMPLES = 512  # windows that the scale of the features is measured on
STATISTICS_VALUES = 1 << 25  # of converted chunks at most: bounds memory
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
    frames: int | slice | np.ndarray,
    cache_root: Path,
    device: torch.device,
    reporter: Reporter,
    max_bytes: int | None,
    views: Views | None = None,
    size: int | None = None,
) -> list[np.ndarray | PickedRows]:
    """Features of every camera [F, ...], from the cache, which is filled where it is not.

    With V further views they are [(1 + V) F, ...], one view after the other, the frames as they are first.

    Args:
        frames: which of the store's: the first so many, a range, or numbers int64 [F].
        size: pixels of the square that is seen of each frame, see `SquareFrames`; None: all of it.
    """
    chosen = slice(frames) if isinstance(frames, int) else frames
    known = fingerprint(encoder)
    found: list[np.ndarray | PickedRows] = []
    for key in image_keys:
        whole = size is None or store.keys[key].shape == (size, size, 3)
        seen = _views_of(encoder, known, views or Views(), size=None if whole else size)
        caches = [
            encode_store(
                store,
                module,
                image_key=key,
                outputs=[feature],
                cache_root=cache_root,
                encoder_fingerprint=name,
                device=device,
                reporter=reporter,
                max_bytes=max_bytes,
                dtype="float32",  # consecutive frames differ by little more than float16 can tell apart
            )
            for module, name in seen
        ]
        arrays = [cache.array(feature) for cache in caches]
        if len(arrays) > 1:
            found.append(np.concatenate([array[chosen] for array in arrays]))
        else:
            found.append(arrays[0][chosen] if isinstance(chosen, slice) else PickedRows(arrays[0], chosen))
    return found


def raw_inputs(
    store: EpisodeStore,
    keys: Sequence[str],
    episodes: Sequence[int],
    *,
    size: int | None,
    cache_root: Path,
    reporter: Reporter,
    max_bytes: int | None,
) -> list[np.ndarray | Rows]:
    """What an encoder that learns reads of episodes, per key [F, ...].

    Args:
        size: side S of squares, uint8 [F, S, S, 3], which lie in memory-mapped files; None: frames as they are stored.
    """
    if size is None:
        return [read_episodes(store, key, episodes) for key in keys]
    data = materialize(
        store,
        keys=keys,
        image_size=size,
        episodes=episodes,
        cache_root=cache_root,
        max_bytes=max_bytes,
        reporter=reporter,
    )
    for rows in data.rows.values():
        rows.maps()  # what is mapped stays readable, should the cache make room for another
    return [data.rows[key] for key in keys]


def _views_of(encoder: nn.Module, known: str, views: Views, *, size: int | None) -> list[tuple[nn.Module, str]]:
    """What encodes each view of a frame, and as what its features are known; `known`: the encoder's fingerprint."""
    seeing = encoder
    if size is not None:
        square = SquareFrames(encoder, size=size)
        seeing, known = square, square.known_as(known)
    seen: list[tuple[nn.Module, str]] = [(seeing, known)]
    for view in range(1, 1 + views.count):
        down, right = views.offset(view)
        moving = MovedFrames(seeing, down=down, right=right)
        seen.append((moving, moving.known_as(known)))
    return seen


def demonstrations(
    store: EpisodeStore,
    inputs: Sequence[np.ndarray | Rows | PickedRows],
    *,
    episodes: int | Sequence[int],
    history: int,
    chunk: int,
    forward: bool,
    text_encoder: TextEncoder | None = None,
    memories: bool = False,
    views: int = 0,
) -> Demonstrations:
    """Samples of episodes of a store, the first so many or those with these numbers, ascending; see `Demonstrations`.

    With a text encoder they have instructions.

    With `memories` they hold what a policy with a sequence encoder recalls, in place of proprioception. With `views`
    every episode stands there once more per further view, see `feature_inputs`: an epoch passes through all.

    Raises:
        UserError: the store holds no episodes, no actions or no instructions, or numbers that are none.
    """
    if not store.lengths:
        raise UserError(f"{store.path} holds no episodes: collect some before training on it")
    if ACTION not in store.keys:
        raise UserError(f"{store.path} holds no {ACTION!r}: behaviour cloning needs demonstrations with actions")
    numbers = list(range(min(episodes, len(store)))) if isinstance(episodes, int) else list(episodes)
    lengths = [store.lengths[number] for number in numbers]
    action = read_episodes(store, ACTION, numbers)
    state = read_episodes(store, STATE, numbers) if STATE in store.keys else np.zeros((len(action), 0), np.float32)
    told = None if text_encoder is None else episode_instructions(store, text_encoder, numbers)
    times = 1 + views
    return Demonstrations(
        inputs,
        state=np.tile(recalled(state, action, lengths) if memories else state, (times, 1)),
        action=np.tile(action, (times, 1)),
        lengths=[*lengths] * times,
        history=history,
        chunk=chunk,
        forward=forward,
        instructions=None if told is None else told.repeat(times, 1),
    )


def episode_rows(store: EpisodeStore, episodes: Sequence[int]) -> slice | np.ndarray:
    """Which frames of a store belong to episodes, ascending: a range where they follow one another, else int64 [F]."""
    starts, lengths = row_ranges(store, np.asarray(episodes, np.int64))
    ranges = list(store_ranges(starts, lengths, 0, int(lengths.sum())))
    if len(ranges) < 2:
        return slice(*ranges[0]) if ranges else slice(0, 0)
    return np.concatenate([np.arange(*each) for each in ranges])


def read_episodes(store: EpisodeStore, key: str, episodes: Sequence[int]) -> np.ndarray:
    """Frames of a key [F, ...] over episodes, ascending."""
    starts, lengths = row_ranges(store, np.asarray(episodes, np.int64))
    parts = [store.read(key, *each) for each in store_ranges(starts, lengths, 0, int(lengths.sum()))]
    if not parts:
        return store.read(key, 0, 0)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def recalled(state: np.ndarray, action: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Memories of every frame, float32 [F, P + A + 1], as `policies.necks.sequence.recall` makes them at a robot."""
    number = np.concatenate([np.arange(length) for length in lengths])
    before = np.concatenate([np.zeros_like(action[:1]), action[:-1]])
    before[number == 0] = 0
    return np.concatenate([state, before, number[:, None]], axis=1, dtype=np.float32)


def episode_instructions(store: EpisodeStore, text_encoder: TextEncoder, episodes: Sequence[int]) -> Tensor:
    """Embeddings of the tasks of episodes, float32 [N, E], each distinct one computed once.

    Raises:
        UserError: an episode has no task.
    """
    infos = store.episodes
    tasks = [infos[number].task for number in episodes]
    missing = [number for number, task in zip(episodes, tasks, strict=True) if not task.strip()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{store.path}: episode {missing[0]}{more} has no instruction, which policy.instruction learns from: "
            "import or collect it with a task, leave such episodes out (embodied data filter), or train without"
        )
    return Instructions(text_encoder)(tasks)


def learned_actions(policy: BCPolicy, samples: Demonstrations) -> Tensor:
    """What the scale of actions is measured on, float32 [S, A]: actions as the head learns them, but for their scale.

    These are the actions of all frames or, where they are learned in relation to a window's state, the real steps of
    all windows' chunks, so that a step counts in every window that it stands in, as pi0's code and LeRobot have it. Of
    very many windows evenly spaced ones are taken.
    """
    if policy.action_frame is None:
        return samples.actions
    count = min(len(samples), max(1, STATISTICS_VALUES // (policy.assembly.chunk * policy.action_dim)))
    chosen = samples.targets(np.linspace(0, len(samples) - 1, count).astype(np.int64))
    return policy.action_frame.convert(chosen[ACTION], chosen[STATE])[chosen[PAD_MASK]]


def measure(policy: nn.Module, samples: Demonstrations, *, device: torch.device) -> None:
    """Give a fresh policy the statistics of actions, proprioception and features.

    An encoder that learns from scratch has no features to measure yet; one that is tuned is measured as it starts.
    """
    cloned = cast(BCPolicy, policy)
    measure_robot(cloned, samples)
    measure_features(cloned, samples, device=device)


def measure_robot(cloned: BCPolicy, samples: Demonstrations) -> None:
    """Of `measure` what is the robot's: actions and proprioception."""
    cloned.normalizer.fit(learned_actions(cloned, samples))
    (cloned.controller if cloned.shared is None else cloned.shared).fit_state(samples.states)


def measure_features(cloned: BCPolicy, samples: Samples, *, device: torch.device) -> None:
    """Of `measure` what is the encoder's."""
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
