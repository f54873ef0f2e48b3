"""How fast a planning policy plans."""

from __future__ import annotations

from time import perf_counter

import torch

from embodied.policies.visual_mpc import VisualMPC


@torch.inference_mode()
def measure_planning(policy: VisualMPC, *, environments: int = 1, calls: int = 5, seed: int = 0) -> dict[str, float]:
    """Plan for random pictures, once to warm up and then `calls` times.

    A call is a whole plan of every environment: all iterations of the planner, all candidates, predicted and judged.

    Args:
        policy: in eval mode.
        environments: that are planned for in one call.
        calls: that are timed.
        seed: of the pictures; and of the first episode, with the simulator as model.

    Returns:
        `calls_per_second`; `seconds_per_call`; `candidates_per_second`, of all environments; `candidates` of one plan,
        its `actions` and `environments`.
    """
    device, side = policy.goals.device, policy.image_size
    generator = torch.Generator().manual_seed(seed)
    shape = (environments, side, side, 3)
    frames = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    told = {"seeds": list(range(seed, seed + environments))} if policy.told_seeds else {}
    carry = policy.initial(environments, **told)
    seconds = 0.0
    for call in range(calls + 1):
        # A plan is due whatever is left of the one before.
        carry["left"] = torch.zeros_like(carry["left"])
        _synchronize(device)
        start = perf_counter()
        carry, _ = policy.act(carry, {policy.input_key: frames})
        _synchronize(device)
        seconds += perf_counter() - start if call else 0.0
    candidates = policy.planner.samples * policy.planner.draws
    return {
        "calls_per_second": calls / seconds,
        "seconds_per_call": seconds / calls,
        "candidates_per_second": calls * candidates * environments / seconds,
        "candidates": float(candidates),
        "actions": float(policy.horizon),
        "environments": float(environments),
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
