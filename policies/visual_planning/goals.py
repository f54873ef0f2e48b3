"""Goals as pictures: how the scene looks when a task is done.

Legend: G goals, B episodes, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import image_key
from embodied.datasets.files.image_files import SUFFIXES, read_square
from embodied.datasets.loading.frame_size import sized
from embodied.datasets.store.episode_store import EpisodeStore

LIMIT = 256  # goals that a policy keeps


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Pictures of the task done.

    Args:
        frames: of the ends.
        starts: of the same episodes' beginnings, to choose a goal by; None where there is one goal only.
    """

    frames: UInt8[Tensor, "G S S 3"]
    starts: UInt8[Tensor, "G S S 3"] | None = None


def goals_from_image(path: str | Path, image_size: int) -> Goals:
    """The picture in a file, the one goal of every episode.

    Raises:
        UserError: it is no image, or there is none.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"policy.goal: there is no picture at {path}")
    return Goals(frames=torch.from_numpy(read_square(path, image_size).copy())[None])


def goals_from_store(store: EpisodeStore, *, camera: str, image_size: int, episodes: int) -> Goals:
    """The last frames of successful episodes among the first `episodes` of a store, at most `LIMIT`.

    The last frame that a store has of an episode is the one before its last action.

    Raises:
        UserError: it has no frames of the camera, or no episode that is known to have succeeded.
    """
    key = image_key(camera)
    if key not in store.keys:
        raise UserError(
            f"policy.goal: {store.path} holds no frames of camera {camera!r}: it has {list(store.image_keys)}"
        )
    done = [episode for episode in store.episodes[:episodes] if episode.success and episode.length][:LIMIT]
    if not done:
        raise UserError(
            f"policy.goal: no episode of {store.path} is known to have succeeded, so none shows the task done: collect "
            "with collect.only_successes=true, or give a picture of the goal"
        )
    starts = np.concatenate([store.read(key, episode.start, episode.start + 1) for episode in done])
    ends = np.concatenate([store.read(key, episode.stop - 1, episode.stop) for episode in done])
    shape = (image_size, image_size, 3)
    return Goals(
        frames=torch.from_numpy(np.ascontiguousarray(sized(key, ends, shape))),
        starts=torch.from_numpy(np.ascontiguousarray(sized(key, starts, shape))),
    )


def is_picture(goal: str) -> bool:
    """Whether a goal is named by an image file."""
    return Path(goal).suffix.lower() in SUFFIXES


def nearest_goal(
    frames: UInt8[Tensor, "B S S 3"], starts: UInt8[Tensor, "G S S 3"], *, goals: int
) -> Int[Tensor, " B"]:
    """For every episode the goal whose own episode began most like it: the least squared difference of pixels.

    Args:
        frames: the episodes' first.
        starts: G of them; none: there is one goal.
        goals: how many there are.
    """
    if not len(starts):
        if goals > 1:
            raise UsageError(f"{goals} goals, and nothing to choose one by: give the first frames of their episodes")
        return torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
    # Rows one by one: few episodes start together, and pixels of all pairs would need much memory.
    found = [(starts.float() - frame.float()).square().flatten(1).sum(dim=1).argmin() for frame in frames]
    return torch.stack(found)
