"""Windows against full attention as clips grow: time and the largest amount of memory in use at once, and their curve.

A pass of the same network with the same weights, in its windows or with one window of the whole clip in every layer.
Torch's fused attention never holds all weights of attention at once, so memory grows with the tokens on either side;
`unfused` is the memory of the plain kernel, which does, as all did when the paper was written. On a CPU the memory is
what torch allocates, found by its profiler in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from embodied.core.files import atomic_path
from embodied.core.protocols import ACTION
from embodied.models.sequence.maskvit import MaskViTNetwork, WindowBlock

SIDES = {"windows": "#2563eb", "full": "#b91c1c"}
MEMORY_EVENT = "[memory]"


def attention_curve(
    frames: Sequence[int], *, network: dict[str, Any], training: bool, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """A row for every number of frames: seconds of a pass and MiB of both sides, with torch's kernel and unfused.

    Args:
        frames: T.
        network: arguments of `MaskViTNetwork` but its context.
        training: with the backward pass.
        rounds: beside one that warms up; the sides take turns, and medians count.
        device: where.
    """
    rows = []
    for count in frames:
        torch.manual_seed(0)
        model = MaskViTNetwork(context=count, **network).to(device).train(training)
        windows = model.blocks[0].windows
        run = _pass_of(model, count, training=training)
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        memory: dict[str, dict[str, float]] = {"mebibytes": {}, "unfused_mebibytes": {}}
        for number in range(rounds + 1):
            for side in SIDES:
                _set_windows(model, windows if side == "windows" else [(0, *model.grid)] * 2)
                taken = timed(run, device)
                if number:
                    seconds[side].append(taken)
        for side in SIDES:
            _set_windows(model, windows if side == "windows" else [(0, *model.grid)] * 2)
            memory["mebibytes"][side] = round(peak_bytes(run, device) / 2**20, 2)
            with sdpa_kernel(SDPBackend.MATH):
                memory["unfused_mebibytes"][side] = round(peak_bytes(run, device) / 2**20, 2)
        middle = {side: median(each) for side, each in seconds.items()}
        row = {
            "frames": count,
            "tokens": count * model.sizes[model.view],
            "seconds": {side: round(each, 5) for side, each in middle.items()},
            **memory,
            "times_faster": round(middle["full"] / middle["windows"], 2),
        }
        rows.append(row)
        print(
            f"{count} frames, {row['tokens']} tokens: windows {middle['windows']:.3f} s, full {middle['full']:.3f} s, "
            f"{row['times_faster']} times; MiB {memory['mebibytes']}, unfused {memory['unfused_mebibytes']}"
        )
    return rows


def _pass_of(model: MaskViTNetwork, frames: int, *, training: bool) -> Callable[[], None]:
    device = model.mask_token.device
    codes = torch.zeros(1, frames, model.sizes[model.view], dtype=torch.long, device=device)
    unknown = torch.ones(1, frames, dtype=torch.bool, device=device)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(training):
            tokens: Tensor = model({model.view: codes}, {model.view: ~unknown, ACTION: unknown})[model.view]
            if training:
                tokens.square().mean().backward()

    return run


def _set_windows(model: MaskViTNetwork, windows: Sequence[tuple[int, int, int]]) -> None:
    for block in model.blocks:
        assert isinstance(block, WindowBlock)
        block.windows = tuple(windows)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    synchronize(device)
    start = perf_counter()
    run()
    synchronize(device)
    return perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most that was in use at once beyond what was before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device)) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    results: Any = seen.profiler
    events = [event for event in results.kineto_results.events() if event.name() == MEMORY_EVENT]
    used = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        used += event.nbytes()
        most = max(most, used)
    return most


def draw_curve(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A PNG: time and memory by frames, for every kind of pass a row of two panels."""
    figure = Figure(figsize=(8.0, 3.2 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(curves), 2, squeeze=False)
    for axes_of_kind, (kind, rows) in zip(panels, curves.items(), strict=True):
        for axes, name, label in zip(axes_of_kind, ("seconds", "mebibytes"), ("seconds", "MiB at most"), strict=True):
            for side, color in SIDES.items():
                for prefix, style in (("", "o-"), ("unfused_", "o:")):
                    if prefix + name in rows[0]:
                        values = [row[prefix + name][side] for row in rows]
                        label_of = f"{side}, unfused" if prefix else side
                        axes.plot([row["frames"] for row in rows], values, style, color=color, label=label_of)
            axes.set(xscale="log", yscale="log", xlabel="frames of a clip", ylabel=label, title=kind)
            axes.set_xticks([row["frames"] for row in rows], [str(row["frames"]) for row in rows])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
