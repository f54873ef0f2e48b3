"""Clutter on the table: things that are drawn and cannot be touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.visuals.cameras import View
from embodied.envs.visuals.patterns import draw_colour, draw_texture
from embodied.envs.visuals.props import Prop
from embodied.envs.visuals.surfaces import Surface

if TYPE_CHECKING:
    from embodied.envs.visuals.look import Draft

COUNT = 2  # per strength
SIZE = (0.045, 0.11)  # radius, of half the table's width
_APART = 0.09  # of the same, from what the task is about and from each other
_TRIES = 100  # places tried for each
_CORE = 0.5  # of the ball around a part of the task: what must not be touched or hidden
_SHAPES = ("mjGEOM_BOX", "mjGEOM_SPHERE", "mjGEOM_CYLINDER", "mjGEOM_CAPSULE", "mjGEOM_ELLIPSOID")


def shift_distractors(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """Things that do not belong to the task, in view and not in front of what does."""
    scatter(draft, rng, COUNT * strength)


def scatter(draft: Draft, rng: np.random.Generator, count: int) -> None:
    """Put so many things around, fewer where there is no room. More of them keep the first in place."""
    streams = rng.spawn(count)
    placed: list[tuple[np.ndarray, float]] = []
    for stream in streams:
        prop, radius = _draw(stream, draft.parts.size)
        place = _place(draft, stream, radius, placed)
        if place is not None:
            placed.append((place, radius))
            draft.props.append(prop.at(place + np.array([0, 0, prop.height])))


def _draw(rng: np.random.Generator, scale: float) -> tuple[Prop, float]:
    """Something to put somewhere, and its radius seen from above, metres."""
    shape = str(rng.choice(_SHAPES))
    width, tall = scale * rng.uniform(*SIZE, 2)
    depth = width * rng.uniform(0.6, 1.0)
    size = {
        "mjGEOM_BOX": (width, depth, tall),
        "mjGEOM_SPHERE": (width, width, width),
        "mjGEOM_CYLINDER": (width, width, tall),
        "mjGEOM_CAPSULE": (width / 2, width / 2, tall),
        "mjGEOM_ELLIPSOID": (width, depth, tall),
    }[shape]
    turn = rng.uniform(0, 2 * np.pi)
    axes = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    if rng.random() < 0.5:
        surface = Surface(rgba=np.ones(4, np.float32), picture=draw_texture(rng, 128, contrast=1.0))
    else:
        surface = Surface(rgba=np.array([*draw_colour(rng), 1], np.float32))
    height = size[2] + (size[0] if shape == "mjGEOM_CAPSULE" else 0)
    radius = float(np.hypot(size[0], size[1])) if shape == "mjGEOM_BOX" else max(size[:2])
    return Prop(shape=shape, size=size, axes=axes, surface=surface, height=height), radius


def _place(
    draft: Draft, rng: np.random.Generator, radius: float, placed: list[tuple[np.ndarray, float]]
) -> np.ndarray | None:
    """A point [3] on the table that is free, in view, and hides nothing of the task; None if none was found."""
    parts = draft.parts
    low, high = np.maximum(parts.low, parts.focus - parts.reach), np.minimum(parts.high, parts.focus + parts.reach)
    apart, views = parts.size * _APART, draft.views.values()
    for point in rng.uniform(low[:2], np.maximum(low, high)[:2], (_TRIES, 2)):
        if any(np.hypot(*(point - other[:2])) < radius + size + 0.3 * apart for other, size in placed):
            continue
        if not any(_is_well_seen(view, np.array([*point, parts.high[2]]), radius) for view in views):
            continue
        height = _free_top(draft, point, radius)
        if height is None:
            continue
        place = np.array([*point, height])
        away = np.linalg.norm(parts.points - place, axis=1)
        near = (away < radius + _CORE * parts.radii + apart).any()
        if not near and not any(_hides(view, place, radius, parts.points, parts.radii) for view in views):
            return place
    return None


def _free_top(draft: Draft, point: np.ndarray, radius: float) -> float | None:
    """The height of the table around a place, metres; None where something else is, or it is not level."""
    around = point + radius * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    heights = [draft.top_at(spot) for spot in around]
    known = [height for height in heights if height is not None]
    level = len(known) == len(heights) and max(known) - min(known) < 0.1 * radius
    return known[0] if level else None


def _is_well_seen(view: View, place: np.ndarray, radius: float) -> bool:
    return bool(view.sees(place[None])[0]) and bool(np.linalg.norm(place - view.position) > 4 * radius)


def _hides(view: View, place: np.ndarray, radius: float, points: np.ndarray, radii: np.ndarray) -> bool:
    """Whether a ball around the place is in front of the core of one around some point, as the camera sees it."""
    to_place, to_points = place - view.position, points - view.position
    far, distances = float(np.linalg.norm(to_place)), np.linalg.norm(to_points, axis=1)
    cosines = to_points @ to_place / (far * distances)
    between = np.arccos(np.clip(cosines, -1, 1)) < np.arctan(2 * radius / far) + np.arctan(_CORE * radii / distances)
    return bool((between & (far < distances + radii)).any())
