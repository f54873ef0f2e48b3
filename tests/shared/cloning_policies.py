"""Policies of behaviour cloning on a tiny encoder, and what they see."""

import torch
from small_policies import SMALL, TinyEncoder

from embodied.policies.bc import BCPolicy


def make_policy(head="mlp", history=3, *, feature_shape=None, **options):
    torch.manual_seed(0)
    shape = (64, 3) if head == "conv" or options.get("neck") in ("attention", "spatial_softmax") else (3,)
    settings = {
        "camera": "front",
        "proprioception_dim": 2,
        "action_dim": 4,
        "hidden": (16, 16),
        "channels": 8,
        "bottleneck": None,
        "head_options": SMALL.get(head),
    }
    return BCPolicy(
        TinyEncoder(), feature_shape=feature_shape or shape, head=head, history=history, **{**settings, **options}
    )


def make_observations(steps, batch=2, cameras=("front",), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            **{
                f"observation.images.{camera}": torch.randint(
                    0, 256, (batch, 8, 8, 3), generator=generator, dtype=torch.uint8
                )
                for camera in cameras
            },
            "observation.state": torch.randn(batch, 2, generator=generator),
        }
        for _ in range(steps)
    ]


def rollout(policy, observations, carry=None):
    carry = policy.initial(len(observations[0]["observation.state"])) if carry is None else carry
    chunks = []
    for observation in observations:
        carry, chunk = policy.act(carry, observation)
        chunks.append(chunk)
    return carry, chunks


def make_batch(policy, batch=8):
    generator = torch.Generator().manual_seed(2)
    made = policy.assembly
    return {
        "features": torch.randn(batch, made.history, *policy.feature_shape, generator=generator),
        "observation.state": torch.randn(batch, made.history, 2, generator=generator),
        "action": torch.rand(batch, made.chunk, 4, generator=generator) * 2 - 1,
        "pad_mask": torch.ones(batch, made.chunk, dtype=torch.bool),
    }
