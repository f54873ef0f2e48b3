"""`visuals=varied`: every episode draws its own camera pose, light, colours, textures and clutter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied.envs.visuals.background import redecorate
from embodied.envs.visuals.cameras import move_cameras
from embodied.envs.visuals.colours import cover, tint
from embodied.envs.visuals.distractors import scatter
from embodied.envs.visuals.lighting import Light, daylight, turned
from embodied.envs.visuals.look import Draft


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What an episode draws from, evenly unless it says otherwise.

    Args:
        azimuth_deg, elevation_deg: of the camera around what it looks at, to either side.
        distance: of the camera, a fraction, to either side.
        aim: of the camera, in fractions of half the table's width, to either side along both sides of the picture.
        light_angle_deg: by which the lights turn about a horizontal axis, from 0.
        light: intensity of all light, a factor; its logarithm is even.
        shade: intensity of what light comes from everywhere and from the camera, another factor.
        mired: colour of the light from daylight, colder (negative) to warmer.
        table, background, objects, robot: the share of a new look; the rest is the task's own, so that objects stay
            recognisable. A look is a pattern of two colours for table and background, a colour for objects and robot.
        contrast: of patterns.
        clutter: things around, a whole number, both ends included.
    """

    azimuth_deg: float = 20.0
    elevation_deg: float = 10.0
    distance: float = 0.15
    aim: float = 0.08
    light_angle_deg: float = 50.0
    light: tuple[float, float] = (0.6, 1.3)
    shade: tuple[float, float] = (0.6, 1.2)
    mired: tuple[float, float] = (-60.0, 120.0)
    table: tuple[float, float] = (0.7, 1.0)
    background: tuple[float, float] = (0.8, 1.0)
    objects: tuple[float, float] = (0.0, 0.5)
    robot: tuple[float, float] = (0.0, 0.4)
    contrast: tuple[float, float] = (0.1, 0.8)
    clutter: tuple[int, int] = (0, 6)


def vary(draft: Draft, rng: np.random.Generator, ranges: Ranges) -> None:
    """Draw a look; each part from a random stream of its own, so that another range for one leaves the others alone."""
    camera, light, table, background, objects, clutter = rng.spawn(6)
    move_cameras(
        draft,
        azimuth=camera.uniform(-1, 1) * ranges.azimuth_deg,
        elevation=camera.uniform(-1, 1) * ranges.elevation_deg,
        distance=camera.uniform(-1, 1) * ranges.distance,
        aim=camera.uniform(-1, 1, 2) * ranges.aim,
    )
    intensity = np.exp(light.uniform(*np.log(ranges.light)))
    colour = intensity * daylight(light.uniform(*ranges.mired))
    turn = turned(light.uniform(0, ranges.light_angle_deg), light.uniform(0, 2 * np.pi))
    draft.change_light(Light(turn, colour, light.uniform(*ranges.shade)))
    amount, contrast = table.uniform(*ranges.table), table.uniform(*ranges.contrast)
    cover(draft, draft.parts.table, table, amount=amount, contrast=contrast)
    amount, contrast = background.uniform(*ranges.background), background.uniform(*ranges.contrast)
    redecorate(draft, background, amount=amount, contrast=contrast)
    tint(draft, draft.parts.objects, objects, amount=objects.uniform(*ranges.objects))
    tint(draft, draft.parts.robot, objects, amount=objects.uniform(*ranges.robot))
    scatter(draft, clutter, int(clutter.integers(*ranges.clutter, endpoint=True)))
