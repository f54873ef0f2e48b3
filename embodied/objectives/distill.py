"""Distillation of features from any frozen encoder: cosines of the class token and of patches as Pixio's small models
are trained (Yang et al. 2025, https://github.com/facebookresearch/pixio), and CLIP-KD's feature distillation
(Yang et al. 2024, https://arxiv.org/abs/2307.12732).

Legend: B batch, N patches, D width of the student, E width of the teacher, V width of the teacher's global feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.models.block import initialize
from embodied.objectives.augment import random_resized_crop
from embodied.objectives.parts.decoders import global_feature
from embodied.objectives.parts.settings import area_range, at_least
from embodied.objectives.parts.teacher import feature_spread

TEACHER = "teacher."


class Distill(nn.Module):
    """Give the features that a frozen teacher gives of the same picture.

    Nothing is hidden from the student. Its class token (or pooled patches, where either has no class token) and its
    patches go through a projector to the teacher's width; the loss is one minus the cosine, half of it on the class
    token and half on the patches (Pixio). CLIP-KD's term, the squared error of L2-normalised global features, can be
    added or stand alone. Where the grids differ, the teacher's is resized to the student's, bilinearly.

    Departures: the teacher's features are those a controller gets, after its final norm, where Pixio's teacher skips
    it (`teacher=...@12` is the last of 12 layers before that norm, with a norm without weights). The global feature
    has a projector of its own, since it may have another width than the teacher's patches. The width between the
    projector's layers is our choice.

    The teacher is in neither the artifact nor the checkpoints, which hold its fingerprint: a run can only go on with
    the same one.

    Args:
        encoder: the student.
        teacher: what `load_encoder` takes (see `encoders.spec`), or the module; it must see pictures. It is frozen.
        cosine_weight: of Pixio's loss; 0: without it.
        feature_weight: of CLIP-KD's loss, whose mean over dimensions makes it small: its authors use 2000; 0: without.
        hidden: width between the projector's two layers; None: four times the student's.
        crop_scale: of the random resized crop, which student and teacher share.
        flip: mirror images. Departure: off, since a mirrored robot scene is another state.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        teacher: str | Path | nn.Module | None = None,
        cosine_weight: float = 1.0,
        feature_weight: float = 0.0,
        hidden: int | None = None,
        crop_scale: tuple[float, float] = (0.6, 1.0),
        flip: bool = False,
    ) -> None:
        super().__init__()
        if cosine_weight < 0 or feature_weight < 0 or cosine_weight + feature_weight == 0:
            raise UsageError(
                "cosine_weight and feature_weight must not be negative, and one of them positive, got "
                f"{cosine_weight} and {feature_weight}"
            )
        self.encoder, self.teacher = encoder, _frozen(teacher)
        self.cosine_weight, self.feature_weight = cosine_weight, feature_weight
        self.crop_scale, self.flip = area_range("crop_scale", crop_scale), flip
        blank = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        tokens, whole = self._look(blank)
        between = 4 * encoder.width if hidden is None else hidden
        at_least(1, hidden=between)
        if cosine_weight:
            self.project_patches = _projector(encoder.width, between, tokens.shape[-1])
            self.project_class = _projector(encoder.width, between, whole.shape[-1])
        if feature_weight:
            same = encoder.width == whole.shape[-1]
            self.project_feature = nn.Identity() if same else nn.Linear(encoder.width, whole.shape[-1])
            initialize(self.project_feature)
        self.teacher_print: Tensor
        digest = list(bytes.fromhex(fingerprint(self.teacher)))
        self.register_buffer("teacher_print", torch.tensor(digest, dtype=torch.uint8))
        self.register_state_dict_post_hook(_leave_teacher_out)
        self.register_load_state_dict_pre_hook(_keep_teacher)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `images`, frames uint8 [B, H, W, 3].
            generator: a CPU generator, for crops.

        Returns:
            The loss; its parts without their weights; `teacher_spread`, about 0 where the teacher says the same of
            every picture and nothing can be learned from it.
        """
        frames = self._crop(batch["images"], generator)
        target_patches, target = self._look(frames)
        patches, out = self.encoder(self.encoder.preprocess(frames))
        whole = global_feature(out)
        metrics = {"teacher_spread": feature_spread(target)}
        loss = whole.new_zeros(())
        if self.cosine_weight:
            metrics["class_loss"] = cosine_error(self.project_class(whole), target).mean()
            metrics["patch_loss"] = cosine_error(self.project_patches(patches), target_patches).mean()
            loss = loss + self.cosine_weight * (metrics["class_loss"] + metrics["patch_loss"]) / 2
        if self.feature_weight:
            metrics["feature_loss"] = unit_squared_error(self.project_feature(whole), target)
            loss = loss + self.feature_weight * metrics["feature_loss"]
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _crop(self, frames: UInt8[Tensor, "B H W 3"], generator: torch.Generator) -> UInt8[Tensor, "B H W 3"]:
        """Parts of the frames: frames too, since student and teacher preprocess differently."""
        pixels = frames.permute(0, 3, 1, 2).float()
        pixels = random_resized_crop(pixels, generator, scale=self.crop_scale, flip=self.flip)
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    @torch.no_grad()
    def _look(self, frames: UInt8[Tensor, "B H W 3"]) -> tuple[Float[Tensor, "B N E"], Float[Tensor, "B V"]]:
        """What the teacher says of frames: patches on the student's grid, and the global feature."""
        tokens, out = self.teacher(self.teacher.preprocess(frames))  # type: ignore[operator]
        return resize_tokens(tokens, self.teacher.grid, self.encoder.grid), global_feature(out)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Distill:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self


def cosine_error(prediction: Float[Tensor, "B ... E"], target: Float[Tensor, "B ... E"]) -> Float[Tensor, "B ..."]:
    """One minus the cosine over the last axis, in float32."""
    return 1 - F.cosine_similarity(prediction.float(), target.float(), dim=-1)


def unit_squared_error(prediction: Float[Tensor, "B E"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Mean over all elements of the squared difference of L2-normalised rows: (2 - 2 cos) / E (CLIP-KD)."""
    difference = F.normalize(prediction.float(), dim=-1) - F.normalize(target.float(), dim=-1)
    return difference.square().mean()


def resize_tokens(tokens: Float[Tensor, "B M E"], old: tuple[int, int], new: tuple[int, int]) -> Float[Tensor, "B N E"]:
    """A grid of tokens in raster order on another grid: bilinear, and antialiased where it shrinks."""
    if tuple(old) == tuple(new):
        return tokens
    grid = tokens.transpose(1, 2).unflatten(2, tuple(old)).float()  # (B, E, rows, columns)
    grid = F.interpolate(grid, size=tuple(new), mode="bilinear", antialias=True, align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def _frozen(teacher: str | Path | nn.Module | None) -> nn.Module:
    if teacher is None:
        raise UsageError("objective.teacher: give an encoder to learn from, hf:facebook/dinov2-small for one")
    if isinstance(teacher, nn.Module):
        return freeze(teacher)
    loaded = load_encoder(str(teacher), state_dim=1)  # of `state`, which is refused by what it sees
    if loaded.modality != "image" or loaded.trainable:
        raise UsageError(f"objective.teacher must be a frozen encoder of pictures, got {teacher}")
    return loaded


def _projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs))
    initialize(layers)
    return layers


def _leave_teacher_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(prefix + TEACHER)]:
        del state[name]


def _keep_teacher(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    assert isinstance(module, Distill)
    saved = state.get(prefix + "teacher_print")
    if saved is not None and not torch.equal(saved.cpu(), module.teacher_print.cpu()):
        raise UserError("this training had another teacher: give the same objective.teacher to go on with it")
    state.update({prefix + TEACHER + name: tensor for name, tensor in module.teacher.state_dict().items()})
