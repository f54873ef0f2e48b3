"""Windows of a volume of tokens, in which attention stays.

Legend: B batch, T frames, H, W rows and columns of a frame's tokens, D width; t, h, w the same of a window.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from embodied.core.errors import UsageError

Size = tuple[int, int, int]  # frames, rows, columns


def split_windows(volume: Float[Tensor, "B T H W D"], window: Size) -> Float[Tensor, "BM S D"]:
    """Every window a sequence of its own, S = t * h * w tokens frame by frame; the windows of a sample in raster order.

    Raises:
        UsageError: the window does not divide the volume.
    """
    frames, rows, columns = _counts((volume.shape[1], volume.shape[2], volume.shape[3]), window)
    return rearrange(
        volume,
        "b (tn t) (hn h) (wn w) d -> (b tn hn wn) (t h w) d",
        tn=frames,
        hn=rows,
        wn=columns,
    )


def merge_windows(windows: Float[Tensor, "BM S D"], window: Size, size: Size) -> Float[Tensor, "B T H W D"]:
    """The inverse of `split_windows`.

    Args:
        windows: what it gave.
        window: as given to it.
        size: T, H and W of the volume.

    Raises:
        UsageError: the window does not divide the volume.
    """
    frames, rows, columns = _counts(size, window)
    return rearrange(
        windows,
        "(b tn hn wn) (t h w) d -> b (tn t) (hn h) (wn w) d",
        tn=frames,
        hn=rows,
        wn=columns,
        t=window[0],
        h=window[1],
        w=window[2],
    )


def window_mask(size: Size, window: Size, *, device: torch.device | None = None) -> Bool[Tensor, "L L"]:
    """True = both tokens lie in one window: with it full attention over L = T * H * W gives what windows give.

    For comparison: windows themselves need no mask, and a memory that grows with T, not with its square.

    Raises:
        UsageError: the window does not divide the volume.
    """
    _counts(size, window)
    places = torch.cartesian_prod(*(torch.arange(count, device=device) for count in size))  # (L, 3)
    number = torch.div(places, torch.tensor(window, device=device), rounding_mode="floor")
    return (number[:, None] == number[None]).all(dim=-1)


def _counts(size: Size, window: Size) -> Size:
    """How many windows there are along each axis."""
    if min(window) < 1 or any(whole % part for whole, part in zip(size, window, strict=True)):
        raise UsageError(
            f"window must divide the {size[0]} frames of {size[1]} x {size[2]} tokens, got {window[0]} of "
            f"{window[1]} x {window[2]}"
        )
    return (size[0] // window[0], size[1] // window[1], size[2] // window[2])
