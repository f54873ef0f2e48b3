"""Linear layers with an activation between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def feedforward(widths: Sequence[int], *, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths, input first; an activation between two layers and none at the end."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [activation(), nn.Linear(inputs, outputs)] if number else [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)
