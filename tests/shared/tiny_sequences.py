"""Sequences at the size of a test: a tiny image encoder, a tiny RPT, and stores whose robots move by rules."""

import numpy as np
import torch

from embodied.core.protocols import ACTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.sequence_sources import Caches, Latents, open_sequences
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.sensorimotor.rpt import RPT

SIDE, CONTEXT = 16, 4
VIEW = "observation.images.front"


def image_encoder():
    """16 x 16 pixels, latents of 8 values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return freeze(ViTEncoder(image_size=SIDE, patch_size=8, width=8, depth=1, heads=2))


def network(**options):
    """Arguments of the transformer: one camera, three values of state, two of action."""
    sizes = {"cameras": ["front"], "state_dim": 3, "action_dim": 2, "context": CONTEXT}
    return {**sizes, "width": 32, "depth": 2, "heads": 2, **options}


def encoder(**options):
    """With random weights of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SensorimotorEncoder(frames=image_encoder(), network=network(**options))


def make(*, objective=None, **options):
    """RPT with random weights of seed 0, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return RPT(encoder(**options), **(objective or {})).train()


def episode(seed, length):
    """A dot goes round at a speed of its own: the frame shows it, the state is its place, the action its next move."""
    random = np.random.default_rng(seed)
    speed, start = random.choice([0.25, 0.4]), random.uniform(0, 2 * np.pi)
    angle = start + speed * np.arange(length + 1)
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    frames = np.zeros((length, SIDE, SIDE, 3), np.uint8)
    pixel = np.round((place[:-1] * 0.8 + 1) / 2 * (SIDE - 1)).astype(int)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        rows, columns = np.clip(pixel[:, 0] + row, 0, SIDE - 1), np.clip(pixel[:, 1] + column, 0, SIDE - 1)
        frames[np.arange(length), rows, columns] = 255
    state = np.concatenate([place[:-1], np.full((length, 1), speed)], axis=1)
    return {VIEW: frames, STATE: state.astype(np.float32), ACTION: np.diff(place, axis=0).astype(np.float32)}


def make_store(
    path,
    *,
    lengths=(7, 9, 6),
    keys=(VIEW, STATE, ACTION),
    robot="dot",
    fps=10.0,
    names=(),
    first_seed=0,
    provenance=None,
):
    """Episodes of a dot, with some of their keys."""
    specs = {
        VIEW: KeySpec("uint8", (SIDE, SIDE, 3)),
        STATE: KeySpec("float32", (3,)),
        ACTION: KeySpec("float32", (2,), names=names),
    }
    made = {"keys": {key: specs[key] for key in keys}, "fps": fps, "robot": robot, "provenance": provenance or {}}
    with EpisodeStore.create(path, **made) as store:
        for number, length in enumerate(lengths):
            arrays = episode(first_seed + number, length)
            store.append({key: arrays[key] for key in keys}, task="go round", seed=number, success=True)
    return path


def windows_of(root, *paths, reporter=None, **options):
    """Windows of stores, as `open_sequences` makes them."""
    frames = image_encoder()
    return open_sequences(
        paths,
        latents=Latents(encoder=frames, fingerprint=fingerprint(frames), output="pooled"),
        caches=Caches(root=root, max_bytes=None, device=torch.device("cpu"), reporter=reporter or SilentReporter()),
        **{"context": CONTEXT, **options},
    )


def random_batch(rows=6, seed=0):
    """A batch as the dataset gives it, of random values."""
    random = np.random.default_rng(seed)
    sizes = {VIEW: 8, STATE: 3, ACTION: 2}
    batch = {name: random.standard_normal((rows, CONTEXT, size)).astype(np.float32) for name, size in sizes.items()}
    return batch | {f"{name}_is_pad": np.zeros((rows, CONTEXT), bool) for name in sizes}
