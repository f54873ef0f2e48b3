"""How each robot takes hold of things: what its scripted behaviour knows and a learned one has to find out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Technique:
    """How a robot takes hold of things; angles in degrees.

    Args:
        facing: of the opening's axis about the vertical, when the arm is at home.
        pitch: of the direction of approach, from straight down (0) towards forward (90): to the cube, to the handle.
        opened, closed: targets of the finger joints around a cube.
        hooked: those around a handle.
        handle_m: from the handle to the grip, when it is taken.
    """

    facing: float
    pitch: tuple[float, float]
    opened: tuple[float, ...]
    closed: tuple[float, ...]
    hooked: tuple[float, ...]
    handle_m: tuple[float, float, float]


TECHNIQUES = {
    "franka": Technique(
        facing=90,
        pitch=(0, 30),
        opened=(0.04, -0.04),
        closed=(0.0, 0.0),
        hooked=(0.0, 0.0),
        handle_m=(0.0, 0.0, 0.0),
    ),
    "kuka": Technique(
        facing=0,
        pitch=(0, 0),
        opened=(1.3, 0, 0, 0) + (0.1, 0.1) * 4,
        closed=(1.3, 0.68, 0.68, 0.5) + (1.0, 0.9) * 4,
        hooked=(1.3, 0, 0, 0) + (1.2, 1.2) * 4,
        handle_m=(-0.02, 0.0, 0.0),
    ),
}


def grip_rotation(yaw: float, pitch: float) -> np.ndarray:
    """The grip's orientation [3, 3]: x is the opening's axis, z the approach; degrees, see `Technique`."""
    turn, lean = np.radians(yaw), np.radians(pitch)
    approach = np.array([np.sin(lean), 0.0, -np.cos(lean)])
    across = np.array([np.cos(lean), 0.0, np.sin(lean)])
    about_vertical = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    result: np.ndarray = about_vertical @ np.column_stack([across, np.cross(approach, across), approach])
    return result
