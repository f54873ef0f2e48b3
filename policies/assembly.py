"""The parts of a behaviour-cloning policy by their names: which neck fits which head, and what is left to null."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.head_kinds import HeadKind, head_kinds
from embodied.policies.heads.registry import load_head
from embodied.policies.heads.temporal_ensemble import DECAY
from embodied.policies.necks.registry import fuses_history, load_neck, reads_vectors

SEQUENCE_CHUNK = 16  # actions that RPT predicts


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The names and numbers of a policy with nothing left to null.

    Args:
        head, neck: modules in `policies/heads` and `policies/necks`.
        feature: the encoder output that the neck reads.
        history: moments of observation; chunk: actions predicted; execute: of them, before the next plan.
        ensemble: decay of temporal ensembling, None for none.
        ema: evaluate an average of the weights.
    """

    head: str
    neck: str
    feature: str
    history: int
    chunk: int
    execute: int
    ensemble: float | None
    ema: bool

    @property
    def fuses(self) -> bool:
        """Whether the neck makes one moment of the history."""
        return fuses_history(self.neck)

    @property
    def recurrent(self) -> bool:
        """Whether the head reads moment by moment and remembers: training windows run forward from their frame."""
        return self.head == "rnn_gmm"


def assemble(
    head: str,
    *,
    neck: str | None = None,
    feature: str | None = None,
    history: int | None = None,
    chunk: int | None = None,
    execute: int | None = None,
    ensemble: float | bool | None = None,
    ema: bool | None = None,
) -> Assembly:
    """Fill in what the head is usually given, see `head_kinds`.

    Args:
        ensemble: a decay, True for the head's or ACT's, False for none; None: the head's, where `execute` leaves room.

    Raises:
        UsageError: a name is unknown, or numbers do not fit each other.
    """
    kinds = head_kinds()
    if head not in kinds:
        raise unknown_name("policy.head", head, kinds)
    kind = kinds[head]
    chosen = neck or kind.neck
    load_neck(chosen)  # refuses an unknown name
    moments = at_least_one("policy.history", kind.history if history is None else history)
    length = at_least_one("policy.chunk", chunk if chunk is not None else kind.chunk or moments)
    decay = _decay(kind, ensemble, execute)
    if ema is not None and not isinstance(ema, bool):
        raise UsageError(f"policy.ema must be true, false or null, got {ema!r}")
    ahead = at_least_one("policy.execute", execute if execute is not None else min(kind.execute, length))
    if ahead > length:
        raise UsageError(f"policy.execute must be in [1, policy.chunk={length}], got {ahead}")
    if decay is not None and ahead != 1:
        raise UsageError(f"policy.ensemble makes a plan at every step: policy.execute must be 1, got {ahead}")
    made = Assembly(
        head=kind.module or head,
        neck=chosen,
        feature=feature or ("pooled" if reads_vectors(chosen) else "tokens"),
        history=moments,
        chunk=length,
        execute=ahead,
        ensemble=decay,
        ema=kind.ema if ema is None else ema,
    )
    if made.recurrent and (made.fuses or length != moments or ahead != 1 or decay is not None):
        raise UsageError(
            "policy.head=rnn_gmm reads moment by moment and gives one action each: policy.chunk must be "
            "policy.history, policy.execute 1, policy.ensemble false, and policy.neck one that fuses no history "
            "(pooled, attention, spatial_softmax, text_query)"
        )
    return made


def fill_for_sequence(settings: Mapping[str, Any], encoder: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of a policy, with what goes with a sequence encoder where they leave it open.

    That is `neck=sequence`, the latent of the pre-training, its whole context, and RPT's chunks of 16 actions where the
    head would predict one.

    Args:
        settings: of `bc.BCPolicy`.
        encoder: `config()` of a sequence encoder; None: it is another one, and nothing is filled in.
    """
    if encoder is None or settings.get("neck") not in (None, "sequence"):
        return dict(settings)
    filled = {**settings, "neck": "sequence", "feature": encoder["latent"]}
    if settings.get("history") is None:
        filled["history"] = int(encoder["network"]["context"])
    kind = head_kinds().get(str(settings["head"]))
    if settings.get("chunk") is None and kind is not None and kind.chunk == 1 and not kind.single:
        filled["chunk"] = SEQUENCE_CHUNK
    return filled


def at_least_one(name: str, value: object) -> int:
    """The value of a setting that counts something.

    Raises:
        UsageError: it is no whole number, or less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _decay(kind: HeadKind, ensemble: float | bool | None, execute: int | None) -> float | None:
    if ensemble is None:
        return kind.ensemble if execute in (None, 1) else None
    if isinstance(ensemble, bool):
        return (kind.ensemble or DECAY) if ensemble else None
    if not isinstance(ensemble, int | float) or not math.isfinite(ensemble):
        raise UsageError(f"policy.ensemble must be a decay, true, false or null, got {ensemble!r}")
    return float(ensemble)


def head_options(
    settings: Mapping[str, Any], *, sizes: Mapping[str, Mapping[str, Any]], steps: int, codebook_share: float
) -> dict[str, Any]:
    """Further arguments of the head: its size from `sizes`, then `settings["head_options"]`.

    Args:
        settings: of the policy.
        sizes: arguments by the head's name.
        steps: of the training.
        codebook_share: of the steps that VQ-BeT gives to its codes before its GPT learns.

    Raises:
        UsageError: the share is not within (0, 1), or VQ-BeT's GPT would have no step.
    """
    head = str(settings["head"])
    options = {**sizes.get(head, {}), **(settings.get("head_options") or {})}
    if head == "vq_bet" and "codebook_steps" not in options:
        if not 0 < codebook_share < 1:
            raise UsageError(f"policy.codebook_share must be in (0, 1), got {codebook_share}")
        options["codebook_steps"] = max(1, int(codebook_share * steps))
    codes = options.get("codebook_steps")
    if head == "vq_bet" and isinstance(codes, int) and 0 < steps <= codes:
        raise UsageError(
            f"vq_bet learns its codes for {codes} steps before it learns to act, and "
            f"train.steps={steps}: train longer, or lower policy.head_options.codebook_steps"
        )
    return options


def build_neck(
    made: Assembly,
    *,
    feature_shape: Sequence[int],
    grid: tuple[int, int] | None,
    channels: int,
    bottleneck: int | None,
    text_width: int | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """The neck for features [B, T, *feature_shape] and instructions [B, text_width], if there are any.

    Raises:
        UsageError: it needs a grid of tokens, which the feature is not, or instructions, or has no such option.
    """
    width = int(feature_shape[-1])
    if not width and not reads_vectors(made.neck):
        raise UsageError(
            f"policy.neck={made.neck} looks at a picture's tokens, of which encoder=proprioception has none: choose "
            "policy.head=mlp, or policy.neck=pooled"
        )
    arguments: dict[str, Any] = {"width": width}
    if made.neck == "flare":
        arguments["width"] = width * int(feature_shape[0]) if len(feature_shape) == 2 else width
    elif not reads_vectors(made.neck) and len(feature_shape) != 2:
        raise UsageError(
            f"policy.neck={made.neck} needs tokens [N, D], got a feature of shape {tuple(feature_shape)}: leave "
            "policy.feature out, or choose policy.neck=pooled"
        )
    if made.neck in ("spatial", "spatial_softmax"):
        arguments["grid"] = grid
    if made.neck == "text_query":
        if text_width is None:
            raise UsageError(
                "policy.neck=text_query needs the instruction's embedding: set policy.instruction "
                "(embodied list text_encoders)"
            )
        arguments["text_width"] = text_width
    if made.neck == "spatial":
        arguments |= {"history": made.history, "channels": channels, "bottleneck": bottleneck}
    return _build(load_neck(made.neck), {**arguments, **options}, setting="policy.neck_options", name=made.neck)


def build_head(
    made: Assembly,
    *,
    feature_dim: int,
    moments: int,
    action_dim: int,
    hidden: Sequence[int],
    options: Mapping[str, Any],
) -> nn.Module:
    """The head for `moments` moments of `feature_dim` values.

    Raises:
        UsageError: it has no such option, or a number makes no sense.
    """
    arguments: dict[str, Any] = {
        "feature_dim": feature_dim,
        "history": moments,
        "horizon": made.chunk,
        "action_dim": action_dim,
    }
    if made.head == "mlp":
        arguments |= {"hidden": tuple(hidden), "batch_norm": True}  # VC-1's
    head = cast(type[nn.Module], load_head(made.head))
    return _build(head, {**arguments, **options}, setting="policy.head_options", name=made.head)


def _build(factory: type[nn.Module], arguments: Mapping[str, Any], *, setting: str, name: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element")  # what is empty is refused below
            built = factory(**arguments)
    except UsageError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # what torch says of impossible sizes
        raise UsageError(f"{setting} of {name}: {str(error).splitlines()[0]}") from error
    if empty := [part for part, weights in built.named_parameters() if not weights.numel()]:
        raise UsageError(f"{setting} of {name}: sizes must be at least 1, and {empty[0]} would be empty")
    return built
