"""Recordings of robots that differ in number and scale of what they measure and do, in the same kind of pictures."""

import numpy as np

from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

FRONT, STATE, ACTION = "observation.images.front", "observation.state", "action"


def write_robot(
    folder, *, states=2, actions=2, scale=1.0, episodes=4, length=8, seed=0, cameras=("front",), size=(24, 24), **keys
):
    """Episodes of noise that moves: states are phases of a circle, actions where some of them will be, times `scale`.

    Args:
        keys: names of the state's and the action's values, `state_names` and `action_names`.
    """
    specs = {f"observation.images.{camera}": KeySpec("uint8", (*size, 3)) for camera in cameras}
    specs[ACTION] = KeySpec("float32", (actions,), names=keys.get("action_names", ()))
    if states:
        specs[STATE] = KeySpec("float32", (states,), names=keys.get("state_names", ()))
    store = EpisodeStore.create(folder, keys=specs, fps=10.0, robot=folder.name, provenance={"made": "by hand"})
    random = np.random.default_rng(seed)
    for _ in range(episodes):
        turn = random.uniform(0, 6) + 0.4 * np.arange(length + 1)
        phases = np.sin(turn[:, None] + np.arange(max(states, actions))).astype(np.float32)
        level = (127 + 120 * phases[:-1, :1, None, None]).astype(np.uint8)
        values = {name: np.broadcast_to(level, (length, *size, 3)).copy() for name in specs if "images" in name}
        values |= {STATE: 3 * scale * phases[:-1, :states], ACTION: scale * (phases[1:, :actions] + 5)}
        store.append({key: values[key] for key in specs}, task="turn")
    store.close()
    return folder
