"""A trained policy as a graph that runs without this project: `torch.export` or ONNX, compared with the original.

Two graphs: from features (neck and head), and from frames (the encoder before them). A graph has no memory: it takes a
window of history and gives the whole chunk, so what calls it keeps the window and executes the chunk as the policy's
settings say. Samplers take their noise as an input, and policies that follow instructions the embedding of the text
encoder that their card names. Graphs take any number of rows.

Legend: B batch, T moments of history, P proprioception, E width of an instruction, H chunk, A action.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError
from embodied.core.files import atomic_path
from embodied.core.protocols import INSTRUCTION
from embodied.policies.bc import BCPolicy
from embodied.policies.heads.vq_bet import VQBeTHead
from embodied.policies.necks.sequence import SequenceNeck
from embodied.policies.tuning import merged_copy

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, str] = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-4  # largest absolute difference of normalised actions between a graph and the policy
TRACED_ROWS = 3  # a graph traced with one row may have it built in
CHECKED_ROWS = (1, 3)  # numbers of rows that a graph is compared with the policy for

Inputs = tuple[Tensor, ...]
Graph = Callable[[Inputs], Tensor]


class FeaturesToChunk(nn.Module):
    """Features float [B, T, ...], then proprioception float [B, T, P], the instruction float [B, E] and noise where the
    policy has them, to a chunk [B, H, A] in the environment's units.
    """

    def __init__(self, policy: BCPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.others = input_names(policy, "")[1:]

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        given = dict(zip(self.others, others, strict=True))
        return self.policy.predict(
            seen, given.get("state"), instruction=given.get(INSTRUCTION), noise=given.get("noise")
        )


class FramesToChunk(FeaturesToChunk):
    """Frames uint8 [B, T, S, S, 3] (states float [B, T, S]) of one camera in place of features."""

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        features = self.policy.encode(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return super().forward(features, *others)


def input_names(policy: BCPolicy, first: str) -> list[str]:
    """Of the inputs of a graph, in order; `first` is `features` or `frames`."""
    others = {
        "state": policy.state_width > 0,
        INSTRUCTION: policy.controller.text_width is not None,
        "noise": policy.acting.action_head.noise_shape(1) is not None,
    }
    return [first, *(name for name, there in others.items() if there)]


def example_inputs(policy: BCPolicy, seen: Tensor, generator: torch.Generator) -> Inputs:
    """`seen` [B, T, ...] with random proprioception, instruction and noise."""
    inputs = [seen]
    if policy.state_width:
        inputs.append(torch.randn(len(seen), policy.history, policy.state_width, generator=generator))
    if policy.controller.text_width is not None:
        inputs.append(torch.randn(len(seen), policy.controller.text_width, generator=generator))
    shape = policy.acting.action_head.noise_shape(len(seen))
    if shape is not None:
        inputs.append(torch.randn(shape, generator=generator))
    return tuple(inputs)


def exportable(policy: BCPolicy, *, encoder: bool) -> BCPolicy:
    """A copy on the CPU for tracing: averaged weights in place, adapters merged, no counters in the way.

    Args:
        policy: is not changed.
        encoder: whether the copy needs it; a graph holds what its module holds.
    """
    copied = copy.deepcopy(policy).cpu().eval()
    copied.instructions = None  # an input
    copied.controller, copied.ema = copied.acting, None
    if isinstance(copied.controller.neck, SequenceNeck):
        copied.controller.neck.network = merged_copy(copied.controller.neck.network)
    copied.encoder = merged_copy(copied.encoder) if encoder else nn.Identity()
    for head in [module for module in copied.modules() if isinstance(module, VQBeTHead)]:
        # Which phase it is in is decided by a number in a buffer; a graph is of one phase.
        steps = int(head.steps)
        del head._buffers["steps"]
        head.steps = steps  # type: ignore[assignment]
    return copied


def export_policy(
    policy: BCPolicy, folder: Path, *, format: Format, frame_shape: Sequence[int] | None
) -> dict[str, float]:
    """Write `from_features` and, where a frame's shape is given, `from_frames` to a folder.

    Args:
        policy: trained, in eval mode; it is not changed.
        folder: made if need be.
        format: `torch` writes `.pt2`, `onnx` writes `.onnx`.
        frame_shape: [S, S, 3] of the policy's frames, or [S] of a state; None leaves `from_frames` out.

    Returns:
        The largest absolute difference to the policy for 1 and 3 rows, in normalised actions, by the name of the file.

    Raises:
        UserError: a graph differs by more than 1e-4, or the policy has no features.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    if not policy.feature_shape[-1]:
        raise UserError("a policy with encoder=proprioception sees nothing: this baseline has no graph to export")
    modules: dict[str, FeaturesToChunk] = {"features": FeaturesToChunk(exportable(policy, encoder=False))}
    if frame_shape is not None:
        modules["frames"] = FramesToChunk(exportable(policy, encoder=True))
    differences = {}
    for first, module in modules.items():
        written, difference = _checked_graph(module.eval(), first, format, frame_shape)
        if not difference <= TOLERANCE:
            raise UserError(
                f"the {format} graph from {first} differs from the policy by {difference:.2g} (at most {TOLERANCE:g} "
                f"is accepted): it was not written; try format={'torch' if format == 'onnx' else 'onnx'}"
            )
        path = folder / f"from_{first}{SUFFIXES[format]}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(written)
        differences[path.name] = difference
    return differences


def _checked_graph(
    module: FeaturesToChunk, first: str, format: Format, frame_shape: Sequence[int] | None
) -> tuple[bytes, float]:
    """The bytes of the file, and the largest difference between what they give and the policy."""
    generator = torch.Generator().manual_seed(0)
    policy = module.policy

    def inputs(rows: int) -> Inputs:
        if first == "features":
            seen = _features_like(policy, rows, generator)
        else:
            assert frame_shape is not None
            shape = (rows, policy.history, *frame_shape)
            frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            seen = frames if len(frame_shape) == 3 else torch.randn(shape, generator=generator)
        return example_inputs(policy, seen, generator)

    differences = []
    with torch.no_grad(), _quiet():
        written, run = _GRAPHS[format](module, inputs(TRACED_ROWS), input_names(policy, first))
        for rows in CHECKED_ROWS:
            given = inputs(rows)
            difference = (run(given) - module(*given)) / policy.normalizer.scale
            differences.append(difference.abs().max())
    return written, float(torch.stack(differences).max())  # nan where one is


@contextmanager
def _quiet() -> Iterator[None]:
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


def _features_like(policy: BCPolicy, batch: int, generator: torch.Generator) -> Tensor:
    """Random features [B, T, ...] around the mean that the policy was trained on, with their spread."""
    drawn = torch.randn(batch, policy.history, *policy.feature_shape, generator=generator)
    spread, mean = policy.controller.feature_scale[1], policy.controller.feature_mean
    return (drawn.flatten(2) / spread + mean.repeat(drawn[0, 0].numel() // len(mean))).view_as(drawn)


def _any_rows(inputs: Inputs) -> tuple[Any, ...]:
    """That the first axis of every input is the same number, whatever it is: as `forward(seen, *others)` takes them."""
    rows = torch.export.Dim("rows", min=1)
    return {0: rows}, tuple({0: rows} for _ in inputs[1:])


def _torch_graph(module: nn.Module, inputs: Inputs, names: Sequence[str]) -> tuple[bytes, Graph]:
    """The bytes of the file, and the graph that is read from them."""
    program = torch.export.export(module, inputs, dynamic_shapes=_any_rows(inputs))
    written = io.BytesIO()
    torch.export.save(program, written)
    read = torch.export.load(io.BytesIO(written.getvalue())).module()
    return written.getvalue(), lambda given: read(*given)


def _onnx_graph(module: nn.Module, inputs: Inputs, names: Sequence[str]) -> tuple[bytes, Graph]:
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


_GRAPHS: dict[str, Callable[[nn.Module, Inputs, Sequence[str]], tuple[bytes, Graph]]] = {
    "torch": _torch_graph,
    "onnx": _onnx_graph,
}
