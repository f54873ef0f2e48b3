"""Weights and inputs on which the authors' GR-1 and ours are compared; see `tests/objectives/goldens/make_gr1.py`."""

import torch
from tiny_gr1 import fill, numbers

from embodied.core.protocols import INSTRUCTION, STATE, image_key
from embodied.encoders.gr1 import GR1Encoder
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.video.gr1 import GR1

CAMERAS = ("static", "gripper")
LENGTHS = (3, 2)  # steps of the two windows that are there, of 3; the authors pad at the end
TINY = {"width": 32, "depth": 2, "heads": 4, "resampler_depth": 2, "resampler_heads": 2, "resampler_head_width": 8}


def ours(*, published=False):
    """Our objective as the authors have it; tiny, or at the published size with weights as they are drawn."""
    width, text, steps = (768, 512, 10) if published else (8, 6, 3)
    torch.manual_seed(0)
    images = ViTEncoder(image_size=32, patch_size=16, width=width, depth=1, heads=2)
    network = {
        **{"cameras": list(CAMERAS), "state_dim": 7, "action_dim": 7, "text_dim": text, "context": steps},
        **{"size": "published", "gripper": 6, "state_gripper": 6, **({} if published else TINY)},
    }
    encoder = GR1Encoder(frames=images, network=network, text={"spec": "clip", "fingerprint": ""})
    objective = GR1(encoder).eval()
    return objective if published else fill(objective)


class Inputs:
    """Features, frames, proprioception and words, by names alone."""

    def __init__(self, objective, *, rows):
        made = objective.encoder.network.config()
        steps, width = made["context"], made["latent_dim"]
        self.features = {name: self.draw(f"{name} features", rows, steps, 6, width) for name in CAMERAS}
        self.pixels = {
            name: (self.draw(f"{name} pixels", rows, steps, 224, 224, 3) * 64 + 128).clamp(0, 255).byte()
            for name in CAMERAS
        }
        arm, gripper = self.draw("arm", rows, steps, 6), self.draw("gripper", rows, steps, 1).sign()
        self.state = torch.cat([arm, gripper], dim=-1)
        self.words = self.draw("words", rows, made["text_dim"])
        self.there = (
            torch.arange(steps) < torch.tensor([steps, *[length * steps // 3 for length in LENGTHS[1:]]])[:, None]
        )

    @staticmethod
    def draw(name, *shape):
        return torch.from_numpy(numbers(name, shape, scale=1.0))


@torch.no_grad()
def our_outputs(objective, inputs):
    """By the names of the goldens."""
    network = objective.encoder.network
    values = {image_key(name): inputs.features[name] for name in CAMERAS} | {STATE: inputs.state}
    values[INSTRUCTION] = inputs.words[:, None].expand(-1, network.context, -1)
    values = {name: network.normalize(name, value) for name, value in values.items()}
    found = network(values, dict.fromkeys(network.sizes, ~inputs.there), future=True)
    action = network.action_head(found["action"])
    futures = {f"future.{name}": objective.decoder(found[f"future.{image_key(name)}"]) for name in CAMERAS}
    targets = {f"target.{name}": objective.target(inputs.pixels[name]) for name in CAMERAS}
    return {"arm": action.arm, "gripper": action.gripper, **futures, **targets}
