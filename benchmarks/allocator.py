"""Training with `keep_freed_memory` and without, both sides in one run; prints ratios of processor time.

python benchmarks/allocator.py                    # one thread, three rounds: ten minutes

Each side is a process of its own, the two of a row in turns; a number is the median of the rounds. Memory is the most
that a process had.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import process_time

import torch

from embodied.core.allocator import keep_freed_memory
from embodied.models.conv import ConvNet

ROUNDS, STEPS = 3, 5
Step = Callable[[], object]


def conv_net(frames: int) -> Step:
    """A step of the network that learns from scratch."""
    network, images = ConvNet(image_size=64), torch.rand(frames, 3, 64, 64)
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        network(images)[1]["pooled"].square().mean().backward()
        optimizer.step()

    return step


def encoding(frames: int) -> Step:
    """Frames through the default encoder."""
    from embodied.encoders.load import load_encoder

    encoder, images = load_encoder("default"), torch.zeros(frames, 128, 128, 3, dtype=torch.uint8)
    return torch.no_grad()(lambda: encoder(encoder.preprocess(images)))


def pretraining(*settings: str) -> Step:
    """A step of `embodied pretrain` on a batch of noise."""
    from embodied.cli.config import compose_config
    from embodied.cli.pretrain import build_objective

    config = compose_config("pretrain", ["data=none", *settings])
    objective, size = build_objective(config), int(config.encoder.image_size)
    images = torch.randint(0, 256, (int(config.train.batch_size), size, size, 3), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        objective.zero_grad()
        loss, _ = objective({"images": images}, generator)
        loss.backward()

    return step


ROWS: dict[str, Callable[[], Step]] = {
    "conv net from scratch, 64 frames of 64 px": lambda: conv_net(64),
    "conv net from scratch, 256 frames": lambda: conv_net(256),
    "default encoder, 32 frames, no gradient": lambda: encoding(32),
    "default encoder, 256 frames, no gradient": lambda: encoding(256),
    "pretrain objective=mae, 128 frames of 128 px": lambda: pretraining("objective=mae"),
    "pretrain objective=dino, 32 frames": lambda: pretraining("objective=dino", "train.batch_size=32"),
    "pretrain objective=vq, 32 frames": lambda: pretraining("objective=vq", "train.batch_size=32"),
}


def child(row: str, keep: bool) -> None:
    """One side: seconds a step and the most memory, as JSON on stdout."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if keep and not keep_freed_memory():
        raise SystemExit("this C library has no such settings")
    step, seconds = ROWS[row](), []
    for number in range(STEPS + 2):
        begun = process_time()
        step()
        seconds += [process_time() - begun] if number >= 2 else []
    print(json.dumps({"seconds": median(seconds), "memory": getrusage(RUSAGE_SELF).ru_maxrss / 1e3}))


def measure(row: str, side: str) -> dict[str, float]:
    """One side in a process of its own."""
    done = subprocess.run([sys.executable, __file__, side, row], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """The table."""
    print(f"{'':46} {'usual':>9} {'kept':>9} {'ratio':>7} {'from':>6} {'to':>6}  {'memory':>14}")
    for row in ROWS:
        rounds = [(measure(row, "usual"), measure(row, "kept")) for _ in range(ROUNDS)]
        ratios = [usual["seconds"] / kept["seconds"] for usual, kept in rounds]
        usual, kept = (median(each[side]["seconds"] for each in rounds) * 1e3 for side in (0, 1))
        memory = [median(each[side]["memory"] for each in rounds) for side in (0, 1)]
        print(
            f"{row:46} {usual:6.1f} ms {kept:6.1f} ms {median(ratios):7.2f} {min(ratios):6.2f} {max(ratios):6.2f}  "
            f"{memory[0]:5.0f} {memory[1]:5.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(sys.argv[2], sys.argv[1] == "kept")
    else:
        main()
