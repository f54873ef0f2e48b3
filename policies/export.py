"""A trained policy as a graph that runs without this project: `torch.export` or ONNX, compared with the original.

Two graphs: from features (neck and head), and from frames (the encoder before them). A graph has no memory: it takes a
window of history and gives the whole chunk, so what calls it keeps the window and executes the chunk as the policy's
settings say. Samplers take their noise as an input. The number of rows is fixed, since heads ask tensors for it.

Legend: B batch, T moments of history, P proprioception, H chunk, A action.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UserError
from embodied.core.files import atomic_path
from embodied.policies.bc import BCPolicy
from embodied.policies.heads.vq_bet import VQBeTHead
from embodied.policies.tuning import merged_copy

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, str] = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-4  # largest absolute difference of normalised actions between a graph and the policy


class FeaturesToChunk(nn.Module):
    """Features float [B, T, ...], then proprioception float [B, T, P] and noise where the policy has them, to a chunk
    [B, H, A] in the environment's units.
    """

    def __init__(self, policy: BCPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.with_state = policy.proprioception_dim > 0

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        state = others[0] if self.with_state else None
        noise = others[int(self.with_state)] if len(others) > int(self.with_state) else None
        return self.policy.predict(seen, state, noise=noise)


class FramesToChunk(FeaturesToChunk):
    """Frames uint8 [B, T, S, S, 3] (states float [B, T, S]) of one camera in place of features."""

    def forward(self, seen: Tensor, *others: Tensor) -> Tensor:
        features = self.policy.encode(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return super().forward(features, *others)


def input_names(policy: BCPolicy, first: str) -> list[str]:
    """Of the inputs of a graph, in order; `first` is `features` or `frames`."""
    noise = policy.acting.action_head.noise_shape(1) is not None
    return [first, *(["state"] if policy.proprioception_dim else []), *(["noise"] if noise else [])]


def example_inputs(policy: BCPolicy, seen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """`seen` [B, T, ...] with random proprioception and noise."""
    inputs = [seen]
    if policy.proprioception_dim:
        inputs.append(torch.randn(len(seen), policy.history, policy.proprioception_dim, generator=generator))
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
    copied.controller, copied.ema = copied.acting, None
    copied.encoder = merged_copy(copied.encoder) if encoder else nn.Identity()
    for head in [module for module in copied.modules() if isinstance(module, VQBeTHead)]:
        # Which phase it is in is decided by a number in a buffer; a graph is of one phase.
        steps = int(head.steps)
        del head._buffers["steps"]
        head.steps = steps  # type: ignore[assignment]
    return copied


def export_policy(
    policy: BCPolicy, folder: Path, *, format: Format, frame_shape: Sequence[int] | None, batch: int = 1
) -> dict[str, float]:
    """Write `from_features` and, where a frame's shape is given, `from_frames` to a folder.

    Args:
        policy: trained, in eval mode; it is not changed.
        folder: made if need be.
        format: `torch` writes `.pt2`, `onnx` writes `.onnx`.
        frame_shape: [S, S, 3] of the policy's frames, or [S] of a state; None leaves `from_frames` out.
        batch: B of the graphs.

    Returns:
        The largest absolute difference to the policy, in normalised actions, by the name of the file.

    Raises:
        UserError: a graph differs by more than 1e-4, or the policy cannot be traced.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    generator = torch.Generator().manual_seed(0)
    graphs: list[tuple[str, FeaturesToChunk, Tensor]] = []
    plain = exportable(policy, encoder=False)
    graphs.append(("features", FeaturesToChunk(plain), _features_like(plain, batch, generator)))
    if frame_shape is not None:
        shape = (batch, policy.history, *frame_shape)
        frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        seen = frames if len(frame_shape) == 3 else torch.randn(shape, generator=generator)
        graphs.append(("frames", FramesToChunk(exportable(policy, encoder=True)), seen))
    differences = {}
    for first, module, seen in graphs:
        inputs, names = example_inputs(module.policy, seen, generator), input_names(module.policy, first)
        with torch.no_grad(), _quiet():
            expected = module(*inputs)
            written, found = _GRAPHS[format](module.eval(), inputs, names)
        difference = float(((found - expected) / module.policy.normalizer.scale).abs().max())
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own insides: the comparison decides whether a graph is right."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _features_like(policy: BCPolicy, batch: int, generator: torch.Generator) -> Tensor:
    """Random features [B, T, ...] around the mean that the policy was trained on, with their spread."""
    drawn = torch.randn(batch, policy.history, *policy.feature_shape, generator=generator)
    spread, mean = policy.controller.feature_scale[1], policy.controller.feature_mean
    return (drawn.flatten(2) / spread + mean.repeat(drawn[0, 0].numel() // len(mean))).view_as(drawn)


def _torch_graph(module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str]) -> tuple[bytes, Tensor]:
    """The bytes of the file, and what the graph gives that is read from them."""
    program = torch.export.export(module, inputs)
    written = io.BytesIO()
    torch.export.save(program, written)
    read = torch.export.load(io.BytesIO(written.getvalue()))
    return written.getvalue(), read.module()(*inputs)


def _onnx_graph(module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str]) -> tuple[bytes, Tensor]:
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
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    written = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return written, torch.from_numpy(session.run(None, given)[0])


_GRAPHS: dict[str, Callable[[nn.Module, tuple[Tensor, ...], Sequence[str]], tuple[bytes, Tensor]]] = {
    "torch": _torch_graph,
    "onnx": _onnx_graph,
}
