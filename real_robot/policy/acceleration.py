"""Making a function of tensors of fixed shapes fast on its device: a CUDA graph, `torch.compile`, or as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

_logger = logging.getLogger(__name__)
Acceleration = Literal["auto", "graph", "compile", "eager"]
ACCELERATIONS: tuple[Acceleration, ...] = ("auto", "graph", "compile", "eager")
Function = Callable[..., Tensor]
TOLERANCE = 2e-3  # largest difference, relative to the largest value, that a faster way may make
_WARM_UPS = 3  # runs before a capture, as torch's documentation has it: libraries choose their kernels in the first


class Fast(NamedTuple):
    """`call` takes what the function took, in the shapes of the examples. `how`: `graph`, `compile` or `eager`."""

    call: Function
    how: str


def accelerate(function: Function, examples: Sequence[Tensor], wanted: Acceleration, *, name: str) -> Fast:
    """The fastest way that works and gives the same; each that does not is logged as a warning, with the reason.

    `auto` tries a CUDA graph, then `torch.compile`, on a GPU; on a CPU it leaves the function as it is, since compiling
    takes longer there than it gains.

    Args:
        function: of tensors to one tensor; it must not wait for the device where a graph is to be captured.
        examples: arguments with the shapes, dtypes and device of all further calls.
    """
    device = examples[0].device
    ways = {"auto": ("graph", "compile") if device.type == "cuda" else (), "eager": ()}.get(wanted, (wanted,))
    with torch.inference_mode():
        expected = function(*examples).clone()
        for way in ways if expected.numel() else ():
            try:
                call = _graph(function, examples) if way == "graph" else _compiled(function)
                difference = _difference(call(*examples), expected)
                if difference > TOLERANCE:
                    raise ArithmeticError(f"it differs by {difference:.2g} of the largest value")
                return Fast(call, way)
            # What capture and compilers raise is of any kind; the reason is told, and the next way taken.
            except Exception as error:
                _logger.warning("%s: no %s: %s", name, way, _first_line(error))
    return Fast(function, "eager")


def _graph(function: Function, examples: Sequence[Tensor]) -> Function:
    """A CUDA graph with memory of its own for arguments and result."""
    if examples[0].device.type != "cuda":
        raise RuntimeError(f"a CUDA graph needs a CUDA device, not {examples[0].device}")
    inputs, device = [example.clone() for example in examples], examples[0].device
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            output = function(*inputs)

    def replay(*given: Tensor) -> Tensor:
        for own, value in zip(inputs, given, strict=True):
            own.copy_(value, non_blocking=True)
        with torch.cuda.device(device):
            graph.replay()
        return output.clone()  # the next replay writes over it, and what a policy remembers must stay

    return replay


def _compiled(function: Function) -> Function:
    call: Function = torch.compile(function, dynamic=False)
    return call


def _difference(given: Tensor, expected: Tensor) -> float:
    largest = expected.abs().max().clamp(min=1e-6)
    return float(((given - expected).abs().max() / largest).nan_to_num(nan=float("inf")))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Staging:
    """Copies arrays of fixed shapes to a device, through pinned memory where that helps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[str, Tensor] = {}

    def __call__(self, name: str, array: np.ndarray) -> Tensor:
        """The array on the device; on a CPU without a copy where torch may write to it. Good until the next call with
        this name.
        """
        if self._device.type != "cuda":
            return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)
        held = self._pinned.get(name)
        if held is None or held.shape != array.shape:
            dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
            held = self._pinned[name] = torch.empty(array.shape, dtype=dtype, pin_memory=True)
        np.copyto(held.numpy(), array)
        return held.to(self._device, non_blocking=True)
