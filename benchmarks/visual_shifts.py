"""What visual shifts and varied visuals look like: grids of frames, and what dressing costs.

    python benchmarks/visual_shifts.py [suite] [task] [camera]      (a minute; metaworld hammer-v3 by default)

Writes docs/results/visual_shifts.png (rows: shifts, columns: the task's own look and strengths 1 to 5) and
docs/results/visual_varied.png (twelve episodes), or <suite>_<task> of each under runs/visual_shifts for other tasks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image, ImageDraw

from embodied.envs.rendering import FrameRenderer
from embodied.envs.task_env import TaskEnv
from embodied.envs.visuals.draw import SHIFTS, make_visuals

SIDE, SEED, LABEL = 96, 1, 84
Frame = np.ndarray  # uint8 [SIDE, SIDE, 3]
COST_SIDE, ROUNDS, STEPS = 128, 8, 30


def first_frame(
    env: TaskEnv, seed: int, *, visuals: str = "static", shift: str | None = None, strength: int = 1
) -> Frame:
    """The start of the episode of that seed in a look."""
    env.reset(seed=seed)
    drawn = make_visuals(visuals=visuals, shift=shift, strength=strength)
    look = None if drawn is None else drawn.draw(seed, env.simulation, env.cameras)
    renderer = FrameRenderer(env.simulation.model, height=SIDE, width=SIDE)
    frame = renderer.render(env.simulation.data, env.spec_of_task.cameras[env.cameras[0]], look)
    renderer.close()
    return frame


def grid(rows: dict[str, list[Frame]]) -> Image.Image:
    """Frames in rows with their names in front."""
    columns = max(len(row) for row in rows.values())
    sheet = Image.new("RGB", (LABEL + columns * SIDE, len(rows) * SIDE), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, row) in enumerate(rows.items()):
        pen.text((4, y * SIDE + SIDE // 2), name, fill="black")
        for x, frame in enumerate(row):
            sheet.paste(Image.fromarray(frame), (LABEL + x * SIDE, y * SIDE))
    return sheet


def costs(options: dict[str, object]) -> None:
    """Milliseconds of CPU time of a step with its frame, and of a reset with the drawing of a look.

    Looks take turns, and the fastest step and reset of each count, since other load on the machine comes and goes.
    """
    looks = {"static": {}, "varied": {"visuals": "varied"}, **{name: {"shift": name} for name in SHIFTS}}
    envs = {name: TaskEnv(image_size=COST_SIDE, **options, **look) for name, look in looks.items()}
    resets: dict[str, list[float]] = {name: [] for name in looks}
    steps: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(ROUNDS):
        for name, env in envs.items():
            before = process_time()
            env.reset(seed=SEED)
            resets[name].append(process_time() - before)
            for _ in range(STEPS):
                before = process_time()
                env.step(np.zeros(env.action_space.shape, np.float32))
                steps[name].append(process_time() - before)
    for name, env in envs.items():
        more = min(steps[name]) / min(steps["static"]) - 1
        print(
            f"{name:12} step {1e3 * min(steps[name]):6.2f} ms ({more:+.0%})   reset {1e3 * min(resets[name]):6.1f} ms"
        )
        env.close()


def main() -> None:
    names = ("suite", "task", "camera")
    options: dict[str, object] = dict(zip(names, sys.argv[1:], strict=False))
    where, prefix = Path("docs/results"), ""
    if options:
        where, prefix = Path("runs/visual_shifts"), "_".join(sys.argv[1:]) + "_"
        where.mkdir(parents=True, exist_ok=True)
    env = TaskEnv(images=False, **options)
    rows = {
        name: [first_frame(env, SEED), *(first_frame(env, SEED, shift=name, strength=s) for s in range(1, 6))]
        for name in [*SHIFTS, "all"]
    }
    grid(rows).save(where / f"{prefix}visual_shifts.png", optimize=True)
    varied = [first_frame(env, seed, visuals="varied") for seed in range(12)]
    grid({f"seed {n}-{n + 5}": varied[n : n + 6] for n in (0, 6)}).save(where / f"{prefix}visual_varied.png")
    costs(options)


if __name__ == "__main__":
    main()
