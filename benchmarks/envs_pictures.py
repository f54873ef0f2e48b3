"""Pictures of every suite at full, lean and lean+, and how much they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
from envs_sides import SIZE
from PIL import Image, ImageDraw

from embodied.core.errors import MissingExtraError
from embodied.envs.registry import load_suite
from embodied.envs.rendering import Quality
from embodied.envs.task_env import TaskEnv

STEPS, ZOOM, MARGIN = 8, 2, 18


def draw_pictures(suite: str, folder: Path) -> dict[str, Any]:
    """Write `render_<suite>.png` of the default camera; mean differences in grey levels of 255, over all cameras."""
    try:
        frames = {quality: frames_of(suite, quality) for quality in ("full", "lean", "lean+")}
    except MissingExtraError:
        return {"missing": True}
    shown = [frames[quality][load_suite(suite).default_camera][-1] for quality in frames]
    side = SIZE * ZOOM
    sheet = Image.new("RGB", (side * 3, side + MARGIN), "white")
    for place, (quality, frame) in enumerate(zip(frames, shown, strict=True)):
        sheet.paste(Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST), (place * side, MARGIN))
        ImageDraw.Draw(sheet).text((place * side + 4, 3), f"{suite}, render={quality}", fill="black")
    sheet.save(folder / f"render_{suite}.png", optimize=True)
    differences = {
        f"{one} to {other}": {
            camera: round(difference(frames[one][camera], frames[other][camera]), 2) for camera in frames["full"]
        }
        for one, other in (("lean", "full"), ("lean+", "lean"))
    }
    print(suite, differences, flush=True)
    return differences


def frames_of(suite: str, quality: str) -> dict[str, np.ndarray]:
    """uint8 [T, 128, 128, 3] of every camera of the default task, the same states whatever the quality."""
    assert quality in get_args(Quality)
    cameras = list(load_suite(suite).cameras)
    frames: dict[str, list[np.ndarray]] = {}
    env = TaskEnv(suite=suite, images=False, image_size=SIZE, render=quality)  # type: ignore[arg-type]
    cameras = [camera for camera in cameras if camera in env.spec_of_task.cameras]
    env.close()
    env = TaskEnv(suite=suite, camera=cameras, image_size=SIZE, render=quality)  # type: ignore[arg-type]
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(STEPS):
        for camera in cameras:
            frames.setdefault(camera, []).append(observation[f"observation.images.{camera}"])
        observation = env.step(env.action_space.sample())[0]
    env.close()
    return {camera: np.stack(each) for camera, each in frames.items()}


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())
