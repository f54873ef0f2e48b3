"""Who may look at whom in a sequence of tokens of several kinds and times. Legend: L tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError, unknown_name

Rule = Literal["full", "causal", "hidden_queries", "frame_causal", "prefix", "spatial", "temporal"]
RULES: tuple[Rule, ...] = get_args(Rule)


def mask_from_groups(group_ids: Int[Tensor, " L"], time_ids: Int[Tensor, " L"], rule: Rule) -> Bool[Tensor, "L L"]:
    """True = the token of the row may look at the one of the column, as `models.block.Block` takes its mask.

    | rule | a token looks at | of |
    | --- | --- | --- |
    | `full` | all | RPT, HPT |
    | `causal` | itself and what stands before it in the sequence | Toto, GPT |
    | `hidden_queries` | what stands before it (itself too) and is no query; a query is a token of a negative group, \
which nobody sees, itself included | GR-1 (arXiv 2312.13139) |
    | `frame_causal` | all tokens of its own and of earlier times | V-JEPA 2-AC |
    | `prefix` | all tokens of its own and of lower groups: group 0 is the prefix, each further group a block | pi0 |
    | `spatial` | all tokens of its own time | 1xgpt's layers in space |
    | `temporal` | tokens of its own group, of its own and of earlier times | 1xgpt's layers in time |

    Args:
        group_ids: what kind of token each is; what the numbers mean is up to the rule.
        time_ids: of which step each is.
        rule: see above.

    Raises:
        UsageError: there is no such rule, the ids do not fit each other, or a token would see nothing.
    """
    if rule not in RULES:
        raise unknown_name("rule of attention", str(rule), RULES)
    if group_ids.ndim != 1 or group_ids.shape != time_ids.shape:
        raise UsageError(
            f"group_ids and time_ids: expected one number per token each, got {tuple(group_ids.shape)} and "
            f"{tuple(time_ids.shape)}"
        )
    mask = _RULES[rule](group_ids, time_ids)
    blind = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if blind:
        raise UsageError(f"rule {rule!r}: token {blind[0]} would see nothing, since only queries stand before it")
    return mask


def additive(mask: Bool[Tensor, "*mask"], *, like: Tensor) -> Float[Tensor, "*mask"]:
    """0 where the mask is true, minus infinity elsewhere, in the type of `like`.

    It is what attention makes of a mask that is true or false, in every block anew; so it is made once for all.
    """
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, -torch.inf)


def _causal(groups: Tensor, times: Tensor) -> Tensor:
    place = torch.arange(len(groups), device=groups.device)
    return place[None, :] <= place[:, None]


_RULES: dict[Rule, Callable[[Tensor, Tensor], Tensor]] = {
    "full": lambda groups, times: torch.ones(len(groups), len(groups), dtype=torch.bool, device=groups.device),
    "causal": _causal,
    "hidden_queries": lambda groups, times: _causal(groups, times) & (groups >= 0)[None, :],
    "frame_causal": lambda groups, times: times[None, :] <= times[:, None],
    "prefix": lambda groups, times: groups[None, :] <= groups[:, None],
    "spatial": lambda groups, times: times[None, :] == times[:, None],
    "temporal": lambda groups, times: (groups[None, :] == groups[:, None]) & (times[None, :] <= times[:, None]),
}
