"""Where the light comes from, how bright it is, and of which colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from embodied.envs.visuals.look import Draft

ANGLE_DEG = 12.0  # per strength
DARKER, BRIGHTER = 0.13, 0.07  # log of intensity, per strength
WARMER, COLDER = 35.0, 16.0  # mired from daylight, per strength: 3,040 K and 13,200 K at 5
_DAYLIGHT_K = 6500.0
_LOWEST = -0.25  # of a direction's z: light does not come from below the table


@dataclass(frozen=True, eq=False)
class Light:
    """A change of all lights.

    Args:
        turn: [3, 3]; of the lights of the scene around its focus; the light at the camera stays there.
        colour: float [3]; multiplies.
        shade: float; multiplies the light that comes from nowhere and from the camera once more.
    """

    turn: np.ndarray
    colour: np.ndarray
    shade: float = 1.0

    def then(self, other: Light) -> Light:
        """This change and another after it."""
        return Light(other.turn @ self.turn, other.colour * self.colour, other.shade * self.shade)

    def apply(self, scene: mujoco.MjvScene, focus: np.ndarray) -> None:
        for light in scene.lights[: scene.nlight]:
            gain = self.colour * (self.shade if light.headlight else 1.0)
            light.ambient = np.minimum(light.ambient * self.colour * self.shade, 1)
            light.diffuse = np.minimum(light.diffuse * gain, 1)
            light.specular = np.minimum(light.specular * gain, 1)
            if light.headlight:
                continue
            direction = self.turn @ light.dir
            direction[2] = min(direction[2], _LOWEST)
            light.dir = direction / np.linalg.norm(direction)
            if not light.directional:
                light.pos = focus + self.turn @ (light.pos - focus)


def daylight(mired: float) -> np.ndarray:
    """The colour of a black body so many mired (1e6 / K) warmer than 6500 K, relative to that, mean 1; float [3]."""
    kelvin = 1e6 / (1e6 / _DAYLIGHT_K + mired)
    wavelength = np.array([610e-9, 550e-9, 465e-9])  # metres; red, green, blue
    spectra = [1 / np.expm1(1.4388e-2 / (wavelength * k)) for k in (kelvin, _DAYLIGHT_K)]  # Planck's law
    ratio = spectra[0] / spectra[1]
    return ratio / ratio.mean()


def turned(degrees: float, direction: float) -> np.ndarray:
    """A turn [3, 3] by that angle about the horizontal axis in that direction, radians."""
    angle, axis = np.radians(degrees), np.array([np.cos(direction), np.sin(direction), 0])
    cross = np.array([[0, 0, axis[1]], [0, 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def shift_light(draft: Draft, rng: np.random.Generator, strength: int) -> None:
    """Light from another side, darker or brighter, warmer or colder."""
    turn = turned(ANGLE_DEG * strength, rng.uniform(0, 2 * np.pi))
    gain = np.exp(strength * (-DARKER if rng.random() < 0.5 else BRIGHTER))
    mired = strength * (WARMER if rng.random() < 0.5 else -COLDER)
    draft.change_light(Light(turn, gain * daylight(mired)))
