"""A trained policy as a graph that runs without this project: `torch.export` or ONNX, compared with the original.

Two graphs: from features (neck and head, or an agent's actor), and from frames (the encoder before them). A graph has
no memory: it takes a window of history and gives the whole chunk, so what calls it keeps the window and executes the
chunk as the policy's settings say. Samplers take their noise as an input, and policies that follow instructions the
embedding of the text encoder that their card names; an agent of reinforcement learning takes its mean action. Graphs
take any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from embodied.core.errors import UserError
from embodied.core.files import atomic_path
from embodied.policies.bc import BCPolicy
from embodied.policies.bc_graphs import cloned_graph
from embodied.policies.graph_formats import GRAPHS, SUFFIXES, Format, Graph, quiet
from embodied.policies.rl.policy import RLPolicy

TOLERANCE = 1e-4  # largest absolute difference of normalised actions between a graph and the policy
TRACED_ROWS = 3  # a graph traced with one row may have it built in
CHECKED_ROWS = (1, 3)  # numbers of rows that a graph is compared with the policy for


def export_policy(
    policy: nn.Module, folder: Path, *, format: Format, frame_shape: Sequence[int] | None
) -> dict[str, float]:
    """Write `from_features` and, where a frame's shape is given, `from_frames` to a folder.

    Args:
        policy: a trained `BCPolicy` or `RLPolicy`, in eval mode; it is not changed.
        folder: made if need be.
        format: `torch` writes `.pt2`, `onnx` writes `.onnx`.
        frame_shape: [S, S, 3] of the policy's frames, or [S] of a state; None leaves `from_frames` out.

    Returns:
        The largest absolute difference to the policy for 1 and 3 rows, in normalised actions, by the name of the file.

    Raises:
        UserError: a graph differs by more than 1e-4, or the policy has no features, or searches for what it does.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    graph_of = _graph_maker(policy)
    shapes = {"features": None} if frame_shape is None else {"features": None, "frames": frame_shape}
    differences = {}
    for first, shape in shapes.items():
        written, difference = _checked_graph(graph_of(shape), format)
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


def _graph_maker(policy: nn.Module) -> Callable[[Sequence[int] | None], Graph]:
    """What makes the graph from features (None), or from frames of a shape."""
    if not isinstance(policy, BCPolicy | RLPolicy):
        raise UserError(
            "a policy that plans searches anew at every step: only policies of behaviour cloning and agents of "
            "reinforcement learning have a graph to export"
        )
    if getattr(policy.encoder, "modality", "image") == "proprioception":
        raise UserError("a policy with encoder=proprioception sees nothing: this baseline has no graph to export")
    if isinstance(policy, BCPolicy):
        return lambda shape: cloned_graph(policy, shape)
    from embodied.policies.rl.graphs import agent_graph  # needs stable-baselines3, as the agent did

    return lambda shape: agent_graph(policy, shape)


def _checked_graph(graph: Graph, format: Format) -> tuple[bytes, float]:
    """The bytes of the file, and the largest difference between what they give and the policy."""
    generator = torch.Generator().manual_seed(0)
    differences = []
    with torch.no_grad(), quiet():
        written, run = GRAPHS[format](graph.module, graph.draw(TRACED_ROWS, generator), graph.names)
        for rows in CHECKED_ROWS:
            given = graph.draw(rows, generator)
            difference = (run(given) - graph.module(*given)) / graph.scale
            differences.append(difference.abs().max())
    return written, float(torch.stack(differences).max())  # nan where one is
