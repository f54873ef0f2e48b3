"""Where things are when a Meta-World episode starts: a part of the range to train in, another to be tried in."""

from __future__ import annotations

from typing import Any

import numpy as np

POSITIONS = {
    "all": "the library's whole range",
    "train": "three quarters of it: the first object is not far along its first coordinate that varies",
    "heldout": "the last quarter of that coordinate",
}
HANDS = {
    "home": "where the library starts the arm",
    "varied": "drawn around that for every episode, unless something is there",
}
SHARE = 0.75  # of the range that is trained in
_REACH = np.array([0.12, 0.1, 0.06])  # metres around the home position, of `varied`


def keep_to(library: Any, positions: str) -> None:
    """Make a library's environment draw placements from a part of its range.

    The vector that it draws holds the position of the first object, then that of a second or of the goal. One number of
    it is cut: the first coordinate of the first object that varies at all, x for nine of MT10's tasks, y for
    window-close. The others are drawn as ever, so held-out placements are an extrapolation along one axis.

    Args:
        library: the environment; its `_get_state_rand_vec` is wrapped.
        positions: a name of `POSITIONS`.
    """
    if positions == "all":
        return
    draw = library._get_state_rand_vec

    def drawn() -> np.ndarray:
        placed = cut(draw(), library._random_reset_space.low, library._random_reset_space.high, positions)
        library._last_rand_vec = placed
        return placed

    library._get_state_rand_vec = drawn


def cut(vector: np.ndarray, low: np.ndarray, high: np.ndarray, positions: str) -> np.ndarray:
    """The vector with its first varying number moved into the part, evenly: a uniform draw stays one."""
    axis = int(np.flatnonzero(high > low)[0])
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
