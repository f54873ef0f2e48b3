"""Two robots with other sensors and actions, and a tiny HPT for them."""

import numpy as np
import torch
from tiny_sequences import CONTEXT, SIDE, image_encoder, make_store

from embodied.core.protocols import ACTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.mixture_manifest import DatasetEntry
from embodied.datasets.loading.mixture_sources import open_mixture
from embodied.datasets.loading.mixture_statistics import image_statistics, vector_statistics
from embodied.datasets.loading.sequence_sources import Caches, Latents
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import fingerprint
from embodied.models.sequence.hpt_head import RegressionHead
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.objectives.sensorimotor.hpt import HPT, Embodiments

CHUNK = 3
BODIES = {  # of `make`: cameras, P, A
    "dot": {"cameras": ["front"], "state_dim": 3, "action_dim": 2},
    "arm": {"cameras": ["wrist", "side"], "state_dim": 5, "action_dim": 4},
}


def make_arm(path, *, lengths=(8, 6), robot="arm", broken=None):
    """A robot with two cameras, whose actions are a linear map of five joints; `broken`: (episode, step) with nan."""
    keys = {f"observation.images.{camera}": KeySpec("uint8", (SIDE, SIDE, 3)) for camera in ("wrist", "side")}
    keys |= {STATE: KeySpec("float32", (5,)), ACTION: KeySpec("float32", (4,))}
    keys["observation.raw.tactile"] = KeySpec("float32", (5,))
    with EpisodeStore.create(path, keys=keys, fps=10.0, robot=robot) as store:
        for number, length in enumerate(lengths):
            random = np.random.default_rng(100 + number)
            angle = random.uniform(0, 2 * np.pi) + 0.3 * np.arange(length)[:, None]
            joints = np.sin(angle + np.arange(5)).astype(np.float32)
            tactile = joints.copy()
            if broken is not None and broken[0] == number:
                tactile[broken[1], 2] = np.nan
            frames = {name: random.integers(0, 256, (length, SIDE, SIDE, 3), np.uint8) for name in list(keys)[:2]}
            action = 10 * joints @ np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4) + 3
            arrays = {**frames, STATE: joints, ACTION: action, "observation.raw.tactile": tactile}
            store.append(arrays, task="move", seed=number, success=True)
    return path


def entries(folder, **options):
    """Of two datasets in a folder, made if need be."""
    for name, make_one in (("dot", make_store), ("arm", make_arm)):
        if not (folder / name).exists():
            make_one(folder / name)
    return [DatasetEntry(name=name, paths=(str(folder / name),), embodiment=name, **options) for name in ("dot", "arm")]


def mixture(root, found, **options):
    """Windows of entries, as `open_mixture` makes them."""
    frames = image_encoder()
    return open_mixture(
        found,
        latents=Latents(encoder=frames, fingerprint=fingerprint(frames), output="tokens"),
        caches=Caches(root=root / "cache", max_bytes=None, device=torch.device("cpu"), reporter=SilentReporter()),
        **{"context": CONTEXT, "chunk": CHUNK, **options},
    )


def make(bodies=None, *, frozen=False, datasets=None, seed=0, latent_dim=8, **options):
    """HPT with random weights, in training mode; one dataset per embodiment of the same name by default."""
    bodies = bodies or BODIES
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Embodiments(HPTTrunk(size=None, width=32, depth=2, heads=4), frozen=frozen)
        heads = {}
        for name, body in bodies.items():
            sizes = {**{key: value for key, value in body.items() if key != "action_dim"}, "latent_dim": latent_dim}
            encoder.add(name, context=CONTEXT, tokens=4, hidden=16, **sizes)
            heads[name] = RegressionHead(feature_dim=32, action_dim=body["action_dim"], horizon=CHUNK)
        return HPT(encoder, heads=heads, datasets=datasets or {name: name for name in bodies}, **options).train()


def fit(objective, data):
    """Give it the scales of a mixture."""
    kinds = dict.fromkeys(data.embodiments, "limits")
    states, images = vector_statistics(data, STATE, kinds), image_statistics(data)
    for name in data.embodiments:
        found = {"state": states[name], "image": images[name]}
        objective.encoder.of(name).fit({kind: tuple(map(torch.from_numpy, pair)) for kind, pair in found.items()})
    actions = vector_statistics(data, ACTION, kinds)
    objective.fit_actions({name: tuple(map(torch.from_numpy, pair)) for name, pair in actions.items()})
    return objective


def random_batch(rows=6, seed=0, *, datasets=(0, 1)):
    """A batch of `make`'s two embodiments in turn, of random values, as the dataset gives it."""
    random = np.random.default_rng(seed)
    number = np.array([datasets[row % len(datasets)] for row in range(rows)])
    views = np.where(number == 0, 1, 2)
    return {
        "images": torch.from_numpy(random.standard_normal((rows, CONTEXT, 2, 5, 8)).astype(np.float32)),
        "images_is_pad": torch.from_numpy((np.arange(2) >= views[:, None])[:, None].repeat(CONTEXT, axis=1)),
        STATE: torch.from_numpy(random.standard_normal((rows, CONTEXT, 5)).astype(np.float32)),
        STATE + "_is_pad": torch.zeros(rows, CONTEXT, dtype=torch.bool),
        ACTION: torch.from_numpy(random.uniform(-1, 1, (rows, CHUNK, 4)).astype(np.float32)),
        ACTION + "_is_pad": torch.zeros(rows, CHUNK, dtype=torch.bool),
        "dataset": torch.from_numpy(number),
    }
