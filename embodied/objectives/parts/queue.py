"""Memory of earlier batches, and the head that fills it. Legend: B samples, D width, H hidden, E outputs, Q size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.models.block import initialize
from embodied.objectives.parts.distributed import gather_from_processes
from embodied.objectives.parts.settings import at_least

NOBODY = -1  # the label of a row that no image has filled yet


class Queue(nn.Module):
    """Vectors of length 1 of earlier steps, the oldest replaced first; at the start they are random (MoCo).

    Args:
        size: Q.
        width: E.
        labelled: each has a class too, in `labels` int64 [Q]; `NOBODY` at the start.
    """

    def __init__(self, size: int, width: int, *, labelled: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise UsageError(f"queue must be at least 1, got {size}")
        self.value: Tensor
        self.place: Tensor
        self.register_buffer("value", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("place", torch.tensor(0))
        self.labels: Tensor | None
        self.register_buffer("labels", torch.full((size,), NOBODY) if labelled else None)
        self._pending: list[Tensor] = []
        self._pending_labels: list[Tensor] = []

    def note(self, vectors: Float[Tensor, "B E"], labels: Int[Tensor, " B"] | None = None) -> None:
        """Keep vectors of length 1, and their classes where it is labelled, for `update`; not in eval mode."""
        assert (labels is None) == (self.labels is None), "classes come with a labelled queue"
        if self.training:
            self._pending.append(vectors.detach().float())
            if labels is not None:
                self._pending_labels.append(labels)

    @torch.no_grad()
    def update(self) -> None:
        """Put in what all parts of the batch and all processes noted in this step, in the order of the parts."""
        if not self._pending:
            return
        size = len(self.value)
        new = _of_all_processes(self._pending)[-size:]
        index = (self.place + torch.arange(len(new), device=new.device)) % size
        self.value[index] = new
        if self.labels is not None:
            self.labels[index] = _of_all_processes(self._pending_labels)[-size:]
        self._pending, self._pending_labels = [], []
        self.place.copy_((self.place + len(new)) % size)


def _of_all_processes(parts: list[Tensor]) -> Tensor:
    return torch.cat([share for part in parts for share in gather_from_processes(part)])


class ContrastHead(nn.Module):
    """Linear, ReLU, Linear, and length 1: MoCo v2's projector (arXiv 2003.04297), on single tokens too.

    Args:
        inputs: D.
        hidden: H; MoCo v2's 2048 goes with a ResNet-50.
        outputs: E.
    """

    def __init__(self, *, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        at_least(1, hidden=hidden, outputs=outputs)
        self.mlp = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        initialize(self.mlp)

    def forward(self, features: Float[Tensor, "B ... D"]) -> Float[Tensor, "B ... E"]:
        return F.normalize(self.mlp(features).float(), dim=-1)
