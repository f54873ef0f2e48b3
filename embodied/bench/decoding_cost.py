"""What it costs a masked model of videos to find a clip's codes, in a few passes and one by one; what actions tell it.

Legend: B clips, T frames, N codes of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from embodied.bench.statistics.student import student_interval
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.core.seeding import torch_generator
from embodied.models.sequence.mask_decoding import Decoded
from embodied.objectives.video.maskvit import CODES, MaskViT

ROWS = 16  # clips predicted at once


@torch.no_grad()
def decoding_costs(objective: MaskViT, batch: Mapping[str, Tensor], *, rounds: int, seed: int = 0) -> dict[str, float]:
    """Both ways, of the same model from the same context to as many codes.

    Args:
        objective: in eval mode, on its device.
        batch: B clips as of `MaskViT.forward`, the true codes [B, T, N] among them.
        rounds: of which each times both, one after the other; at least one.
        seed: of what is drawn.

    Returns:
        `passes` and `seconds`, and with `_one_by_one` behind them those of the other way; `times_fewer_passes`, which
        is counted and so its own interval; `times_faster`, the median over rounds; both with `_low` and `_high`, of
        `times_faster` the smallest and the largest of a round. `right`, the share of codes after the context that are
        the truth's, and `right_one_by_one`.
    """
    true, blind = batch[CODES], _blinded(objective, batch)

    def iterative() -> Decoded:
        return objective.predict_counted(blind, generator=torch_generator(seed, "decoding"))

    def one_by_one() -> Decoded:
        return objective.predict_counted(blind, one_by_one=True)

    iterative()  # warm
    times = [(_timed(iterative, true.device), _timed(one_by_one, true.device)) for _ in range(rounds)]
    found, other = iterative(), one_by_one()
    ratios = [slow / fast for fast, slow in times]
    fewer = other.passes / found.passes
    later = true[:, objective.context :]
    return {
        "passes": float(found.passes),
        "passes_one_by_one": float(other.passes),
        "seconds": median(fast for fast, _ in times),
        "seconds_one_by_one": median(slow for _, slow in times),
        **_with_interval("times_fewer_passes", fewer, fewer, fewer),
        **_with_interval("times_faster", median(ratios), min(ratios), max(ratios)),
        "right": float((found.codes[:, objective.context :] == later).float().mean()),
        "right_one_by_one": float((other.codes[:, objective.context :] == later).float().mean()),
    }


@torch.no_grad()
def action_use(objective: MaskViT, batch: Mapping[str, Tensor]) -> dict[str, float]:
    """How much a model's predictions owe to actions: a planner cannot choose with one that ignores them.

    Args:
        objective: in eval mode, on its device.
        batch: B clips as of `MaskViT.forward`, in the order of their episodes, the true codes [B, T, N] among them.

    Returns:
        The share of codes after the context that are the truth's, `right_true` with the clips' own actions and
        `right_shuffled` with those of the clip a quarter of all further on; `actions_help`, the mean difference over
        clips, with Student's interval `_low` and `_high`, which takes clips as independent. Nothing where the model
        reads no actions or there are too few clips.
    """
    true = batch[CODES]
    if not objective.network.sizes[ACTION] or ACTION not in batch or len(true) < 4:
        return {}
    acted = [key for key in (ACTION, ACTION + PAD_SUFFIX) if key in batch]
    own = _blinded(objective, batch)
    others = {**own, **{key: batch[key].roll(len(true) // 4, dims=0) for key in acted}}
    right = []
    for told in (own, others):
        parts = [{key: each[start : start + ROWS] for key, each in told.items()} for start in range(0, len(true), ROWS)]
        found = torch.cat([objective.predict(part) for part in parts])[:, objective.context :]
        right.append((found == true[:, objective.context :]).float().mean(dim=(1, 2)).double().cpu().numpy())  # (B,)
    return {
        "right_true": float(right[0].mean()),
        "right_shuffled": float(right[1].mean()),
        **_with_interval("actions_help", *student_interval([right[0] - right[1]])),
    }


def _blinded(objective: MaskViT, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The clips without the codes after the context: whatever a model does, it cannot look."""
    codes = batch[CODES].clone()
    codes[:, objective.context :] = 0
    return {**batch, CODES: codes}


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _timed(action: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter() - start
