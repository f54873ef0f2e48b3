"""Export a trained policy as graphs: from features (neck and head, or an agent's actor) and, where one camera feeds it,
from frames.

A graph takes a window of history and gives the whole chunk in the environment's units, for any number of rows; samplers
take their noise as an input, and policies that follow instructions the embedding of what to do. Graphs are traced on
the CPU, whatever device the policy was trained on. Every graph is compared with the policy before it is kept, and
README.md beside it says what goes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from embodied.cli.config import compose_config
from embodied.cli.evaluate import embodiment, policy_path
from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import write_text
from embodied.core.run_folder import RunFolder
from embodied.policies.artifact import load_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.bc_graphs import input_names
from embodied.policies.card import CARD, agent_card, policy_card
from embodied.policies.export import export_policy
from embodied.policies.graph_formats import SUFFIXES, Format
from embodied.policies.rl.policy import RLPolicy


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied export`."""
    config = compose_config("export", arguments)
    if not config.run:
        raise UsageError("which run? write run=<run folder>, as embodied train printed it")
    if config.format not in SUFFIXES:
        raise unknown_name("format", str(config.format), SUFFIXES)
    run = RunFolder.open(Path(config.run).expanduser())
    path = policy_path(run, str(config.checkpoint))
    policy, metadata = load_policy(path, device=torch.device("cpu"), embodiment=embodiment(config))
    folder = Path(config.to).expanduser() if config.to else run.path / "export"
    shape = frame_shape(policy, metadata)
    made = export_policy(policy, folder, format=cast(Format, str(config.format)), frame_shape=shape)
    write_text(folder / CARD, card(policy, metadata, made, source=path, command=run.command, frames=shape))
    console = Console()
    for name, difference in made.items():
        console.print(
            f"{folder / name}: largest difference to the policy {difference:.1e} (normalised actions)",
            highlight=False,
            soft_wrap=True,
        )
    if shape is None:
        console.print("from frames: left out, since several cameras feed this policy", highlight=False)
    return 0


def frame_shape(policy: nn.Module, metadata: Mapping[str, Any]) -> list[int] | None:
    """Of one moment of what the encoder reads; None where several cameras feed the policy."""
    modality = getattr(policy.encoder, "modality", "image")
    if modality == "proprioception":
        return [int(metadata["arguments"]["proprioception_dim"])]
    if modality != "image":
        return [int(metadata["encoder"]["state_dim"])]
    size, camera = int(metadata["env"]["image_size"]), metadata["arguments"]["camera"]
    return [size, size, 3] if isinstance(camera, str) or len(camera) == 1 else None


def card(
    policy: nn.Module,
    metadata: Mapping[str, Any],
    made: Mapping[str, float],
    *,
    source: Path,
    command: str,
    frames: Sequence[int] | None,
) -> str:
    """The policy's model card, and what the graphs take and give."""
    if isinstance(policy, RLPolicy):
        told = agent_card(metadata, command=command, training={})
        inputs, chunk, bounds = agent_inputs(policy, frames), 1, "the mean action, within the bounds"
    else:
        assert isinstance(policy, BCPolicy), type(policy)
        told = policy_card(metadata, policy.assembly, command=command, training={})
        inputs, chunk, bounds = cloned_inputs(policy, frames), policy.assembly.chunk, "not clipped"
    lines = ["", "## Graphs", "", f"Exported from `{source.name}`, for any B. Moments: the present last.", ""]
    for name, difference in made.items():
        lines.append(f"`{name}`, at most {difference:.1e} from the policy (normalised actions):")
        other = "features" if "frames" in name else "frames"
        lines += ["", *(f"- `{entry}`: {words}" for entry, words in inputs.items() if entry != other), ""]
    lines.append(f"Each gives `actions` float32 [B, {chunk}, {policy.action_dim}], {bounds}.")
    return told + "\n".join(lines) + "\n"


def cloned_inputs(policy: BCPolicy, frames: Sequence[int] | None) -> dict[str, str]:
    """What the graphs of a cloned policy take, in words, by the names of the inputs."""
    noise = policy.acting.action_head.noise_shape(1)
    shapes = {
        "features": f"float32 [B, {policy.history}, {', '.join(map(str, policy.feature_shape))}]",
        "state": f"float32 [B, {policy.history}, {policy.state_width}], the moments' proprioception"
        + (", the action before each, and how many moments were before it" if policy.recalls else ""),
        "instruction": f"float32 [B, {policy.controller.text_width}], the text encoder's embedding of what to do",
        "noise": f"float32 [B, {', '.join(map(str, noise[1:]))}], standard normal" if noise else "",
    }
    seen = {"frames": _frames(policy.history, frames)}
    return seen | {name: shapes[name] for name in input_names(policy, "features")}


def agent_inputs(policy: RLPolicy, frames: Sequence[int] | None) -> dict[str, str]:
    """What those of an agent take."""
    from embodied.policies.rl.graphs import feature_width  # needs stable-baselines3, as the agent did

    shapes = {
        "frames": _frames(policy.history, frames),
        "features": f"float32 [B, 1, {feature_width(policy)}]",
        "state": f"float32 [B, 1, {policy.proprioception_dim}], the present proprioception",
    }
    if policy.frames_shape is not None:
        shapes["features"] += ", of all moments, from the conv net that the agent learned"
        side = policy.frames_shape[-1]
        if frames and frames[0] != side:
            shapes["frames"] += (
                f", brought to {side} pixels and rounded in the graph. Where a value is half-way between two bytes, "
                "which of both it becomes is up to who computes it: the comparison leaves such values out"
            )
    if not policy.proprioception_dim:
        del shapes["state"]
    return shapes


def _frames(history: int, frame: Sequence[int] | None) -> str:
    kind = "uint8" if frame and len(frame) == 3 else "float32"
    return f"{kind} [B, {history}, {', '.join(map(str, frame or ()))}]"
