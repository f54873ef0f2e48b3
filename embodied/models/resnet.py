"""Residual networks. Legend: B batch, S image size, W width of a stage, D width of the last map, N its cells."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import unknown_name

STAGE_WIDTHS = (64, 128, 256, 512)
# name: blocks per stage, and whether they are bottlenecks
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
EXPANSION = 4  # of a bottleneck's output over its width
REDUCTION = 32  # of an image's side by the whole network


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Residual(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3, 1x1; the stride is the 3x3's.

    Names of the parameters are those of the released weights of PyTorch, which R3M's are too.
    """

    def __init__(self, inputs: int, width: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * EXPANSION if bottleneck else width
        # Departure from the paper, as in everybody's weights ("v1.5"): a bottleneck strides in its 3x3, not its first.
        self.conv1 = _conv(inputs, width, 1 if bottleneck else 3, 1 if bottleneck else stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride if bottleneck else 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1) if bottleneck else None
        self.bn3 = nn.BatchNorm2d(outputs) if bottleneck else None
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, maps: Float[Tensor, "B I H1 W1"]) -> Float[Tensor, "B O H2 W2"]:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        if self.conv3 is not None and self.bn3 is not None:
            maps = self.bn3(self.conv3(F.relu(maps)))
        return F.relu(maps + shortcut)


class ResNet(nn.Module):
    """Deep residual learning (He et al. 2016, arXiv 1512.03385) without its classifier.

    Args:
        name: "resnet18", "resnet34" or "resnet50".

    Raises:
        UsageError: there is none of that name.
    """

    def __init__(self, name: str = "resnet18") -> None:
        super().__init__()
        if name not in RESNETS:
            raise unknown_name("residual network", name, RESNETS)
        counts, bottleneck = RESNETS[name]
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.width = 64
        stages = []
        for number, (width, count) in enumerate(zip(STAGE_WIDTHS, counts, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if number and not index else 1
                blocks.append(Residual(self.width, width, stride=stride, bottleneck=bottleneck))
                self.width = width * EXPANSION if bottleneck else width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, images: Float[Tensor, "B 3 S1 S2"], *, layers: bool = False
    ) -> tuple[Float[Tensor, "B N D"], dict[str, Tensor]]:
        """The cells of the last map in raster order, and `pooled` [B, D], their mean.

        Args:
            images: normalised; the map has ceil(S / 32) cells along a side.
            layers: also return the cells of every stage's map as `layer1` to `layer4`, each with its own N and D.
        """
        maps = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        out: dict[str, Tensor] = {}
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            maps = stage(maps)
            if layers:
                out[f"layer{number}"] = maps.flatten(2).transpose(1, 2)
        out["pooled"] = maps.mean(dim=(2, 3))
        return maps.flatten(2).transpose(1, 2), out


def map_side(size: int) -> int:
    """Cells along the side of the last map of an image of `size` pixels."""
    return -(-size // REDUCTION)
