"""Sequence models on a CPU: our trunk beside torch's own encoder, and what a step of a policy on RPT takes.

python benchmarks/sequence.py [--threads 2] [--to docs/results/sequence.json]

The trunk and `nn.TransformerEncoder` have the same weights and take turns in one process; `training` is a forward and
a backward pass, the ratio the median over rounds with the smallest and the largest. `streaming` is `BCPolicy.act` for
one robot with three cameras at RPT's size and context 16, planning at every step, with raw pixels (768 values, next to
free) in place of an image encoder. Leave the machine alone meanwhile; it takes about two minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from embodied.core.files import write_json
from embodied.core.run_folder import versions
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.models.sequence.trunk import Trunk
from embodied.policies.bc import BCPolicy

SHAPES = {  # width, depth, heads, mlp_ratio, batch, tokens
    "rpt": (192, 4, 4, 2.0, 32, 80),
    "hpt_s": (128, 16, 8, 4.0, 32, 32),
    "hpt_b": (256, 16, 8, 4.0, 16, 32),
}
VIEWS = ("left", "right", "hand")
TARGET_RATIO, TARGET_MS = 1.0, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7, help="beside one that warms up")
    parser.add_argument("--steps", type=int, default=200, help="of the stream")
    parser.add_argument("--to", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trunks = {name: compare(name, rounds=options.rounds) for name in SHAPES}
    streaming = stream(options.steps)
    if options.to is not None:
        found = {"trunk": trunks, "streaming": streaming}
        write_json(options.to, {"threads": options.threads, "versions": versions(), **found})


def compare(name: str, *, rounds: int) -> dict[str, Any]:
    """Tokens per second of both sides, inference and training."""
    width, depth, heads, mlp_ratio, batch, tokens = SHAPES[name]
    torch.manual_seed(0)
    ours = Trunk(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, eps=1e-5)
    theirs = torch_encoder(ours, width=width, heads=heads, hidden=round(width * mlp_ratio))
    inputs = torch.randn(batch, tokens, width)
    difference = float((ours(inputs) - theirs(inputs)).abs().max().detach())
    assert difference < 1e-4, difference
    found: dict[str, Any] = {"largest_difference": difference}
    for kind in ("inference", "training"):
        seconds: dict[str, list[float]] = {"ours": [], "torch": []}
        for number in range(rounds + 1):
            for side, module in (("ours", ours), ("torch", theirs)):
                taken = once(module, inputs, training=kind == "training")
                if number:
                    seconds[side].append(taken)
        ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(seconds["ours"], seconds["torch"], strict=True)]
        speed = {side: round(batch * tokens / median(taken)) for side, taken in seconds.items()}
        found[kind] = {"tokens_per_second": speed, "ratio": [round(each, 3) for each in spread(ratios)]}
        middle, low, high = spread(ratios)
        print(
            f"{name} {kind}: {speed['ours']:,} tokens/s, torch {speed['torch']:,}; ratio {middle:.2f} "
            f"[{low:.2f}, {high:.2f}], target {TARGET_RATIO}"
        )
    return found


def torch_encoder(ours: Trunk, *, width: int, heads: int, hidden: int) -> nn.Module:
    """torch's own encoder with the weights of a trunk."""
    layer = nn.TransformerEncoderLayer(
        width, heads, dim_feedforward=hidden, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    made = nn.TransformerEncoder(layer, len(ours.blocks), norm=nn.LayerNorm(width), enable_nested_tensor=False)
    with torch.no_grad():
        for block, other in zip(ours.blocks, made.layers, strict=True):
            other.self_attn.in_proj_weight.copy_(block.qkv.weight)
            other.self_attn.in_proj_bias.copy_(block.qkv.bias)
            other.self_attn.out_proj.load_state_dict(block.project.state_dict())
            for theirs, part in ((other.linear1, block.mlp[0]), (other.linear2, block.mlp[2])):
                theirs.load_state_dict(part.state_dict())
            for theirs, part in ((other.norm1, block.norm1), (other.norm2, block.norm2)):
                theirs.load_state_dict(part.state_dict())
        made.norm.load_state_dict(ours.norm.state_dict())
    return made


def once(module: nn.Module, inputs: torch.Tensor, *, training: bool) -> float:
    """Seconds of one pass."""
    module.train(training)
    module.zero_grad(set_to_none=True)
    start = perf_counter()
    with torch.set_grad_enabled(training):
        out = module(inputs)
        if training:
            out.square().mean().backward()
    return perf_counter() - start


def stream(steps: int) -> dict[str, float]:
    """Milliseconds of a step of a policy, half and 99 of 100 below."""
    network = {"cameras": VIEWS, "state_dim": 8, "action_dim": 8, "context": 16}
    encoder = SensorimotorEncoder(frames=PixelEncoder(), network=network)
    settings = {"head": "mlp", "hidden": [], "neck": "sequence", "history": 16, "chunk": 16}
    sizes = {"proprioception_dim": 8, "action_dim": 8, "feature_shape": [3 * 768]}
    policy = BCPolicy(encoder, camera=VIEWS, **settings, **sizes).eval()
    seen = {f"observation.images.{view}": torch.zeros(1, 64, 64, 3, dtype=torch.uint8) for view in VIEWS}
    seen["observation.state"] = torch.zeros(1, 8)
    carry, taken = policy.initial(1), []
    for _ in range(steps + 20):
        start = perf_counter()
        carry, _ = policy.act(carry, seen)
        taken.append(1e3 * (perf_counter() - start))
    times = torch.tensor(taken[20:])
    found = {"p50_ms": round(float(times.quantile(0.5)), 2), "p99_ms": round(float(times.quantile(0.99)), 2)}
    print(f"streaming step: {found['p50_ms']} ms, 99 % below {found['p99_ms']} ms; target {TARGET_MS} ms")
    return found


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, smallest, largest."""
    return median(values), min(values), max(values)


if __name__ == "__main__":
    main()
