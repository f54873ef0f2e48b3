"""Where things are when a Meta-World episode starts: a part of the range to train in, another to be tried in."""

from __future__ import annotations

from typing import Any

import numpy as np

POSITIONS = {
    "all": "the library's whole range",
    "train": "three quarters of it: what has to be found is not far along its first coordinate that varies",
    "heldout": "the last quarter of that coordinate",
}
HANDS = {
    "home": "where the library starts the arm",
    "varied": "drawn around that for every episode, unless something is there",
}
SHARE = 0.75  # of the range that is trained in
DISTRACTED = ("reach-v3", "reach-wall-v3")  # their first object is a puck that nobody needs, their second the goal
_REACH = np.array([0.12, 0.1, 0.06])  # metres around the home position, of `varied`


def keep_to(library: Any, positions: str, *, task: str) -> None:
    """Make a library's environment draw placements from a part of its range.

    The vector that it draws holds the position of the first object, then that of a second or of the goal. One number of
    it is cut: the first coordinate of the first object that varies at all, x for nine of MT10's tasks, y for
    window-close; for those of `DISTRACTED` x of the goal. The others are drawn as ever, so held-out placements are an
    extrapolation along one axis.

    Args:
        library: the environment; its `_get_state_rand_vec` is wrapped.
        positions: a name of `POSITIONS`.
        task: its name.
    """
    if positions == "all":
        return
    draw, space = library._get_state_rand_vec, library._random_reset_space
    axis = cut_axis(space.low, space.high, task=task)

    def drawn() -> np.ndarray:
        placed = cut(draw(), space.low, space.high, positions, axis=axis)
        library._last_rand_vec = placed
        return placed

    library._get_state_rand_vec = drawn


def cut_axis(low: np.ndarray, high: np.ndarray, *, task: str) -> int:
    """Which number of the vector is cut, see `keep_to`."""
    varies = np.flatnonzero(high > low)
    return int(varies[varies >= len(low) // 2][0] if task in DISTRACTED else varies[0])


def cut(vector: np.ndarray, low: np.ndarray, high: np.ndarray, positions: str, *, axis: int) -> np.ndarray:
    """The vector with the number at `axis` moved into the part, evenly: a uniform draw stays one."""
    share = (vector[axis] - low[axis]) / (high[axis] - low[axis])
    share = SHARE * share if positions == "train" else SHARE + (1 - SHARE) * share
    placed = np.array(vector, np.float64)
    placed[axis] = low[axis] + share * (high[axis] - low[axis])
    return placed


def drawn_hand(home: np.ndarray, seed: int) -> np.ndarray:
    """Where the arm of the episode of that seed starts, float64 [3]."""
    from embodied.core.seeding import numpy_generator  # here, for it loads torch

    return np.asarray(home + numpy_generator(seed, "hand").uniform(-1, 1, 3) * _REACH)


def arm_touches(model: Any, data: Any) -> bool:
    """Whether the arm is in contact with anything that is not part of it."""
    import mujoco

    mujoco.mj_forward(model, data)  # tasks move bodies after their last step
    arm = model.body_rootid[model.body("hand").id]
    ours = model.body_rootid[model.geom_bodyid] == arm  # (geoms,)
    return any(bool(ours[contact.geom1] != ours[contact.geom2]) for contact in data.contact)
