"""What policies and encoders ask of a network that reads windows, whoever's it is.

Legend: B batch, T steps, N tokens of a step, V values, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from embodied.core.protocols import ACTION


class SequenceNetwork(nn.Module, ABC):
    """A network of windows; its `forward` gives by the key `action` [B, T or 1, D], of which the last is the present.

    Attributes:
        cameras: names of the views.
        context: T at most.
        width: D.
        sizes: V of every key that it reads; `action` is among them, with 0 where actions are not read.
    """

    cameras: tuple[str, ...]
    context: int
    width: int
    sizes: dict[str, int]

    @abstractmethod
    def normalize(self, name: str, values: Tensor) -> Tensor:
        """What it sees of a key of the data."""

    def present(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Tensor:
        """The feature of the last step, [B, 1, D]; arguments as of `forward`."""
        found: Mapping[str, Tensor] = self(values, hidden)
        return found[ACTION][:, -1:]

    def present_tokens(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Tensor:
        """What the feature of the last step is made of, [B, N, D]; by default it alone."""
        return self.present(values, hidden)

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
