"""Telling tables of positions apart."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from embodied.models.positions import sincos_2d
from embodied.models.vit import grid_of

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of a table that is MAE's, after it went through a file of float32


def table_kind(table: Tensor, arguments: dict[str, Any]) -> str:
    """Which `positions` a table [C + N, D] stands for: MAE's fixed ones, none where it is zero, else learned."""
    if not table.any():
        log.warning("the position table of these weights is all zeros: the encoder gets no positions")
        return "none"
    grid = grid_of(arguments["image_size"], arguments["patch_size"])
    leading = arguments.get("class_tokens", 1)
    if arguments["width"] % 4 == 0 and len(table) == leading + grid[0] * grid[1]:
        fixed = sincos_2d(arguments["width"], *grid, class_token=leading)
        if torch.allclose(table.detach().float().cpu(), fixed, atol=TOLERANCE):
            return "sincos"
    return "learned"
