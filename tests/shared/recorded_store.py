"""A store as a teleoperated robot leaves it: pictures that are no squares, a pose, and targets of the pose."""

from pathlib import Path

import numpy as np
from real_robots import toy_content

from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.real_robot.description.reading import read_robot

AXES = ("one", "two")
FRONT, STATE, ACTION = "observation.images.front", "observation.state", "action"


def write_recorded(
    folder, *, episodes=4, length=9, leave_out=(), names=AXES, task="lift", cameras=("front",), displaced=False, **made
):
    """Episodes in which the pose goes round in a circle, and the action is where it will be next, or the way there."""
    keys = {f"observation.images.{camera}": KeySpec("uint8", (24, 32, 3)) for camera in cameras}
    keys |= {STATE: KeySpec("float32", (2,), names=names), ACTION: KeySpec("float32", (2,), names=names)}
    keys = {key: spec for key, spec in keys.items() if key not in leave_out}
    store = EpisodeStore.create(folder, keys=keys, fps=20.0, robot="toy", provenance={"made": "by hand", **made})
    random = np.random.default_rng(0)
    for _ in range(episodes):
        turn = random.uniform(0, 6) + 0.3 * np.arange(length + 1)
        pose = 0.5 * np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
        frames = random.integers(0, 60, (length, 24, 32, 3)).astype(np.uint8)
        for frame, (across, down) in zip(frames, pose[:-1], strict=True):
            frame[8 + int(14 * down) : 16 + int(14 * down), 12 + int(14 * across) : 20 + int(14 * across)] += 150
        values = {key: frames for key in keys if key.startswith("observation.images")}
        values |= {STATE: pose[:-1], ACTION: pose[1:] - pose[:-1] * displaced}
        store.append({key: values[key] for key in keys}, task=task)
    store.close()
    return folder


def recorded_robot(**changes):
    """The robot of these recordings."""
    content = toy_content()
    content["cameras"] = {
        "front": {"topic": "/front", "type": "sensor_msgs/msg/Image", "input": FRONT},
    }
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value}
    return read_robot(content, path=Path("toy.yaml"))
