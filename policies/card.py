"""The model card of a policy: what it reads and does, in words, beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied.policies.assembly import Assembly

CARD = "README.md"


def policy_card(metadata: Mapping[str, Any], assembly: Assembly, *, command: str, training: Mapping[str, Any]) -> str:
    """Markdown, from a policy file's metadata."""
    arguments, env, encoder = metadata["arguments"], metadata["env"], metadata["encoder"]
    space = arguments.get("action_space")
    lines = [
        f"# Policy for {env.get('task', 'a task')} ({env.get('suite', 'unknown suite')})",
        "",
        "Trained by behaviour cloning with `embodied train`; load it with "
        "`embodied.policies.artifact.load_policy(<a step_*.safetensors here>, device=...)`.",
        "",
        f"- **Made by:** `{command}`",
        f"- **Encoder:** `{encoder['spec']}`, tune `{arguments.get('tune', 'frozen')}`, fingerprint "
        f"`{encoder['fingerprint'] or 'none: its weights are in the policy file'}`",
        f"- **Reads:** {_cameras(arguments['camera'])}, output `{assembly.feature}`, {assembly.history} moment(s), "
        f"proprioception of {arguments['proprioception_dim']} value(s)",
        f"- **Head:** `{assembly.head}` behind the neck `{assembly.neck}`"
        + (", evaluated with averaged weights" if assembly.ema else ""),
        f"- **Chunks:** {assembly.chunk} action(s) predicted, {assembly.execute} executed before the next plan"
        + (f", temporal ensembling with decay {assembly.ensemble:g}" if assembly.ensemble is not None else ""),
    ]
    if text := metadata.get("text_encoder"):
        lines.append(
            f"- **Instruction:** text encoder `{text['spec']}`, fingerprint `{text['fingerprint']}`; "
            "`initial(batch, instructions=[...])` takes the texts"
        )
    if training:
        told = ", ".join(f"{name} {value}" for name, value in training.items() if value is not None)
        lines.append(f"- **Training:** {told}")
    if space:
        lines += ["", "| action | low | high |", "| --- | --- | --- |"]
        names = space["names"] or [str(index) for index in range(len(space["low"]))]
        for index, (name, low, high) in enumerate(zip(names, space["low"], space["high"], strict=True)):
            mark = " (gripper)" if index in space["gripper"] else ""
            lines.append(f"| {name}{mark} | {low:g} | {high:g} |")
    return "\n".join(lines) + "\n"


def _cameras(camera: Any) -> str:
    return f"camera `{camera}`" if isinstance(camera, str) else f"cameras {', '.join(f'`{name}`' for name in camera)}"
