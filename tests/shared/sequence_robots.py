"""A policy on a sequence encoder at a robot."""

from pathlib import Path

import numpy as np
import torch

from embodied.core.protocols import STATE
from embodied.policies.artifact import load_policy
from embodied.real_robot.policy.inference import load_inference


def check_robot(path: Path, *, instruction: str | None = None) -> None:
    """On a robot it acts as in evaluation, its own past included."""
    cpu = torch.device("cpu")
    policy, _ = load_policy(path, device=cpu)
    inference = load_inference(path, device=cpu, instruction=instruction)
    carry = policy.initial(1, instructions=None if instruction is None else [instruction])
    random = np.random.default_rng(0)
    acted = []
    for _ in range(6):
        seen = {
            "observation.images.corner4": random.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8),
            STATE: random.standard_normal((1, 4)).astype(np.float32),
        }
        carry, plan = policy.act(carry, {name: torch.from_numpy(array) for name, array in seen.items()})
        acted.append(np.clip(plan[0, 0].numpy(), -1, 1))
        np.testing.assert_allclose(inference(seen)[0], acted[-1], atol=1e-5)
    assert np.ptp(np.array(acted), axis=0).max() > 1e-3
