"""MaskViT: masked visual pre-training for video prediction (Gupta et al. 2022, https://arxiv.org/abs/2206.11894).

Legend: B batch, T frames, N codes of a frame, F of them of frames to predict, M of those that are hidden, V vocabulary,
A action, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.encoders.maskvit import MaskViTEncoder
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.models.sequence.mask_decoding import Decoded, Decoding
from embodied.models.sequence.maskvit import MaskViTNetwork
from embodied.models.sequence.maskvit_prediction import continue_clips
from embodied.objectives.parts.losses import code_error

CODES = "codes"


class MaskViT(nn.Module):
    """Hide most codes of a clip's later frames, predict them from the rest.

    A ratio is drawn for every clip from `mask_ratio`, and exactly that share of the codes after the context, rounded
    up, is hidden; the context never is. The loss is the cross-entropy of the hidden codes, over all that are hidden in
    the batch. Predictions start from a context and find the codes of all later frames in a few passes (Sec. 3.3).

    The paper's code is not public. Unconfirmed: the range of the ratio. Ours: `corruption` is 1xgpt's remedy for codes
    that were found wrongly in an earlier pass, off by default; `action_dropout` lets the network also predict without
    actions, which its encoder does beyond the present.

    Args:
        encoder: holds the network to train, and the frozen tokenizer.
        context: frames that are never hidden.
        mask_ratio: the range of the ratio, the upper end excluded but for equal ones.
        corruption: a share drawn for each clip from 0 to this of the codes that are shown after the context is replaced
            by random ones.
        action_dropout: the share of clips whose actions are hidden.
        checkpointing: recompute blocks in the backward pass: less memory, the same numbers.
        decoding: arguments of `models.sequence.mask_decoding.Decoding`, for `predict`.

    Raises:
        UsageError: a number makes no sense.
    """

    wants_video = CODES  # clips of codes, in place of frames

    def __init__(
        self,
        encoder: MaskViTEncoder,
        *,
        context: int = 2,
        mask_ratio: Sequence[float] = (0.5, 1.0),
        corruption: float = 0.0,
        action_dropout: float = 0.1,
        checkpointing: bool = False,
        decoding: Mapping[str, Any] | Decoding | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        steps = self.network.context
        if not 1 <= context < steps:
            raise UsageError(f"context must leave one of the {steps} frames of a clip to predict, got {context}")
        if len(mask_ratio) != 2 or not 0 < mask_ratio[0] <= mask_ratio[1] <= 1:
            raise UsageError(f"mask_ratio must be two numbers within (0, 1], the lower first, got {list(mask_ratio)}")
        if not (0 <= corruption < 1 and 0 <= action_dropout <= 1):
            raise UsageError(
                f"corruption must be in [0, 1) and action_dropout in [0, 1], got {corruption} and {action_dropout}"
            )
        self.context, self.mask_ratio = context, (float(mask_ratio[0]), float(mask_ratio[1]))
        self.corruption, self.action_dropout = corruption, action_dropout
        self.decoding = decoding if isinstance(decoding, Decoding) else make_decoding(decoding or {})
        self.network.checkpointing = checkpointing

    @classmethod
    def make_encoder(
        cls,
        *,
        tokenizer: FrameTokenizer,
        network: Mapping[str, Any],
        sizes: Mapping[str, int],
        camera: str = "camera",
    ) -> MaskViTEncoder:
        """A fresh encoder for data of these sizes, see `VideoEncoder.over`."""
        return MaskViTEncoder.over(tokenizer, network=network, sizes=sizes, camera=camera)

    @property
    def network(self) -> MaskViTNetwork:
        """What learns."""
        assert isinstance(self.encoder.sequence, MaskViTNetwork)
        return self.encoder.sequence

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `codes` int64 [B, T, N]; where the data has actions `action` float [B, T, A], in units of the data,
                and `action_is_pad` bool [B, T].
            generator: a CPU generator, for masks and what is drawn beside.

        Returns:
            The loss; `masked`, the share of codes after the context that was hidden; `accuracy`, of the hidden ones
            that were most probable; `copied`, of the hidden ones that are as in the last frame of the context, which is
            what a model that has learned nothing about motion gets right.
        """
        codes = batch[CODES]
        hidden = self.draw_masks(len(codes), codes.shape[1], generator)
        shown = self.corrupt(codes, hidden, generator)
        unknown = torch.rand(len(codes), generator=generator) < self.action_dropout
        hidden, unknown = hidden.to(codes.device), unknown.to(codes.device)
        return self.masked_loss(shown, codes, hidden, *self._actions(batch, unknown))

    def draw_masks(self, batch: int, frames: int, generator: torch.Generator) -> Bool[Tensor, "B T N"]:
        """Which codes are hidden, True = hidden; `mask_ratio` of those after the context, rounded up."""
        places = self.network.sizes[self.network.view]
        count = (frames - self.context) * places
        low, high = self.mask_ratio
        ratio = low + (high - low) * torch.rand(batch, 1, generator=generator)
        rank = torch.rand(batch, count, generator=generator).argsort(dim=1).argsort(dim=1)
        later = rank < (ratio * count).ceil()  # (B, F)
        return torch.cat([torch.zeros(batch, self.context * places, dtype=torch.bool), later], dim=1).unflatten(
            1, (frames, places)
        )

    def corrupt(
        self, codes: Int[Tensor, "B T N"], hidden: Bool[Tensor, "B T N"], generator: torch.Generator
    ) -> Int[Tensor, "B T N"]:
        """The codes with a share of those that are shown after the context replaced by random ones."""
        if not self.corruption:
            return codes
        share = self.corruption * torch.rand(len(codes), 1, 1, generator=generator)
        wrong = (torch.rand(hidden.shape, generator=generator) < share) & ~hidden
        wrong[:, : self.context] = False
        other = torch.randint(self.network.vocabulary, hidden.shape, generator=generator)
        return torch.where(wrong.to(codes.device), other.to(codes.device), codes)

    def masked_loss(
        self,
        shown: Int[Tensor, "B T N"],
        codes: Int[Tensor, "B T N"],
        hidden: Bool[Tensor, "B T N"],
        actions: Float[Tensor, "B T A"],
        unknown: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and metrics.

        Args:
            shown: what the network may see where it is not hidden.
            codes: what is to be predicted.
            hidden: True = hidden from the network, to be predicted.
            actions: normalised; `unknown` ones are hidden.
        """
        network = self.network
        tokens = network({network.view: shown, ACTION: actions}, {network.view: hidden, ACTION: unknown})[network.view]
        logits, target = network.logits(tokens[hidden]), codes[hidden]  # (M, V), (M,)
        error = code_error(logits[None], target[None]).mean()
        copied = codes[:, self.context - 1, None].expand_as(codes)[hidden]
        metrics = {
            "masked": hidden[:, self.context :].float().mean(),
            "accuracy": (logits.detach().argmax(dim=-1) == target).float().mean(),
            "copied": (copied == target).float().mean(),
        }
        return error, metrics

    @torch.no_grad()
    def predict(
        self, batch: Mapping[str, Tensor], *, context: int | None = None, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B T N"]:
        """The codes of clips, of which the first `context` frames are given and the others predicted.

        Args:
            batch: as of `forward`; T is the number of frames wanted, and codes after the context may hold anything.
            context: None: that of the training.
            generator: a CPU generator; None: nothing is drawn, see `mask_decoding.decode`.

        Raises:
            UsageError: see `continue_clips`.
        """
        return self.predict_counted(batch, context=context, generator=generator).codes

    @torch.no_grad()
    def predict_counted(
        self,
        batch: Mapping[str, Tensor],
        *,
        context: int | None = None,
        generator: torch.Generator | None = None,
        one_by_one: bool = False,
    ) -> Decoded:
        """`predict`, with the number of forward passes; `one_by_one`: autoregressively, for comparison."""
        codes = batch[CODES]
        return continue_clips(
            self.network,
            codes,
            *self._actions(batch, torch.zeros(len(codes), dtype=torch.bool, device=codes.device)),
            context=self.context if context is None else context,
            decoding=self.decoding,
            generator=generator,
            one_by_one=one_by_one,
        )

    def _actions(self, batch: Mapping[str, Tensor], dropped: Bool[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Normalised actions [B, T, A], and which are unknown [B, T]."""
        shape = batch[CODES].shape[:2]
        unknown = dropped[:, None].expand(shape)
        if not self.network.sizes[ACTION]:
            return torch.zeros(*shape, 0, device=dropped.device), unknown
        if ACTION not in batch:
            return torch.zeros(*shape, self.network.sizes[ACTION], device=dropped.device), torch.ones_like(unknown)
        values = self.network.normalize(ACTION, batch[ACTION])
        return values, unknown | batch.get(ACTION + PAD_SUFFIX, torch.zeros_like(unknown))


def make_decoding(settings: Mapping[str, Any]) -> Decoding:
    """How predictions are decoded, from settings.

    Raises:
        UsageError: there is no such setting, or a value makes no sense.
    """
    try:
        return Decoding(**settings)
    except TypeError as error:
        raise UsageError(f"decoding: {error}") from error
