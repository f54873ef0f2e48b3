"""Images per second of a whole MAE training step: this package beside a loop around transformers' ViTMAE.

python benchmarks/pretrain.py PHOTOS [--size vit_ti_128] [--precision bf16] [--to FILE.json]

PHOTOS is a folder of images. Both sides train networks of the same size on batches of the same size with the same kind
of crops: `embodied pretrain` from frames that it decoded once (how long that took is printed), transformers from files
that Pillow decodes again and again, as the usual loop does, without and with DataLoader workers. They take turns in one
process; the ratio is the median over rounds, with the smallest and the largest. `compute only` is forward, backward,
clipping and AdamW on a batch that lies there. Leave the machine alone meanwhile. Both in float32, and both in bfloat16.
2 CPU cores: about 20 minutes.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from pretrain_sides import SIZES, Compute, Ours, Round, Theirs, our_model, their_model, trained_values

from embodied.core.files import write_json
from embodied.core.run_folder import versions
from embodied.datasets.loading.frames import FrameDataset, open_frames

TARGET = 1.3  # end to end, against the better of transformers' two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["vit_ti_128", "vit_s_224"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="DataLoader workers of transformers")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="of both")
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=5, help="beside one that warms up")
    parser.add_argument("--to", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    if options.steps < 2 or options.rounds < 1:
        parser.error("--steps must be at least 2 and --rounds at least 1")
    torch.set_num_threads(options.threads)
    found = {
        f"{name} {precision}": measure(name, options, precision)
        for name in options.size
        for precision in options.precision
    }
    if options.to is not None:
        machine = {"threads": options.threads, "processor": processor()}
        write_json(options.to, {"machine": machine, "versions": versions(), "sizes": found})


def measure(name: str, options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """All sides of one size, in one precision; prints the table."""
    size = SIZES[name]
    ours, theirs = trained_values(our_model(size)), trained_values(their_model(size))
    print(f"\n{name}: batch {size.batch}, {options.threads} threads, {precision}; weights {ours:,} and {theirs:,}")
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        frames = open_frames([options.photos], image_size=size.image, cache_root=Path(folder) / "cache")
        decoding = perf_counter() - start
        print(f"{len(frames)} photographs decoded once in {decoding:.1f} s", flush=True)
        end_to_end = whole_steps(name, options, precision, frames, Path(folder))
    compute = only_compute(name, options, precision)
    count = size.batch * options.steps
    table = {"end to end": summarize(end_to_end, count), "compute only": summarize(compute, count)}
    for title, rows in table.items():
        show(title, rows)
    return {"batch": size.batch, "weights": [ours, theirs], "decode_once_s": round(decoding, 2), **table}


def whole_steps(
    name: str, options: argparse.Namespace, precision: str, frames: FrameDataset, folder: Path
) -> dict[str, list[Round]]:
    """Rounds of every side, which take turns."""
    size = SIZES[name]
    others = {
        f"transformers, {workers} workers": Theirs(size, options.photos, precision=precision, workers=workers)
        for workers in options.workers
    }
    found: dict[str, list[Round]] = {side: [] for side in others}

    def take_turns() -> None:
        for side, other in others.items():
            found[side].append(other.run(options.steps))

    ours = Ours(size, frames, folder / "checkpoints", precision=precision)
    rounds = ours.run(options.steps, options.rounds, take_turns)
    # Their first round warmed up too.
    return {"embodied": rounds, **{side: each[1:] for side, each in found.items()}}


def only_compute(name: str, options: argparse.Namespace, precision: str) -> dict[str, list[Round]]:
    """Rounds of both sides, which take turns."""
    sides = {
        side: Compute(SIZES[name], ours=side == "embodied", precision=precision)
        for side in ("embodied", "transformers")
    }
    found: dict[str, list[Round]] = {side: [] for side in sides}
    for turn in range(1 + options.rounds):
        for side, each in sides.items():
            done = each.run(options.steps)
            if turn:
                found[side].append(done)
    return found


def summarize(sides: dict[str, list[Round]], images: int) -> dict[str, dict[str, Any]]:
    """Per side images per second, share of the time without data, and how many times as fast the first side is."""
    (first, base), *_ = sides.items()
    rows: dict[str, dict[str, Any]] = {}
    for side, rounds in sides.items():
        rates = [images / each.seconds for each in rounds]
        waited = sum(each.waited for each in rounds) / sum(each.seconds for each in rounds)
        rows[side] = {
            "images_per_s": round(median(rates), 2),
            "spread": [round(min(rates), 2), round(max(rates), 2)],
            "waits_for_data": round(waited, 4),
        }
        if side != first:
            ratios = [theirs.seconds / ours.seconds for ours, theirs in zip(base, rounds, strict=True)]
            rows[side]["ratio"] = round(median(ratios), 3)
            rows[side]["ratio_spread"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return rows


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"{title}\n{'':26} {'images/s':>9} {'(spread)':>16} {'waits':>7}   embodied is")
    for side, row in rows.items():
        low, high = row["spread"]
        ratio = ""
        if "ratio" in row:
            ratio = f"   {row['ratio']:.2f} x ({row['ratio_spread'][0]:.2f} to {row['ratio_spread'][1]:.2f}) as fast"
        spread = f"({low:.1f} to {high:.1f})"
        print(f"{side:26} {row['images_per_s']:9.1f} {spread:>16} {row['waits_for_data']:7.1%}{ratio}")
    ratios = [row["ratio"] for row in rows.values() if "ratio" in row]
    if title == "end to end":
        verdict = "reached" if min(ratios) >= TARGET else "MISSED"
        print(f"target {TARGET} x against the faster: {verdict} ({min(ratios):.2f})", flush=True)


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
