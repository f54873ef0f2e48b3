"""GR-1 at the size of a test: weights that depend on their names alone, stores whose dots have instructions."""

import zlib

import numpy as np
import torch
from tiny_sequences import CONTEXT, SIDE, VIEW, episode, image_encoder

from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.future_windows import open_future_windows
from embodied.datasets.loading.sequence_sources import Caches, Latents
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.gr1 import CLASS_AND_PATCHES, ClassAndPatches, GR1Encoder
from embodied.objectives.video.gr1 import GR1

WORDS = {
    "go round": np.array([1.0, 0.0, 0.5], np.float32),
    "turn the other way": np.array([0.0, 1.0, -0.5], np.float32),
}
SPECS = {
    VIEW: KeySpec("uint8", (SIDE, SIDE, 3)),
    STATE: KeySpec("float32", (3,)),
    ACTION: KeySpec("float32", (2,)),
}


def numbers(name, shape, scale=0.2):
    """Float32 values that depend on the name alone."""
    return (np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * scale).astype(np.float32)


@torch.no_grad()
def fill(module):
    """Give every trainable parameter the values of its name; weights of norms are around 1."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            values = torch.from_numpy(numbers(name, tuple(parameter.shape)))
            parameter.copy_(values + ("norm" in name.rpartition(".")[0].rpartition(".")[2] and name.endswith("weight")))
    return module


def frames():
    """The image encoder: 16 x 16 pixels, a class token and 4 patches of 8 values."""
    return freeze(ClassAndPatches(encoder=image_encoder()))


def network(**options):
    """Arguments of the network: one camera, three values of state, two of action, words of three values."""
    sizes = {"cameras": ["front"], "state_dim": 3, "action_dim": 2, "text_dim": 3, "context": CONTEXT}
    shape = {"width": 32, "depth": 2, "heads": 4, "latents": 3, "resampler_heads": 2, "resampler_head_width": 8}
    return {**sizes, **shape, **options}


def encoder(**options):
    """With random weights of seed 0."""
    arguments = network(**options)
    text = {"spec": "wordllama", "fingerprint": "none"} if arguments["text_dim"] else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GR1Encoder(frames=frames(), network=arguments, text=text)


def make(*, objective=None, **options):
    """GR-1 with random weights of seed 0, in training mode; frames of 16 x 16 pixels in patches of 8."""
    settings = {"image_size": SIDE, "patch_size": 8, "decoder_depth": 1, "next_frames": 1, **(objective or {})}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return GR1(encoder(**options), **settings).train()


def random_batch(rows=5, seed=0, *, context=CONTEXT, cameras=("front",)):
    """A batch as the dataset gives it, of random values; everything is there."""
    random = np.random.default_rng(seed)
    batch = {}
    for key, shape in ((STATE, (3,)), (ACTION, (2,)), *((f"observation.images.{name}", (5, 8)) for name in cameras)):
        batch[key] = torch.from_numpy(random.standard_normal((rows, context, *shape)).astype(np.float32))
    for name in cameras:
        seen = random.integers(0, 256, (rows, context, SIDE, SIDE, 3), dtype=np.uint8)
        batch[f"future.observation.images.{name}"] = torch.from_numpy(seen)
    batch |= {f"{key}_is_pad": torch.zeros(rows, context, dtype=torch.bool) for key in list(batch)}
    batch[INSTRUCTION] = torch.from_numpy(random.standard_normal((rows, 3)).astype(np.float32))
    return batch | {f"{INSTRUCTION}_is_pad": torch.zeros(rows, dtype=torch.bool)}


def make_store(path, *, lengths=(7, 9, 6), keys=(VIEW, STATE, ACTION), tasks=("go round",), first_seed=0):
    """Episodes of a dot, with some of their keys; the tasks in turn. The other way round, all is upside down."""
    with EpisodeStore.create(path, keys={key: SPECS[key] for key in keys}, fps=10.0, robot="dot") as store:
        for number, length in enumerate(lengths):
            arrays = episode(first_seed + number, length)
            task = tasks[number % len(tasks)]
            if task == "turn the other way":
                arrays[ACTION] = -arrays[ACTION]
            store.append({key: arrays[key] for key in keys}, task=task, seed=number, success=True)
    return path


def windows_of(root, *paths, instructions=WORDS, ahead=1, image_size=SIDE, **options):
    """Windows of stores, as `open_future_windows` makes them."""
    made = frames()
    return open_future_windows(
        [str(path) for path in paths],
        latents=Latents(encoder=made, fingerprint=fingerprint(made), output=CLASS_AND_PATCHES),
        caches=Caches(root=root, max_bytes=None, device=torch.device("cpu"), reporter=SilentReporter()),
        context=options.pop("context", CONTEXT),
        ahead=ahead,
        image_size=image_size,
        instructions=instructions,
        **options,
    )
