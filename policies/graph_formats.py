"""What is traced of a policy, and the files that it becomes: a program of `torch.export`, or ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, str] = {"torch": ".pt2", "onnx": ".onnx"}

Inputs = tuple[Tensor, ...]
Run = Callable[[Inputs], Tensor]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What is traced, and how it is tried.

    Args:
        module: `forward(seen, *others)` to chunks [B, H, A] in the environment's units, on the CPU; a graph holds what
            it holds.
        names: of the inputs, in order.
        draw: random inputs with so many rows.
        scale: [A], what a unit of normalised actions is in the environment's.
    """

    module: nn.Module
    names: Sequence[str]
    draw: Callable[[int, torch.Generator], Inputs]
    scale: Tensor


def random_frames(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """uint8 [B, T, S, S, 3], or float [B, T, S], states."""
    if len(shape) == 5:
        return torch.randint(0, 256, tuple(shape), generator=generator, dtype=torch.uint8)
    return torch.randn(tuple(shape), generator=generator)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say of their own insides: the comparison decides whether a graph is right."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _any_rows(inputs: Inputs) -> tuple[Any, ...]:
    """That the first axis of every input is the same number, whatever it is: as `forward(seen, *others)` takes them."""
    rows = torch.export.Dim("rows", min=1)
    others = tuple({0: rows} for _ in inputs[1:])
    return ({0: rows}, others) if others else ({0: rows},)  # torch counts an empty tuple as an input


def _torch_graph(module: nn.Module, inputs: Inputs, names: Sequence[str]) -> tuple[bytes, Run]:
    """The bytes of the file, and the graph that is read from them."""
    program = torch.export.export(module, inputs, dynamic_shapes=_any_rows(inputs))
    written = io.BytesIO()
    torch.export.save(program, written)
    read = torch.export.load(io.BytesIO(written.getvalue())).module()
    return written.getvalue(), lambda given: read(*given)


def _onnx_graph(module: nn.Module, inputs: Inputs, names: Sequence[str]) -> tuple[bytes, Run]:
    """As `_torch_graph`; run by onnxruntime on the CPU."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it, and says so less clearly)
    except ImportError as error:
        raise MissingExtraError("onnx, onnxscript or onnxruntime", "onnx") from error
    program = torch.onnx.export(
        module,
        inputs,
        input_names=list(names),
        output_names=["actions"],
        dynamic_shapes=_any_rows(inputs),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    written = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])

    def run(given: Inputs) -> Tensor:
        named = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, named)[0])

    return written, run


GRAPHS: dict[str, Callable[[nn.Module, Inputs, Sequence[str]], tuple[bytes, Run]]] = {
    "torch": _torch_graph,
    "onnx": _onnx_graph,
}
