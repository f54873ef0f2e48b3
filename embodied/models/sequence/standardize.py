"""Values by their mean and standard deviation, which travel with the network. Legend: V values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.models.sequence.sensorimotor import SMALLEST_STD


class Standardize(nn.Module):
    """(values - mean) / deviation per dimension; one that next to never varies keeps its scale.

    Args:
        size: V.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, name: str, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take mean and deviation [V] by the key of the data.

        Raises:
            UsageError: they are missing or have another size.
        """
        if name not in statistics or statistics[name][0].shape != self.mean.shape:
            found = "none" if name not in statistics else list(statistics[name][0].shape)
            raise UsageError(
                f"statistics of {name}: expected mean and deviation of {len(self.mean)} values, got {found}"
            )
        mean, std = statistics[name]
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > SMALLEST_STD, std, torch.ones_like(std)))

    def forward(self, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        return (values - self.mean) / self.std
