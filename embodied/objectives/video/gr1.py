"""GR-1: large-scale video generative pre-training for manipulation (Wu et al. 2023, https://arxiv.org/abs/2312.13139).

Legend: B batch, T steps, N patches of a future frame, P patch size, S image size, A action, E width of an instruction.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, PAD_SUFFIX, image_key
from embodied.encoders.gr1 import GR1Encoder
from embodied.encoders.preprocessing import Normalize
from embodied.models.patches import patchify, unpatchify
from embodied.models.sequence.gr1 import FUTURE
from embodied.models.sequence.gr1_decoder import FutureDecoder, restored_patches, standardized_patches
from embodied.models.sequence.gr1_stems import module_name
from embodied.objectives.parts.losses import masked_mean, squared_error

FRAMES = "frames"
DECODER_SIZES = {  # by the network's size
    "published": {"image_size": 224, "patch_size": 16, "depth": 2, "heads": 16},
    "small": {"image_size": 64, "patch_size": 8, "depth": 2, "heads": 4},
}


class GR1(nn.Module):
    """From an instruction, frames and proprioception, predict the action of every step and each camera's frame to come.

    The loss (Sec. 3.2) is `arm_weight` times the smooth L1 error of the arm's action, plus `gripper_weight` times the
    cross-entropy of the gripper's, plus `video_weight` times the squared error of the future frame's pixels for each
    camera, each averaged over what is there. Patches of the frame are standardised one by one; epsilon stands outside
    the root of the unbiased variance.

    What the data lack (actions and proprioception of a video, an instruction) reaches neither inputs nor loss, so
    videos train alone, and together with demonstrations.

    Weights: the paper's summary is an unweighted sum; the defaults are those of the authors' later GR-MG, fine-tuning
    (its pre-training: video 1), whose released code has the same losses; a third party's port of GR-1 has 100, 1, 1.

    With `video_weight=0` no picture is made: nobody sees the queries for it, so leaving them out changes nothing.

    Departures: actions of the arm are standardised; every step of a window has a future frame, also where that lies
    beyond the window, while there the last steps of each have none; frames come from a cache of features, so that there
    is no random shift of pixels.

    Args:
        encoder: holds the network to train, and the frozen image encoder.
        arm_weight, gripper_weight, video_weight: see above.
        next_frames: how many frames ahead the predicted one is; the data of a batch are made by it.
        norm_pixels: standardise patches; else the target is the frame, normalised by ImageNet's mean and deviation.
        image_size, patch_size, decoder_depth, decoder_heads: S, P and the decoder; None: as of the network's `size`.

    Raises:
        UsageError: a number makes no sense, or nothing has a weight that the data could teach.
    """

    wants_video = FRAMES  # windows of frames, in place of single ones

    def __init__(
        self,
        encoder: GR1Encoder,
        *,
        arm_weight: float = 1.0,
        gripper_weight: float = 0.01,
        video_weight: float = 0.1,
        next_frames: int = 3,
        norm_pixels: bool = True,
        image_size: int | None = None,
        patch_size: int | None = None,
        decoder_depth: int | None = None,
        decoder_heads: int | None = None,
    ) -> None:
        super().__init__()
        weights = {"arm": arm_weight, "gripper": gripper_weight, "video": video_weight}
        if not all(weight >= 0 for weight in weights.values()) or not any(weights.values()):
            raise UsageError(f"objective: expected weights of at least 0, not all 0, got {weights}")
        if not video_weight and encoder.network.action_head is None:
            raise UsageError("objective.video_weight must be above 0: data without actions teach the future alone")
        if isinstance(next_frames, bool) or not isinstance(next_frames, int) or next_frames < 1:
            raise UsageError(f"objective.next_frames must be a whole number of at least 1, got {next_frames!r}")
        self.encoder, self.weights, self.next_frames = encoder, weights, next_frames
        self.norm_pixels = norm_pixels
        given = {"image_size": image_size, "patch_size": patch_size, "depth": decoder_depth, "heads": decoder_heads}
        sizes = DECODER_SIZES[encoder.network.size] | {
            name: value for name, value in given.items() if value is not None
        }
        self.decoder = FutureDecoder(encoder.network.width, **sizes)
        self.normalize = Normalize(self.decoder.image_size)

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: as of `datasets.loading.future_windows.FutureWindows.batch`.
            generator: unused; dropout draws from the global state.

        Returns:
            The loss; `loss_arm`, of which about 0.4 is what always predicting the mean gives, and `loss_gripper` with
            `gripper_right`, the share of grippers predicted as they are, where there are actions; `loss_video`, the
            mean over cameras, of which 1 is what predicting the mean of every patch gives, unless it has no weight.
        """
        network, seen = self.encoder.network, bool(self.weights["video"])
        found = network(*self.inputs(batch), future=seen)
        total = next(iter(found.values())).new_zeros((), dtype=torch.float32)
        metrics: dict[str, Tensor] = {}
        if seen:
            video = torch.stack(self._video_losses(found, batch))
            total, metrics["loss_video"] = total + self.weights["video"] * video.sum(), video.mean().detach()
        else:
            total = total + self._unused()
        if network.action_head is not None:
            actions = self._action_losses(found[ACTION], batch)
            total = total + self.weights["arm"] * actions["loss_arm"]
            if "loss_gripper" in actions:
                total = total + self.weights["gripper"] * actions["loss_gripper"]
            metrics |= {name: value.detach() for name, value in actions.items()}
        return total, metrics

    def _video_losses(
        self, found: Mapping[str, Float[Tensor, "B T Q D"]], batch: Mapping[str, Tensor]
    ) -> list[Float[Tensor, ""]]:
        """Of each camera."""
        losses = []
        for camera in self.encoder.network.cameras:
            key = FUTURE + image_key(camera)
            predicted = self.decoder(found[key]).float()  # (B, T, N, PPC)
            error = squared_error(predicted, self.target(batch[key])).mean(dim=-1)  # (B, T)
            there = ~(batch[key + PAD_SUFFIX] | batch[image_key(camera) + PAD_SUFFIX])
            losses.append(masked_mean(error, there, reduction="batch"))
        return losses

    def _unused(self) -> Float[Tensor, ""]:
        """Zero, through the weights that make pictures: several processes wait for the gradient of each."""
        queries = [part for name, part in self.encoder.network.queries.items() if name != module_name(ACTION)]
        return torch.stack([0.0 * part.sum() for part in (*self.decoder.parameters(), *queries)]).sum()

    def _action_losses(self, features: Float[Tensor, "B T D"], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        head = self.encoder.network.action_head
        assert head is not None
        there = ~batch[ACTION + PAD_SUFFIX]
        # What is not there may be nan, which times a weight of zero would stay.
        actions = torch.where(there[..., None], batch[ACTION], torch.zeros_like(batch[ACTION]))
        predicted = head(features)
        errors = head.errors(predicted, actions)
        losses = {"loss_arm": masked_mean(errors.arm.mean(dim=-1), there, reduction="batch")}
        if errors.gripper is not None:
            losses["loss_gripper"] = masked_mean(errors.gripper, there, reduction="batch")
            right = head.agrees(predicted, actions).float()
            losses["gripper_right"] = masked_mean(right, there, reduction="batch")
        return losses

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the network takes of a batch: values by key, normalised, and what is not there."""
        network = self.encoder.network
        hidden = {name: batch[name + PAD_SUFFIX] for name in network.sizes if name not in (ACTION, INSTRUCTION)}
        steps = next(iter(hidden.values())).shape[1]
        values = {name: network.normalize(name, batch[name]) for name in hidden}
        if INSTRUCTION in network.sizes:
            said = network.normalize(INSTRUCTION, batch[INSTRUCTION])
            values[INSTRUCTION] = said[:, None].expand(-1, steps, -1)
            hidden[INSTRUCTION] = batch[INSTRUCTION + PAD_SUFFIX][:, None].expand(-1, steps)
        return values, hidden

    @torch.no_grad()
    def target(self, frames: UInt8[Tensor, "B T S S 3"]) -> Float[Tensor, "B T N PPC"]:
        """What is to be predicted of frames."""
        patches = self._patches(frames)
        return standardized_patches(patches) if self.norm_pixels else patches

    @torch.no_grad()
    def pictures(self, batch: Mapping[str, Tensor]) -> dict[str, tuple[UInt8[Tensor, "B S S 3"], ...]]:
        """Of the last step of each window, by camera: the frame to come as predicted, and as it was.

        Standardised patches get the means and deviations of the true ones, as such predictions are always shown: what
        they say is the structure within each patch.
        """
        found = self.encoder.network(*self.inputs(batch), future=True)
        side = self.decoder.image_size // self.decoder.patch_size
        shown: dict[str, tuple[Tensor, ...]] = {}
        for camera in self.encoder.network.cameras:
            key = FUTURE + image_key(camera)
            pixels = self.decoder(found[key][:, -1:]).float()
            if self.norm_pixels:
                pixels = restored_patches(pixels, self._patches(batch[key][:, -1:]))
            images = unpatchify(pixels[:, 0], self.decoder.patch_size, side)
            shown[camera] = (self.normalize.inverse(images), batch[key][:, -1])
        return shown

    def _patches(self, frames: UInt8[Tensor, "B T S S 3"]) -> Float[Tensor, "B T N PPC"]:
        images = self.normalize(frames.flatten(0, 1))  # (B*T, 3, S, S)
        return patchify(images, self.decoder.patch_size).unflatten(0, frames.shape[:2])
