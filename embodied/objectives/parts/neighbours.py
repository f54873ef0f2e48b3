"""Classes by the nearest neighbours. Legend: B queries, Q remembered features, M = B + Q, E outputs, C classes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.objectives.parts.queue import NOBODY

_FAR = -1e9  # a logit whose weight is zero, and whose difference to another such is finite


def neighbour_error(
    queries: Float[Tensor, "B E"],
    labels: Int[Tensor, " B"],
    bank: Float[Tensor, "Q E"],
    bank_labels: Int[Tensor, " Q"],
    *,
    neighbours: int,
    temperature: float,
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"], Float[Tensor, "B M"]]:
    """The leave-one-out loss of a weighted kNN classifier: minus the log of the share of the weight that a query's k
    nearest give to its class, the weight of a neighbour being exp(cosine / temperature) (LOOK).

    Neighbours are looked for among the other queries, which get gradients, and in the bank. Where none of the k has the
    query's class, the nearest that has it is taken as one more neighbour, which keeps the loss finite; with k of at
    least M - 1 the loss is that of neighbourhood component analysis.

    Args:
        queries: of length 1.
        labels: their classes.
        bank: of length 1.
        bank_labels: classes, or `NOBODY` for rows that are no neighbour of anything.
        neighbours: k.
        temperature: cosines are divided by.

    Returns:
        The loss of each query, 0 where nothing else has its class; whether something has; and the weights of the k
        nearest (without that one more), queries first, summing to 1 in each row that has any.
    """
    batch = len(queries)
    everyone, classes = torch.cat([queries, bank]).float(), torch.cat([labels, bank_labels])
    with torch.autocast(queries.device.type, enabled=False):  # who is nearest must not depend on rounding
        logits = queries.float() @ everyone.T / temperature  # (B, M)
    usable = (classes != NOBODY).repeat(batch, 1)
    usable[:, :batch].fill_diagonal_(False)
    with torch.no_grad():
        reach = logits.masked_fill(~usable, -torch.inf)
        nearest = torch.zeros_like(usable).scatter_(1, reach.topk(min(neighbours, reach.shape[1])).indices, True)
        nearest &= usable
        same = usable & (labels[:, None] == classes)
        found = same.any(dim=1)
        closest = torch.zeros_like(usable).scatter_(1, reach.masked_fill(~same, -torch.inf).argmax(1, True), True)
        lacking = found & ~(nearest & same).any(dim=1)
        taken = nearest | (closest & lacking[:, None])
        agreeing = torch.where(found[:, None], taken & same, taken)
    error = _log_weight(logits, taken) - _log_weight(logits, agreeing)
    votes = logits.detach().masked_fill(~nearest, _FAR).softmax(dim=1) * nearest
    return error, found, votes


def voted_classes(votes: Float[Tensor, "B M"], labels: Int[Tensor, " M"], classes: int) -> Int[Tensor, " B"]:
    """The class with most of the weight: int64 [B].

    Args:
        votes: weights of the neighbours, 0 for all others.
        labels: of all that may be neighbours; `NOBODY` where the weight is 0.
        classes: C.
    """
    totals = votes.new_zeros(len(votes), classes)
    return totals.index_add_(1, labels.clamp(min=0), votes).argmax(dim=1)


def _log_weight(logits: Tensor, chosen: Tensor) -> Tensor:
    return logits.masked_fill(~chosen, _FAR).logsumexp(dim=1)
