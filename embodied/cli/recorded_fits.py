"""Whether recorded demonstrations are of an environment: cameras, proprioception, actions. F frames, A action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from embodied.bench.policy_episodes import camera_list
from embodied.cli.settings import probe_env
from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE, image_key
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.real_robot.policy.needs import position_of

OUTSIDE = 0.25  # of an action's range, by which recordings may leave it: other units are looked for, not overshoot


def spec_names(store: EpisodeStore, key: str) -> tuple[str, ...]:
    """Names of a vector's values; none where the store has no such key, or does not name them."""
    return store.keys[key].names if key in store.keys else ()


def recorded_cameras(store: EpisodeStore, chosen: Any) -> list[str]:
    """The cameras to look through: all of a store's, or those that were chosen.

    Raises:
        UsageError: there is none, or no such one, or its frames are no colour images.
    """
    known = [key.removeprefix(IMAGE_PREFIX) for key in store.image_keys]
    if not known:
        raise UsageError(
            f"{store.path} holds no images for the encoder to see: write encoder=proprioception, or import the data "
            "with their images"
        )
    asked: Sequence[str] = known
    if chosen is not None:
        asked = [str(name) for name in chosen] if OmegaConf.is_list(chosen) else [str(chosen)]
    for camera in asked:
        if camera not in known:
            raise unknown_name(f"camera of {store.path}", camera, known)
        spec = store.keys[image_key(camera)]
        if spec.dtype != "uint8" or len(spec.shape) != 3 or spec.shape[2] != 3:
            raise UsageError(f"camera {camera}: expected colour images, uint8 [T, H, W, 3], got {spec.describe()}")
    return list(asked)


def check_fits_environment(store: EpisodeStore, action: np.ndarray, env: Mapping[str, Any], *, looks: bool) -> None:
    """A policy of these demonstrations sees and does in the environment what it saw and did in them.

    Args:
        action: of the demonstrations, [F, A].
        env: arguments of `TaskEnv`.
        looks: whether the encoder reads frames.

    Raises:
        UsageError: one line for each reason.
    """
    spec = probe_env(env).spec_of_task
    problems = [*_cameras(store, env)] if looks else []
    problems += names_apart("state", STATE, spec_names(store, STATE), spec.state) if _has_state(store, spec) else []
    if STATE in store.keys and store.keys[STATE].shape[0] != len(spec.state):
        problems.append(
            f"state: {STATE} has {store.keys[STATE].shape[0]} values, and the environment gives {len(spec.state)} "
            f"({', '.join(spec.state) or 'none'}): import the data with map= that gives it these"
        )
    low, high, width = spec.action_low, spec.action_high, action.shape[1]
    if width != len(low):
        problems.append(f"actions: {width} values, and the environment takes {len(low)} ({', '.join(spec.action)})")
    else:
        problems += names_apart("actions", ACTION, spec_names(store, ACTION), spec.action)
        problems += _ranges(action, low, high, spec.action)
    if problems:
        named = f"{store.path} does not fit env={env['suite']} task={env['task']}:"
        hint = "without a simulator: env=none"
        raise UsageError("\n  ".join([named, *problems, hint]))


def _has_state(store: EpisodeStore, spec: Any) -> bool:
    return STATE in store.keys and store.keys[STATE].shape[0] == len(spec.state)


def _cameras(store: EpisodeStore, env: Mapping[str, Any]) -> list[str]:
    known, size, problems = store.image_keys, int(env["image_size"]), []
    for camera in camera_list(env):
        if image_key(camera) not in known:
            named = [key.removeprefix(IMAGE_PREFIX) for key in known]
            problems.append(
                f"cameras: {unknown_name('camera of the store', camera, named)}"
                if named
                else "cameras: the store has no images"
            )
        elif store.keys[image_key(camera)].shape != (size, size, 3):
            shape = store.keys[image_key(camera)].shape
            hint = f"write env.image_size={shape[0]}" if shape[0] == shape[1] else "the environment's are squares"
            problems.append(f"cameras: {camera} has frames of {shape[0]}x{shape[1]}, not {size}x{size}: {hint}")
    return problems


def names_apart(part: str, key: str, ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """How names of recordings differ from an environment's, if they do, in one line.

    Recordings of a robot name the axis where environments name the displacement along it: these are the same.
    """
    if not ours or all(mine in (name, position_of(name)) for mine, name in zip(ours, theirs, strict=True)):
        return []
    return [f"{part}: {key} is {', '.join(ours)}, and the environment has {', '.join(theirs)}"]


def _ranges(action: np.ndarray, low: np.ndarray, high: np.ndarray, names: Sequence[str]) -> list[str]:
    room = OUTSIDE * (high - low)
    least, most = action.min(axis=0), action.max(axis=0)
    return [
        f"actions: {name} is {least[axis]:.3g} to {most[axis]:.3g}, and the environment takes {low[axis]:g} to "
        f"{high[axis]:g}"
        for axis, name in enumerate(names)
        if least[axis] < low[axis] - room[axis] or most[axis] > high[axis] + room[axis]
    ]
