"""The network of an iterative head by its name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from embodied.core.errors import unknown_name
from embodied.core.protocols import ActionHead
from embodied.policies.heads.networks.denoising_transformer import DenoisingTransformer
from embodied.policies.heads.networks.time_embedding import LevelEmbedding, TimeEmbedding
from embodied.policies.heads.networks.unet import UNet

Network = Literal["unet", "transformer"]
NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "transformer": DenoisingTransformer}
SMALL_UNET: dict[str, Any] = {"channels": (64, 128, 256), "time_width": 64}  # for CPUs
SHAPES = ("feature_dim", "history", "horizon", "action_dim", "embedding")


def build_denoiser(
    network: str,
    options: Mapping[str, Any] | None,
    *,
    head: ActionHead,
    embedding: type[LevelEmbedding | TimeEmbedding],
) -> nn.Module:
    """`forward(actions [B, H, A], time [B], features [B, T, V]) -> [B, H, A]`.

    Args:
        options: further arguments of `UNet` or `DenoisingTransformer`.
        head: whose sizes it has.

    Raises:
        UsageError: there is no such network, or it has no such option.
    """
    if network not in NETWORKS:
        raise unknown_name("network", network, NETWORKS)
    kind = NETWORKS[network]
    known = [name for name in inspect.signature(kind).parameters if name not in SHAPES]
    for name in options or {}:
        if name not in known:
            raise unknown_name(f"option of network={network}", name, known)
    return kind(
        feature_dim=head.feature_dim,
        history=head.history,
        horizon=head.horizon,
        action_dim=head.action_dim,
        embedding=embedding,
        **(options or {}),
    )
