"""Export a trained policy as graphs: from features (neck and head) and, where one camera feeds it, from frames.

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

from embodied.cli.config import compose_config
from embodied.cli.evaluate import policy_path
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import write_text
from embodied.core.run_folder import RunFolder
from embodied.policies.artifact import load_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.card import CARD, policy_card
from embodied.policies.export import SUFFIXES, Format, export_policy, input_names


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied export`."""
    config = compose_config("export", arguments)
    if not config.run:
        raise UsageError("which run? write run=<run folder>, as embodied train printed it")
    if config.format not in SUFFIXES:
        raise unknown_name("format", str(config.format), SUFFIXES)
    run = RunFolder.open(Path(config.run).expanduser())
    path = policy_path(run, str(config.checkpoint))
    policy, metadata = load_policy(path, device=torch.device("cpu"))
    if not isinstance(policy, BCPolicy):
        raise UserError(f"{path} is not a policy of behaviour cloning: only these are exported")
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


def frame_shape(policy: BCPolicy, metadata: Mapping[str, Any]) -> list[int] | None:
    """Of one moment of what the encoder reads; None where several cameras feed the policy."""
    modality = getattr(policy.encoder, "modality", "image")
    if modality == "proprioception":
        return [policy.proprioception_dim]
    if modality != "image":
        return [int(metadata["encoder"]["state_dim"])]
    size = int(metadata["env"]["image_size"])
    return [size, size, 3] if len(policy.cameras) == 1 else None


def card(
    policy: BCPolicy,
    metadata: Mapping[str, Any],
    made: Mapping[str, float],
    *,
    source: Path,
    command: str,
    frames: Sequence[int] | None,
) -> str:
    """The policy's model card, and what the graphs take and give."""
    noise = policy.acting.action_head.noise_shape(1)
    shapes = {
        "features": f"float32 [B, {policy.history}, {', '.join(map(str, policy.feature_shape))}]",
        "frames": f"{'uint8' if frames and len(frames) == 3 else 'float32'} "
        f"[B, {policy.history}, {', '.join(map(str, frames or ()))}]",
        "state": f"float32 [B, {policy.history}, {policy.state_width}], the moments' proprioception"
        + (", the action before each, and how many moments were before it" if policy.recalls else ""),
        "instruction": f"float32 [B, {policy.controller.text_width}], the text encoder's embedding of what to do",
        "noise": f"float32 [B, {', '.join(map(str, noise[1:]))}], standard normal" if noise else "",
    }
    lines = ["", "## Graphs", "", f"Exported from `{source.name}`, for any B. Moments: the present last.", ""]
    for name, difference in made.items():
        lines.append(f"`{name}`, at most {difference:.1e} from the policy (normalised actions):")
        inputs = input_names(policy, "frames" if "frames" in name else "features")
        lines += ["", *(f"- `{entry}`: {shapes[entry]}" for entry in inputs), ""]
    lines.append(f"Each gives `actions` float32 [B, {policy.assembly.chunk}, {policy.action_dim}], not clipped.")
    return policy_card(metadata, policy.assembly, command=command, training={}) + "\n".join(lines) + "\n"
