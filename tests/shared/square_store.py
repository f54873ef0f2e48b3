"""A store whose state can be seen: a bright square at the place that it names."""

import numpy as np

from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

KEYS = {"observation.images.front": KeySpec("uint8", (48, 48, 3)), "observation.state": KeySpec("float32", (2,))}


def write_square_store(folder, *, episodes=5, length=6, keys=tuple(KEYS)):
    """`episodes` of `length` frames, the square anywhere in each."""
    store = EpisodeStore.create(folder, keys={key: KEYS[key] for key in keys}, fps=10.0)
    random = np.random.default_rng(0)
    for episode in range(episodes):
        places = random.integers(0, 32, (length, 2))
        frames = np.full((length, 48, 48, 3), 60, np.uint8)
        for frame, (row, column) in zip(frames, places, strict=True):
            frame[row : row + 16, column : column + 16] = 230
        values = {"observation.images.front": frames, "observation.state": places.astype(np.float32)}
        store.append({key: values[key] for key in keys}, task="look", seed=episode, success=True)
    store.close()
    return folder
