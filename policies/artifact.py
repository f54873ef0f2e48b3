"""Policy artifacts: one safetensors file that rebuilds a policy and checks the encoder it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UserError
from embodied.core.protocols import TextEncoder
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.encoders.text.load import load_text_encoder, text_fingerprint
from embodied.policies.action_space import ActionNormalizer
from embodied.policies.embodiment_files import ROBOTS, description_of, tensors_of

TRUSTED_PACKAGE = "embodied.policies."  # a checkpoint may name classes in here only: it is not code


def describe_policy(
    target: str,
    arguments: Mapping[str, Any],
    *,
    encoder: Mapping[str, Any],
    env: Mapping[str, Any],
    text_encoder: Mapping[str, Any] | None = None,
    robots: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The metadata of a policy file.

    Args:
        target: import path of the policy class.
        arguments: JSON-able keyword arguments beside the encoder: with the action space, and what chunks mean.
        encoder: `spec`, `seed`, `state_dim` as `load_encoder` takes them, and `fingerprint` (empty if the policy file
            has all of its weights).
        env: options of the environment it was trained for.
        text_encoder: `spec` as `load_text_encoder` takes it, and `fingerprint`; None: the policy follows no
            instructions.
        robots: of a policy of several `name`, `env` and the `arguments` that are its own; see `embodiment_files`.
    """
    described = {"target": target, "arguments": dict(arguments), "encoder": dict(encoder), "env": dict(env)}
    text = {} if text_encoder is None else {"text_encoder": dict(text_encoder)}
    return {**described, **text, **({ROBOTS: [dict(robot) for robot in robots]} if robots else {})}


def build_policy(metadata: Mapping[str, Any], encoder: nn.Module, text_encoder: TextEncoder | None = None) -> nn.Module:
    """A fresh policy from its description."""
    target = str(metadata["target"])
    if not target.startswith(TRUSTED_PACKAGE):
        raise UserError(f"the policy class {target!r} is not one of {TRUSTED_PACKAGE}*: refusing to import it")
    module, _, name = target.rpartition(".")
    read = {} if text_encoder is None else {"text_encoder": text_encoder}
    return getattr(import_module(module), name)(encoder, **read, **metadata["arguments"])


class LoadEncoder(Protocol):
    """Loads an encoder, or has it already: see `load_encoder`."""

    def __call__(self, spec: str, /, *, seed: int, state_dim: int | None) -> nn.Module: ...


def read_description(path: str | Path, embodiment: str | None = None) -> dict[str, Any]:
    """The description of a policy file, of several robots that of the one named; see `load_policy`."""
    return description_of(load_checkpoint(path)[1], embodiment, where=path)


def load_policy(
    path: str | Path, *, device: torch.device, load: LoadEncoder = load_encoder, embodiment: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A trained policy in eval mode on `device`, and its description.

    Args:
        path: the policy file.
        device: where it will run.
        load: gives the encoder, unless the policy has changed it.
        embodiment: of a policy of several robots, the name of the one that it is to drive.

    Raises:
        UserError: the file is missing, damaged or foreign, an encoder is not the one it was trained on, or it is of
            several robots and none of them, or another one, is named.
    """
    tensors, metadata = load_checkpoint(path)
    if not {"target", "arguments", "encoder", "env"} <= metadata.keys():
        raise UserError(f"{path} is a checkpoint of embodied, but not of a policy")
    metadata = description_of(metadata, embodiment, where=path)
    if shared := metadata["arguments"].get("shared"):
        tensors = tensors_of(tensors, shared["number"])
    named = metadata["encoder"]
    tuned = metadata["arguments"].get("tune", "frozen") != "frozen"
    encoder = (load_encoder if tuned else load)(named["spec"], seed=named["seed"], state_dim=named["state_dim"])
    if named["fingerprint"] and fingerprint(encoder) != named["fingerprint"]:
        raise UserError(
            f"encoder {named['spec']!r} has changed since {path} was trained on it: restore the encoder with "
            f"fingerprint {named['fingerprint'][:12]}, or train again"
        )
    policy = build_policy(metadata, encoder, _text_encoder(metadata, path))
    _require_statistics(policy, tensors, path)
    policy.load_trained_tensors(tensors)  # type: ignore[operator]
    return policy.to(device).eval(), metadata


def _text_encoder(metadata: Mapping[str, Any], path: str | Path) -> TextEncoder | None:
    """The one that the policy was trained with, if it follows instructions."""
    named = metadata.get("text_encoder")
    if named is None:
        return None
    encoder = load_text_encoder(named["spec"])
    if text_fingerprint(encoder) != named["fingerprint"]:
        raise UserError(
            f"text encoder {named['spec']!r} is not the one that {path} was trained with: restore the one with "
            f"fingerprint {named['fingerprint'][:12]}, or train again"
        )
    return encoder


def _require_statistics(policy: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """What normalises the actions came with the file, and was measured."""
    if isinstance(getattr(policy, "normalizer", None), ActionNormalizer):
        names = [f"normalizer.{name}" for name in ("offset", "scale", "fitted")]
        if not all(name in tensors for name in names) or not bool(tensors[names[-1]]):
            raise UserError(f"{path} holds no statistics of the actions it was trained on: train the policy again")
        if not all(bool(tensors[name].isfinite().all()) for name in names[:-1]):
            raise UserError(f"{path} holds statistics of actions that are no finite numbers: train the policy again")
