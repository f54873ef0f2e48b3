"""How much of a device's arithmetic a training uses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from time import perf_counter, process_time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from embodied.training.batches import count_rows

# Dense bf16 tensor-core peaks of the makers' data sheets, FLOP/s; the first name that occurs in the device's counts.
BF16_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def count_flops(objective: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """FLOP of forward and backward pass per image (or window), counted on a copy that is thrown away.

    Recomputed activations are not counted: they are no progress.
    """
    trial = copy.deepcopy(objective).train()
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        loss, _ = trial(batch, torch.Generator().manual_seed(0))
        loss.backward()
    return counter.get_total_flops() / count_rows(batch)


@cache
def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of a device: the maker's figure where it is known, else what a large matrix product reaches."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for known, peak in BF16_PEAKS.items():
            if known in name:
                return peak
    return _measured_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def _measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    side, seconds = (8192, []) if device.type == "cuda" else (768, [])
    factor = torch.ones(side, side, device=device, dtype=dtype)
    for _ in range(4):  # the first one warms up
        start = _clock(device)
        product = factor @ factor
        product[0, 0].item()  # waits for the device
        seconds.append(_clock(device) - start)
    return 2 * side**3 / min(seconds[1:])


def _clock(device: torch.device) -> float:
    """Seconds; of CPUs those in which this process computed, since others may hold it up while this is measured."""
    return process_time() / torch.get_num_threads() if device.type == "cpu" else perf_counter()
