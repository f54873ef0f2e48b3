"""Frames per second of the lean renderer and of the library's look, from one run.

python benchmarks/render_speed.py
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from embodied.envs.metaworld import MetaWorldEnv

FRAMES = {"lean": 150, "full": 25}


def main() -> None:
    speed = {}
    for quality, frames in FRAMES.items():
        env = MetaWorldEnv(render="lean" if quality == "lean" else "full")
        env.reset(seed=0)
        start = perf_counter()
        for _ in range(frames):
            env.step(np.zeros(4, np.float32))
        speed[quality] = frames / (perf_counter() - start)
        env.close()
        print(f"{quality}: {speed[quality]:.1f} steps with a 128x128 frame per second")
    print(f"lean is {speed['lean'] / speed['full']:.1f} times as fast")


if __name__ == "__main__":
    main()
