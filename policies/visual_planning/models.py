"""World models by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embodied.core.errors import UsageError, UserError
from embodied.models.sequence.world_model import WorldModel

SIMULATOR = "simulator"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is used.

    Args:
        name: `simulator`, or the run folder of a video objective.
        fingerprint: that the run's encoder must have; empty: any.
        env: options of `TaskEnv`, for the simulator.
        camera: whose frames it shows.
        action_dim: A.
        context: frames that a video model predicts from; None: as it was trained.
        rows: candidates that a video model predicts at once.
        draws: see `VideoModel`.
    """

    name: str
    fingerprint: str
    env: Mapping[str, Any]
    camera: str
    action_dim: int
    context: int | None = None
    rows: int = 64
    draws: bool = False


def make_world_model(settings: ModelSettings, *, frames: Literal["none", "last", "all"]) -> WorldModel:
    """The model, showing these frames of a candidate.

    Raises:
        UserError: the run is none of a video objective, or has changed.
        UsageError: the model does not go with the environment.
    """
    if settings.name == SIMULATOR:
        from embodied.policies.visual_planning.simulator import SimulatorModel

        return SimulatorModel(settings.env, camera=settings.camera, frames=frames)
    from embodied.objectives.video.trained import load_trained
    from embodied.policies.visual_planning.video_model import VideoModel

    trained = load_trained(settings.name)
    if settings.fingerprint and trained.fingerprint != settings.fingerprint:
        raise UserError(
            f"policy.model={settings.name} has changed since this policy was made: restore the run whose encoder has "
            f"fingerprint {settings.fingerprint[:12]}, or make the policy again"
        )
    context = trained.context if settings.context is None else settings.context
    if not 1 <= context < trained.frames:
        raise UsageError(
            f"policy.context must be in [1, {trained.frames - 1}] for this model, whose clips have {trained.frames} "
            f"frames, got {context}"
        )
    return VideoModel(
        trained.objective,
        context=context,
        stride=trained.stride,
        action_dim=settings.action_dim,
        frames=frames,
        rows=settings.rows,
        draws=settings.draws,
    )


def model_fingerprint(name: str) -> str:
    """Of a run folder's encoder, tokenizer included; empty for the simulator."""
    if name == SIMULATOR:
        return ""
    from embodied.objectives.video.trained import load_trained

    return load_trained(name).fingerprint
