"""Sequence models on a CPU: our trunk beside torch's own encoder, packing, a policy's step, and who waits for data.

python benchmarks/sequence.py [--threads 1] [--to docs/results/sequence.json]

The trunk and `nn.TransformerEncoder` have the same weights and take turns in one process; `training` is a forward and
a backward pass, the ratio the median over rounds with the smallest and the largest. What counts is processor time, so
that other work on the machine matters by its use of caches alone. `packing` is the trunk on sequences of 1 to L tokens,
all lengths alike: side by side in rows against one a row with a mask. `streaming` is `BCPolicy.act` for one robot with
three cameras at RPT's size and context 16, planning at every step, with raw pixels (768 values, next to free) in place
of an image encoder. `loader` is the share of the time that the training of HPT-S on three embodiments waits for its
windows. It takes about three minutes of one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from embodied.cli.main import main as embodied
from embodied.core.files import write_json
from embodied.core.protocols import ACTION, STATE, image_key
from embodied.core.run_folder import read_metrics, versions
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
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
ROBOTS = {"arm": (7, 7), "hand": (24, 26), "walker": (18, 6)}  # values of state and action
TARGET_RATIO, TARGET_PACKED, TARGET_MS = 1.0, 1.5, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="beside one that warms up")
    parser.add_argument("--steps", type=int, default=200, help="of the stream")
    parser.add_argument("--to", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {
        "trunk": {name: compare(name, rounds=options.rounds) for name in SHAPES},
        "packing": {name: compare_packed(name, rounds=options.rounds) for name in SHAPES},
        "streaming": stream(options.steps),
        "loader": {"data_wait": waiting()},
    }
    if options.to is not None:
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
        sides = {
            side: pass_of(module, inputs, training=kind == "training")
            for side, module in (("ours", ours), ("torch", theirs))
        }
        found[kind] = race(sides, batch * tokens, rounds=rounds, told=f"{name} {kind}", target=TARGET_RATIO)
    return found


def compare_packed(name: str, *, rounds: int) -> dict[str, Any]:
    """The trunk's tokens per second on sequences of mixed lengths, packed and one a row."""
    width, depth, heads, mlp_ratio, batch, tokens = SHAPES[name]
    torch.manual_seed(0)
    trunk = Trunk(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
    keep = torch.arange(tokens) < torch.randint(1, tokens + 1, (batch, 1))
    inputs = torch.randn(batch, tokens, width)
    packed = Packed(trunk, keep)
    masked = Masked(trunk, keep)
    difference = float((packed(inputs) - masked(inputs))[keep].abs().max().detach())
    assert difference < 1e-4, difference
    found: dict[str, Any] = {"largest_difference": difference, "share_there": round(float(keep.float().mean()), 3)}
    for kind in ("inference", "training"):
        sides = {
            side: pass_of(module, inputs, training=kind == "training")
            for side, module in (("packed", packed), ("masked", masked))
        }
        told = f"{name} packed, {kind}"
        found[kind] = race(sides, int(keep.sum()), rounds=rounds, told=told, target=TARGET_PACKED)
    return found


class Packed(nn.Module):
    """Sequences side by side."""

    def __init__(self, trunk: Trunk, keep: torch.Tensor) -> None:
        super().__init__()
        self.trunk, self.keep = trunk, keep

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.trunk.packed(inputs, self.keep)


class Masked(Packed):
    """One sequence a row; those that are not there are computed, and looked at by nobody."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.trunk(inputs, mask=self.keep[:, None, None])
        return found


def race(
    sides: dict[str, Callable[[], float]], tokens: int, *, rounds: int, told: str, target: float
) -> dict[str, Any]:
    """Two sides in turns, after a round to warm up: tokens per second of each, and how much faster the first is."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, run in sides.items():
            taken = run()
            if number:
                seconds[side].append(taken)
    first, second = seconds.values()
    middle, low, high = spread([other / own for own, other in zip(first, second, strict=True)])
    speed = {side: round(tokens / median(taken)) for side, taken in seconds.items()}
    shown = ", ".join(f"{side} {count:,}" for side, count in speed.items())
    print(f"{told}: {shown} tokens/s; ratio {middle:.2f} [{low:.2f}, {high:.2f}], target {target}")
    return {"tokens_per_second": speed, "ratio": [round(each, 3) for each in (middle, low, high)]}


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


def pass_of(module: nn.Module, inputs: torch.Tensor, *, training: bool) -> Callable[[], float]:
    """What does one pass and returns its processor seconds."""

    def once() -> float:
        module.train(training)
        module.zero_grad(set_to_none=True)
        start = process_time()
        with torch.set_grad_enabled(training):
            out = module(inputs)
            if training:
                out.square().mean().backward()
        return process_time() - start

    return once


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


def waiting() -> float:
    """The share of the time that training on a mixture waits for its windows, by the loop's own record."""
    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), np.random.default_rng(0)
        for robot, (states, actions) in ROBOTS.items():
            keys = {image_key("front"): KeySpec("uint8", (64, 64, 3)), STATE: KeySpec("float32", (states,))}
            keys |= {ACTION: KeySpec("float32", (actions,))}
            with EpisodeStore.create(folder / robot, keys=keys, fps=10.0, robot=robot) as store:
                for _ in range(4):
                    arrays = {
                        key: random.integers(0, 256, (40, *spec.shape), np.uint8)
                        if spec.dtype == "uint8"
                        else random.standard_normal((40, *spec.shape), np.float32)
                        for key, spec in keys.items()
                    }
                    store.append(arrays, task="none", seed=0, success=True)
        (folder / "mix.yaml").write_text(yaml.safe_dump({"datasets": [{"path": robot} for robot in ROBOTS]}))
        settings = ["train.steps=20", "train.batch_size=32", "train.warmup_steps=2", "device=cpu"]
        places = [f"data={folder / 'mix.yaml'}", f"run={folder / 'run'}", f"cache={folder / 'cache'}"]
        assert embodied(["pretrain", "objective=hpt", *settings, *places]) == 0
        records = read_metrics(folder / "run" / "metrics.jsonl")
    found = float(next(record["data_wait"] for record in reversed(records) if "data_wait" in record))
    print(f"loader: the training of HPT-S on a mixture of {len(ROBOTS)} waits {found:.2%} of the time")
    return found


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, smallest, largest."""
    return median(values), min(values), max(values)


if __name__ == "__main__":
    main()
