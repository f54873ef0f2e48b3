"""VQ-GAN's convolutional networks: images to a coarse map, and such a map to images.

Legend: B batch, S image size, F down-sampling factor, h, w = S / F rows and columns, D width, C channels of a level.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError

GROUP = 8  # channels, at least, that are normalised together; VQ-GAN has 32 groups, which narrow nets cannot


class ResidualConv(nn.Module):
    """Two times norm, SiLU, 3 x 3 convolution, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Float[Tensor, "B C1 h w"]) -> Float[Tensor, "B C2 h w"]:
        inner = self.conv1(F.silu(self.norm1(maps)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return self.shortcut(maps) + inner


class PlaceAttention(nn.Module):
    """Attention of one head between all places of a map, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        parts = self.query_key_value(self.norm(maps)).flatten(2).transpose(1, 2)  # (B, h*w, 3*C)
        query, key, value = parts[:, None].chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(query, key, value)[:, 0].transpose(1, 2)
        return maps + self.project(seen.unflatten(2, maps.shape[2:]))


class PyramidDown(nn.Module):
    """Images to one vector per F x F pixels (Esser et al. 2021, https://arxiv.org/abs/2012.09841, Table 7).

    A level has `depth` residual blocks and halves the sides; then a block, attention and a block at the coarsest.
    Departures, for processors without a GPU: attention is at the coarsest level alone, levels have as many channels as
    `widths_of` says, and with `stem` above 1 the first level sees pixels that were folded stem x stem into channels.

    Args:
        factor: F, a power of 2.
        width: D, channels of the coarsest level.
        depth: residual blocks of a level.
        stem: a power of 2, at most F.

    Raises:
        UsageError: a number makes no sense.
    """

    def __init__(self, *, factor: int, width: int, depth: int, stem: int = 1) -> None:
        super().__init__()
        widths = widths_of(factor, width, stem)
        if depth < 1:
            raise UsageError(f"depth must be at least 1, got {depth}")
        self.fold = nn.PixelUnshuffle(stem)
        self.first = nn.Conv2d(3 * stem**2, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for number, (here, after) in enumerate(zip(widths, [*widths[1:], width], strict=True)):
            layers += [ResidualConv(here, here) for _ in range(depth)]
            if number + 1 < len(widths):
                layers += [nn.Conv2d(here, after, 3, stride=2, padding=1)]
        self.levels = nn.Sequential(*layers, *middle(width))
        self.norm = group_norm(width)

    def forward(self, images: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, "B D h w"]:
        return F.silu(self.norm(self.levels(self.first(self.fold(images)))))


class PyramidUp(nn.Module):
    """The mirror image of `PyramidDown`: vectors of `inputs` values per place to images.

    A level is made finer by repeating every place and a 3 x 3 convolution, which leaves no chequers.

    Args:
        inputs: values of a place.
        factor, width, depth, stem: as there; one residual block more per level, as VQ-GAN has.
    """

    def __init__(self, *, inputs: int, factor: int, width: int, depth: int, stem: int = 1) -> None:
        super().__init__()
        widths = widths_of(factor, width, stem)[::-1]
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        layers: list[nn.Module] = []
        for number, here in enumerate(widths):
            layers += [ResidualConv(here, here) for _ in range(depth + 1)]
            if number + 1 < len(widths):
                layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(here, widths[number + 1], 3, padding=1)]
        self.levels = nn.Sequential(*middle(width), *layers)
        self.norm, self.last = group_norm(widths[-1]), nn.Conv2d(widths[-1], 3 * stem**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(stem)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 S1 S2"]:
        return self.unfold(self.last(F.silu(self.norm(self.levels(self.first(maps))))))


def widths_of(factor: int, width: int, stem: int) -> list[int]:
    """Channels of every level, the finest first: half as many from the coarsest on, but a quarter at least.

    Raises:
        UsageError: the numbers do not go together.
    """
    for name, value in (("factor", factor), ("stem", stem)):
        if value < 1 or value & (value - 1):
            raise UsageError(f"the {name} of a convolutional tokenizer must be a power of 2, got {value}")
    if stem > factor:
        raise UsageError(f"stem must be at most the down-sampling factor {factor}, got {stem}")
    if width < 4 * GROUP or width % (4 * GROUP):
        raise UsageError(f"width of a convolutional tokenizer must be a multiple of {4 * GROUP}, got {width}")
    levels = (factor // stem).bit_length()
    return [max(width >> (levels - 1 - number), width // 4) for number in range(levels)]


def middle(width: int) -> list[nn.Module]:
    """What is between the levels of an encoder and those of its decoder."""
    return [ResidualConv(width, width), PlaceAttention(width), ResidualConv(width, width)]


def group_norm(channels: int) -> nn.GroupNorm:
    """Over `GROUP` channels or more, in at most 32 groups."""
    return nn.GroupNorm(min(32, channels // GROUP), channels, eps=1e-6)
