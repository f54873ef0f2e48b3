"""The network of RPT: tokens of cameras, proprioception and actions, of which some are hidden.

Legend: B batch, T steps, K cameras, V values of an image latent, P proprioception, A action, M modalities, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE, image_key
from embodied.models.sequence.layout import Layout
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.stems import LinearStem
from embodied.models.sequence.times import TimeEmbedding
from embodied.models.sequence.trunk import Trunk

IMAGES = "images"  # what all cameras share: a stem, and in objectives an output
SMALLEST_STD = 1e-4  # a dimension that varies less keeps its scale: dividing by it would blow up noise


class SensorimotorTransformer(SequenceNetwork):
    """Each step is a token per camera, one of proprioception, one of the action; attention goes both ways.

    Values are standardised by statistics that travel in buffers, embedded by one linear layer per modality (cameras
    share theirs), get their step's time, which all tokens of the step share, and pass pre-norm blocks. A hidden token
    is replaced by a learned one before the time is added: one per camera, proprioception and action, the same at all
    steps. Whatever is not there (no such sensor, before the episode began) is hidden too.

    Source: Radosavovic et al. 2023 (https://arxiv.org/abs/2306.10007), Sec. 3. It leaves open how values are scaled
    and whether views share a mask token: here every dimension is standardised, and each view has a token of its own,
    since they could not be told apart otherwise.

    Args:
        cameras: names of the views.
        latent_dim: V.
        state_dim: P; 0: none.
        action_dim: A; 0: there are no actions in the data, and nothing but a mask token stands for one.
        context: T at most.
        width, depth, heads, mlp_ratio: of the blocks.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        latent_dim: int,
        state_dim: int,
        action_dim: int,
        context: int = 16,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        if len(set(cameras)) < len(cameras) or not cameras:
            raise UsageError(f"cameras: expected different names, at least one, got {list(cameras)}")
        if context < 1:
            raise UsageError(f"context must be at least 1, got {context}")
        self.cameras, self.context, self.width = tuple(cameras), context, width
        self.sizes = {image_key(camera): latent_dim for camera in cameras}
        self.sizes |= {STATE: state_dim} if state_dim else {}
        self.sizes[ACTION] = action_dim
        self._arguments: dict[str, Any] = {
            "cameras": list(cameras),
            "latent_dim": latent_dim,
            "state_dim": state_dim,
            "action_dim": action_dim,
            "context": context,
            "width": width,
            "depth": depth,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
        }
        self.stems = nn.ModuleDict({kind: LinearStem(size, width) for kind, size in self.kinds.items()})
        self.mask_tokens = nn.Parameter(torch.randn(len(self.sizes), width) * 0.02)  # in the order of `sizes`
        self.times = TimeEmbedding(context, width)
        self.trunk = Trunk(width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
        self.layout = Layout(dict.fromkeys(self.sizes, 1))
        for name, size in self.sizes.items():
            self.register_buffer(_buffer("mean", name), torch.zeros(size))
            self.register_buffer(_buffer("std", name), torch.ones(size))

    @property
    def kinds(self) -> dict[str, int]:
        """How many values each kind of modality has, those without any left out: `images`, `state`, `action`."""
        return {kind_of(name): size for name, size in self.sizes.items() if size}

    def fit(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take mean and standard deviation of every modality that has values, of the training data.

        Raises:
            UsageError: one is missing or has another size.
        """
        for name, size in self.sizes.items():
            if not size:
                continue
            if name not in statistics or statistics[name][0].shape != (size,):
                found = "none" if name not in statistics else list(statistics[name][0].shape)
                raise UsageError(f"statistics of {name}: expected mean and deviation of {size} values, got {found}")
            mean, std = statistics[name]
            self.get_buffer(_buffer("mean", name)).copy_(mean)
            self.get_buffer(_buffer("std", name)).copy_(torch.where(std > SMALLEST_STD, std, torch.ones_like(std)))

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """What the network sees of a modality, and predicts; raises UsageError for another number of values."""
        if values.shape[-1] != self.sizes[name]:
            raise UsageError(f"{name}: expected {self.sizes[name]} values per step, got {values.shape[-1]}")
        return (values - self.get_buffer(_buffer("mean", name))) / self.get_buffer(_buffer("std", name))

    def forward(
        self, values: Mapping[str, Float[Tensor, "B T _"]], hidden: Mapping[str, Bool[Tensor, "B T"]]
    ) -> dict[str, Float[Tensor, "B T D"]]:
        """The tokens of every modality after the last block, by key.

        Args:
            values: normalised; keys that are missing altogether are hidden.
            hidden: of every modality, True = the mask token stands for it. What is hidden may hold anything, not a
                number included.
        """
        split = self.layout.split(self.trunk(self._tokens(values, hidden)))
        return {name: part[:, :, 0] for name, part in split.items()}

    def present(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Tensor:
        """The last token of the last step, which is the action's, [B, 1, D]; arguments as of `forward`."""
        return self.trunk.last(self._tokens(values, hidden))

    def _tokens(self, values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]) -> Float[Tensor, "B L D"]:
        """What goes into the trunk."""
        parts = {}
        for index, name in enumerate(self.sizes):
            mask = self.mask_tokens[index]
            if name not in values or not self.sizes[name]:
                parts[name] = mask.expand(*hidden[name].shape, -1)[:, :, None]
                continue
            away = hidden[name][..., None]
            # Zeros, not just unused: nan times a gradient of zero would be nan in the stem's weights.
            stem = self.stems[kind_of(name)]
            tokens = stem(torch.where(away, torch.zeros_like(values[name]), values[name]))
            parts[name] = torch.where(away[..., None], mask.to(tokens.dtype), tokens)
        return self.layout.interleave({name: self.times(part) for name, part in parts.items()})

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return dict(self._arguments)


def kind_of(name: str) -> str:
    """`images`, `state` or `action`, by a key of the data."""
    return {STATE: "state", ACTION: "action"}.get(name, IMAGES)


def _buffer(kind: str, name: str) -> str:
    return f"{kind}_{name.replace('.', '_')}"
