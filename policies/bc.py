"""Behaviour cloning on the features of an encoder.

Legend: B batch, T frames of history, N tokens, D width, V vector width, P proprioception, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, ENVIRONMENT_STATE, FEATURES, INPUTS, STATE, image_key
from embodied.policies.heads.mlp import BatchNormMLP
from embodied.policies.necks.flare import flare
from embodied.policies.necks.spatial import ConvNeck

HEADS = {
    "mlp": "VC-1 head: pooled feature, frame differences, input BatchNorm, MLP 256x3",
    "conv": "Theia head: token grid, three convolutions, BatchNorm MLP",
}


class BCPolicy(nn.Module):
    """Mean-squared-error behaviour cloning (CortexBench protocol) from an encoder's features and proprioception.

    The encoder is part of the policy: `act` takes raw observations. Its weights are saved with the policy only when it
    is trainable (`encoder.trainable`); a frozen one is named by its fingerprint in the policy artifact.

    Args:
        encoder: see `core.protocols.Encoder`; a frozen one must be frozen by the caller.
        camera: which frames an image encoder reads.
        proprioception_dim: P, 0 to ignore `observation.state`.
        action_dim: A.
        head: see `HEADS`.
        feature: the encoder output to use; None takes `pooled` for `mlp` and `tokens` for `conv`.
        history: T, at least 1; at the start of an episode the first frame is repeated.
        hidden: widths of the MLP.
        channels, bottleneck: see `ConvNeck`.
        feature_shape: shape of one frame's feature, [V] or [N, D].
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        camera: str,
        proprioception_dim: int,
        action_dim: int,
        feature_shape: Sequence[int],
        head: Literal["mlp", "conv"] = "mlp",
        feature: str | None = None,
        history: int = 3,
        hidden: Sequence[int] = (256, 256, 256),
        channels: int = 256,
        bottleneck: int | None = 64,
    ) -> None:
        super().__init__()
        if history < 1:
            raise UsageError(f"policy.history must be at least 1, got {history}")
        self.encoder = encoder
        self.camera = camera
        self.history = history
        self.proprioception_dim = proprioception_dim
        self.action_dim = action_dim
        self.feature = feature or feature_name(head)
        self.feature_shape = tuple(feature_shape)
        self.trainable_encoder = bool(getattr(encoder, "trainable", False))
        self.neck: nn.Module | None = None
        if head == "conv":
            if len(self.feature_shape) != 2:
                raise UsageError(f"policy.head=conv needs tokens [N, D], got a feature of shape {self.feature_shape}")
            grid: Any = encoder.grid
            self.neck = ConvNeck(grid, self.feature_shape[1], frames=history, channels=channels, bottleneck=bottleneck)
            fused = self.neck.output_dim
        else:
            fused = history * int(torch.tensor(self.feature_shape).prod())
        self.head = BatchNormMLP(fused + proprioception_dim, action_dim, hidden=hidden)
        self.action_mean: Tensor
        self.action_std: Tensor
        self.register_buffer("action_mean", torch.zeros(action_dim))
        self.register_buffer("action_std", torch.ones(action_dim))
        self.feature_scale: Tensor  # of frame differences, and of frames
        self.register_buffer("feature_scale", torch.ones(2))

    def set_action_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Normalise actions by these (float [A]); a constant action keeps its scale."""
        self.action_mean.copy_(mean)
        self.action_std.copy_(torch.where(std > 1e-4, std, torch.ones_like(std)))

    def set_feature_scale(self, difference: Tensor, present: Tensor) -> None:
        """Multiply frame differences and features by these (float scalars), see `feature_scales`."""
        self.feature_scale.copy_(torch.stack([difference, present]))

    def encode(self, inputs: Tensor) -> Tensor:
        """Raw frames uint8 [B, H, W, 3] (states float [B, S]) to one feature per frame, [B, *feature_shape]."""
        tokens, out = self.encoder(self.encoder.preprocess(inputs))  # type: ignore[operator]
        return tokens if self.feature == "tokens" else out[self.feature]

    def predict(self, features: Tensor, proprioception: Tensor | None) -> Tensor:
        """Normalised action [B, A] from features [B, T, *feature_shape] and proprioception [B, P], if there is any."""
        if self.neck is not None:
            fused = self.neck(features * self.feature_scale[1])
        else:
            fused = self.scale(flare(features.flatten(2)))
        if self.proprioception_dim:
            assert proprioception is not None
            fused = torch.cat([fused, proprioception], dim=1)
        return self.head(fused)

    def scale(self, fused: Tensor) -> Tensor:
        """`flare`'s output [B, T * V] with its two parts scaled."""
        present = fused.shape[1] // self.history
        parts = fused.split([fused.shape[1] - present, present], dim=1)
        return torch.cat([part * scale for part, scale in zip(parts, self.feature_scale, strict=True)], dim=1)

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the normalised action.

        Args:
            batch: `features` [B, T, ...] or, for a trainable encoder, `inputs` uint8 [B, T, H, W, 3];
                `observation.state` [B, P]; `action` [B, A].
            generator: randomness of the trainable encoder's augmentation.
        """
        if self.trainable_encoder:
            inputs = batch[INPUTS]
            augment = getattr(self.encoder, "augment", None)
            if augment is not None:
                inputs = augment(inputs, generator)
            features = self.encode(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])  # (B, T, ...)
        else:
            features = batch[FEATURES]
        target = (batch[ACTION] - self.action_mean) / self.action_std
        prediction = self.predict(features, batch.get(STATE))
        loss = F.mse_loss(prediction, target)
        error = (prediction.detach() - target).mul(self.action_std).abs().mean()
        return loss, {"action_error": error}

    def initial(self, batch_size: int) -> dict[str, Tensor]:
        """`started` bool [B] and `features` [B, T-1, ...]: the frames before the present one, oldest first."""
        device = self.action_mean.device
        return {
            "started": torch.zeros(batch_size, dtype=torch.bool, device=device),
            "features": torch.zeros(batch_size, self.history - 1, *self.feature_shape, device=device),
        }

    @torch.inference_mode()
    def act(self, carry: dict[str, Tensor], observation: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """One action per episode, as a chunk [B, 1, A] in the environment's units (not clipped to its bounds)."""
        modality = getattr(self.encoder, "modality", "image")
        key = image_key(self.camera) if modality == "image" else ENVIRONMENT_STATE
        present = self.encode(observation[key])[:, None]  # (B, 1, ...)
        started = carry["started"].view(-1, *[1] * (present.ndim - 1))
        past = torch.where(started, carry["features"], present.expand_as(carry["features"]))
        window = torch.cat([past, present], dim=1)  # (B, T, ...)
        action = self.predict(window, observation.get(STATE)) * self.action_std + self.action_mean
        carry = {"started": torch.ones_like(carry["started"]), "features": window[:, 1:]}
        return carry, action[:, None]

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but a frozen encoder."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if self.trainable_encoder or not name.startswith("encoder.")
        }

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_tensors`; a checkpoint of another policy is refused."""
        expected = self.trained_tensors()
        if missing := sorted(expected.keys() ^ tensors.keys()):
            raise UsageError(f"the checkpoint belongs to another policy: it differs in {', '.join(missing[:5])}")
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                raise UsageError(
                    f"the checkpoint belongs to another policy: {name} is {tuple(tensor.shape)}, "
                    f"expected {tuple(expected[name].shape)}"
                )
        self.load_state_dict(dict(tensors), strict=False)


def feature_scales(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Factors that bring frame differences and features to unit variance on average, for `set_feature_scale`.

    The input BatchNorm adds 1e-5 to every variance, CortexBench's default. Frame differences of a smooth encoder vary
    less than that and would vanish; one factor for all dimensions keeps their proportions, and dead ones dead.

    Args:
        windows: float [B, T, ...], a sample of training windows.

    Returns:
        Scalars: one over the root mean square difference (1 where there is none), one over the standard deviation.
    """
    difference = (windows[:, 1:] - windows[:, :-1]).square().mean().sqrt() if windows.shape[1] > 1 else torch.zeros(())
    deviation = (windows[:, -1] - windows[:, -1].mean(dim=0)).square().mean().sqrt()
    factors = [torch.where(value > 1e-8, 1 / value, torch.ones(())) for value in (difference, deviation)]
    return factors[0], factors[1]


def feature_name(head: str) -> str:
    """The encoder output a head reads by default."""
    return "tokens" if head == "conv" else "pooled"
