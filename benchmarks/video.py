"""Models of videos: decoding, windows, training and planning.

python benchmarks/video.py [decoding attention training planning] [--size cpu] [--to docs/results/video.json]

`decoding`: 10 frames of 16 x 16 codes after 2, by the same MaskViT with the same weights, in K passes or one by one.
Every pass has the same cost, so `--one-by-one-frames` may time fewer frames of the second; their number is in the
result. `attention`: windows against full attention as clips grow, with a curve beside the JSON. `training`: tokens per
second of a step, and the share of the device's arithmetic. `planning`: plans per second of MPPI with VP2's numbers.
`--size gpu` is for a GPU (width 768, 12 blocks). Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import torch
from video_attention import attention_curve, draw_curve, timed

from embodied.bench.planning_speed import measure_planning
from embodied.core.files import write_json
from embodied.core.protocols import ACTION
from embodied.core.run_folder import versions
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import Codebook
from embodied.objectives.video.maskvit import MaskViT
from embodied.policies.visual_mpc import VisualMPC
from embodied.policies.visual_planning.video_model import VideoModel
from embodied.training.throughput import count_flops, peak_flops

PARTS = ("decoding", "attention", "training", "planning")
SIZES: dict[str, dict[str, Any]] = {  # training: clips, frames, side of the grid; planning: candidates, actions
    "cpu": {
        "network": {"width": 64, "depth": 2, "heads": 2},
        "training": (4, 8, 8),
        "curve": (2, 4, 8, 16, 32),
        "planning": (32, 5),
    },
    "gpu": {
        "network": {"width": 768, "depth": 12, "heads": 12},
        "training": (16, 16, 16),
        "curve": (2, 4, 8, 16, 32, 64),
        "planning": (200, 10),
    },
}
VOCABULARY, ACTIONS, CONTEXT, FUTURE = 1024, 4, 2, 10
TARGET_PASSES, TARGET_SECONDS = 100, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--iterations", type=int, default=8, help="passes of decoding")
    parser.add_argument("--one-by-one-frames", type=int, default=FUTURE, help="that are timed one by one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--note", default="", help="of the machine, to be kept with the numbers")
    parser.add_argument("--to", type=Path, help="a JSON file for the numbers, and beside it a PNG for the curve")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose of {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {"device": str(device), "threads": options.threads, "note": options.note}
    measure = dict(zip(PARTS, (decoding, attention, training, planning), strict=True))
    for part in options.parts or PARTS:
        found[part] = measure[part](options, device)
    if options.to is not None:
        if "attention" in found:
            curves = {kind: found["attention"][kind] for kind in ("inference", "training")}
            draw_curve(curves, options.to.with_name(f"{options.to.stem}_attention.png"))
        write_json(options.to, {**found, "versions": versions()})


def make_objective(
    options: argparse.Namespace, *, frames: int, grid: int, device: torch.device, **settings: Any
) -> MaskViT:
    """MaskViT with random weights, over a tokenizer that is next to free."""
    torch.manual_seed(0)
    tokenizer = FrameTokenizer(
        encoder=ViTEncoder(image_size=4 * grid, patch_size=4, width=16, depth=1, heads=2),
        quantizer=Codebook(codes=VOCABULARY, width=8),
        decoder={"kind": "vit", "width": 16, "depth": 1, "heads": 2},
    )
    sizes, network = {ACTION: ACTIONS, "steps": frames}, SIZES[options.size]["network"]
    encoder = MaskViT.make_encoder(tokenizer=tokenizer, network=network, sizes=sizes)
    return MaskViT(encoder, context=CONTEXT, **settings).to(device)


def clips(batch: int, *, frames: int, grid: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Random codes and actions."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "codes": torch.randint(VOCABULARY, (batch, frames, grid * grid), generator=generator),
        ACTION: torch.randn(batch, frames, ACTIONS, generator=generator),
        f"{ACTION}_is_pad": torch.zeros(batch, frames, dtype=torch.bool),
    }
    return {name: values.to(device) for name, values in made.items()}


def decoding(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Passes and seconds of both ways to find the same codes."""
    frames, grid = CONTEXT + FUTURE, 16
    decoding = {"iterations": options.iterations}
    objective = make_objective(options, frames=frames, grid=grid, device=device, decoding=decoding).eval()
    batch = clips(1, frames=frames, grid=grid, device=device)
    part = {name: values[:, : CONTEXT + options.one_by_one_frames] for name, values in batch.items()}
    passes: dict[str, int] = {}

    def iterative() -> None:
        generator = torch.Generator().manual_seed(0)
        passes["iterative"] = objective.predict_counted(batch, generator=generator).passes

    def one_by_one() -> None:
        passes["one_by_one"] = objective.predict_counted(part, one_by_one=True).passes

    timed(iterative, device)
    before = [timed(iterative, device) for _ in range(options.rounds)]
    slow = timed(one_by_one, device)
    seconds = median(before + [timed(iterative, device) for _ in range(options.rounds)])
    whole = FUTURE / options.one_by_one_frames
    found = {
        "frames": FUTURE,
        "codes_per_frame": grid * grid,
        "network": SIZES[options.size]["network"],
        "passes": {"iterative": passes["iterative"], "one_by_one": round(passes["one_by_one"] * whole)},
        "seconds": {"iterative": round(seconds, 4), "one_by_one": round(slow * whole, 3)},
        "one_by_one_passes_timed": passes["one_by_one"],
    }
    fewer = found["passes"]["one_by_one"] / passes["iterative"]
    found |= {"times_fewer_passes": round(fewer, 1), "times_faster": round(slow * whole / seconds, 1)}
    print(
        f"decoding: {found['passes']['iterative']} passes in {seconds:.2f} s, one by one "
        f"{found['passes']['one_by_one']} in {slow * whole:.1f} s: {fewer:.0f} times fewer (target {TARGET_PASSES}), "
        f"{found['times_faster']} times faster (target {TARGET_SECONDS})"
    )
    return found


def attention(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The curve, of a pass and of a step of training."""
    network = {
        **{"cameras": ["camera"], "grid": [16, 16], "vocabulary": VOCABULARY},
        **SIZES[options.size]["network"],
    }
    common: dict[str, Any] = {"network": network, "rounds": options.rounds, "device": device}
    frames = SIZES[options.size]["curve"]
    return {
        "network": network,
        "inference": attention_curve(frames, training=False, **common),
        "training": attention_curve(frames, training=True, **common),
    }


def training(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Tokens per second of steps, and MFU."""
    size, frames, grid = SIZES[options.size]["training"]
    precision = "bf16" if device.type == "cuda" else "fp32"
    objective = make_objective(options, frames=frames, grid=grid, device=device).train()
    batch = clips(size, frames=frames, grid=grid, device=device)
    flops = count_flops(objective, batch) * size
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, _ = objective(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    timed(step, device)
    seconds = median(timed(step, device) for _ in range(2 * options.rounds))
    tokens = size * frames * grid * grid
    found = {
        "network": SIZES[options.size]["network"],
        "clips": size,
        "frames": frames,
        "codes_per_frame": grid * grid,
        "precision": precision,
        "tokens_per_second": round(tokens / seconds),
        "mfu": round(flops / seconds / peak_flops(device, precision), 4),
    }
    print(f"training: {found['tokens_per_second']:,} tokens/s, MFU {found['mfu']:.1%} ({precision})")
    return found


def planning(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Plans per second of one environment: MPPI, pixels of a goal picture."""
    samples, horizon = SIZES[options.size]["planning"]
    frames, grid = CONTEXT + horizon, 8
    decoding = {"iterations": options.iterations}
    objective = make_objective(options, frames=frames, grid=grid, device=device, decoding=decoding).eval()
    world = VideoModel(objective, context=CONTEXT, action_dim=ACTIONS, frames="all")
    policy = VisualMPC(
        PixelEncoder(),
        model="",
        world=world,
        camera="camera",
        image_size=4 * grid,
        action_space={"low": [-1.0] * ACTIONS, "high": [1.0] * ACTIONS, "names": [], "gripper": []},
        episode_steps=100,
        planner="mppi",
        planner_options={"samples": samples},
        horizon=horizon,
        goals=1,
    ).to(device)
    found = measure_planning(policy.eval(), calls=options.rounds)
    print(f"planning: {found['calls_per_second']:.3f} plans/s of {samples} candidates, {horizon} actions ahead")
    network = {"network": SIZES[options.size]["network"], "codes_per_frame": grid * grid}
    return {**network, **{name: round(value, 4) for name, value in found.items()}}


if __name__ == "__main__":
    main()
