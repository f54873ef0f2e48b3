"""The model card of a policy: what it reads and does, in words, beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied.policies.assembly import Assembly
from embodied.policies.embodiment_files import EMBODIMENT, description_of, robot_names
from embodied.policies.frame_choice import frame_words

CARD = "README.md"


def policy_card(metadata: Mapping[str, Any], assembly: Assembly, *, command: str, training: Mapping[str, Any]) -> str:
    """Markdown, from a policy file's metadata; of several robots one card after the other."""
    if robots := robot_names(metadata):
        each = [description_of(metadata, robot, where="this policy") for robot in robots]
        return "\n".join(policy_card(one, assembly, command=command, training=training) for one in each)
    arguments, encoder = metadata["arguments"], metadata["encoder"]
    lines = [
        *_heading(metadata, "behaviour cloning", command),
        f"- **Encoder:** `{encoder['spec']}`, tune `{arguments.get('tune', 'frozen')}`, {_fingerprint(encoder)}",
        f"- **Reads:** {_cameras(arguments['camera'])}, output `{assembly.feature}`, {assembly.history} moment(s), "
        f"proprioception of {arguments['proprioception_dim']} value(s)",
        f"- **Head:** `{assembly.head}` behind the neck `{assembly.neck}`"
        + (", evaluated with averaged weights" if assembly.ema else ""),
        f"- **Chunks:** {assembly.chunk} action(s) predicted, {assembly.execute} executed before the next plan"
        + (f", temporal ensembling with decay {assembly.ensemble:g}" if assembly.ensemble is not None else ""),
    ]
    if name := metadata.get(EMBODIMENT):
        count = arguments["shared"]["robots"]
        lines.append(f"- **Robot:** one of {count} that this policy drives: load it with `embodiment={name}`")
    if text := metadata.get("text_encoder"):
        lines.append(
            f"- **Instruction:** text encoder `{text['spec']}`, fingerprint `{text['fingerprint']}`; "
            "`initial(batch, instructions=[...])` takes the texts"
        )
    space = arguments.get("action_space")
    if frame := arguments.get("action_frame"):
        names = space["names"] if space else ()
        lines.append(f"- **Actions:** {frame_words(frame, names)}; the policy gives absolute targets")
    return "\n".join([*lines, *_training(training), *(_actions(space) if space else [])]) + "\n"


def agent_card(metadata: Mapping[str, Any], *, command: str, training: Mapping[str, Any]) -> str:
    """Markdown, from the metadata of a policy file of reinforcement learning."""
    arguments, encoder = metadata["arguments"], metadata["encoder"]
    frames = arguments.get("frames_shape")
    seen = f"stacks of frames {list(frames)}" if frames else f"output `{arguments['feature']}`"
    settings = ", ".join(f"{name} {value}" for name, value in arguments["settings"].items() if value is not None)
    lines = [
        *_heading(metadata, "reinforcement learning", command),
        f"- **Encoder:** `{encoder['spec']}`, {_fingerprint(encoder)}",
        f"- **Reads:** {_cameras(arguments['camera'])}, {seen}, proprioception of "
        f"{arguments['proprioception_dim']} value(s)",
        f"- **Agent:** `{arguments['method']}`; {settings}",
        "- **Chunks:** 1 action, the mean of what the agent would draw from, within the bounds",
    ]
    space = {"low": arguments["action_low"], "high": arguments["action_high"], "names": (), "gripper": ()}
    return "\n".join([*lines, *_training(training), *_actions(space)]) + "\n"


def _heading(metadata: Mapping[str, Any], method: str, command: str) -> list[str]:
    env = metadata["env"]
    return [
        f"# Policy for {env.get('task', 'a task')} ({env.get('suite', 'unknown suite')})",
        "",
        f"Trained by {method} with `embodied train`; load it with "
        "`embodied.policies.artifact.load_policy(<a step_*.safetensors here>, device=...)`.",
        "",
        f"- **Made by:** `{command}`",
    ]


def _fingerprint(encoder: Mapping[str, Any]) -> str:
    return f"fingerprint `{encoder['fingerprint'] or 'none: its weights are in the policy file'}`"


def _training(training: Mapping[str, Any]) -> list[str]:
    told = ", ".join(f"{name} {value}" for name, value in training.items() if value is not None)
    return [f"- **Training:** {told}"] if told else []


def _actions(space: Mapping[str, Any]) -> list[str]:
    names = space["names"] or [str(index) for index in range(len(space["low"]))]
    lines = ["", "| action | low | high |", "| --- | --- | --- |"]
    for index, (name, low, high) in enumerate(zip(names, space["low"], space["high"], strict=True)):
        mark = " (gripper)" if index in space["gripper"] else ""
        lines.append(f"| {name}{mark} | {low:g} | {high:g} |")
    return lines


def _cameras(camera: Any) -> str:
    return f"camera `{camera}`" if isinstance(camera, str) else f"cameras {', '.join(f'`{name}`' for name in camera)}"
