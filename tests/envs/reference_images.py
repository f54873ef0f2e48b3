"""What a suite looks like, as small pictures: a renderer or an upgrade that changes its look is noticed.

python tests/envs/reference_images.py dmc        # writes tests/envs/reference/dmc.png anew: look at it
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from embodied.envs.task_env import TaskEnv

FOLDER = Path(__file__).parent / "reference"
SIZE, STEPS = 64, 5


def frame_of(suite: str, *, render: str, image_size: int = SIZE) -> np.ndarray:
    """The default view of the default task after a few random actions, uint8 [S, S, 3]."""
    env = TaskEnv(suite=suite, render=render, image_size=image_size)
    random = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(STEPS):
        env.step(random.uniform(env.action_space.low, env.action_space.high).astype(np.float32))
    frame = env.render()
    env.close()
    return frame


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference in grey levels of 255."""
    return float(np.abs(one.astype(int) - other).mean())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Image.fromarray(frame_of(name, render="lean")).save(FOLDER / f"{name}.png", optimize=True)
