"""Toto: autoregressive pre-training from videos (Rajasegaran et al. 2025, https://arxiv.org/abs/2501.05453).

Legend: B batch, T frames, N codes of a frame, V codes of the vocabulary, A action, L tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, PAD_SUFFIX
from embodied.encoders.tokenizer import FrameTokenizer
from embodied.encoders.toto import TotoEncoder
from embodied.models.sequence.toto import TotoNetwork
from embodied.models.sequence.toto_generation import Sampling, continue_frames
from embodied.models.sequence.toto_tokens import END, FIRST_CODE
from embodied.objectives.parts.losses import code_error

CODES = "codes"


class Toto(nn.Module):
    """Predict every code of a clip from all that stand before it, frame after frame in raster order.

    The loss is the mean negative log-likelihood of the codes and of the end of the sequence.
    Images train along as sequences of images that have nothing to do with each other and begin with a token of their
    own: with `image_share`, made of single frames of the batch; with clips of one frame, throughout. The paper's
    mixture has a fifth of images, 16 to a sequence.

    The paper's code is not public. Ours: one beginning and one end for a whole sequence of images; actions, off by
    default (`encoder.actions=true`), see `TotoTokens`, with `action_dropout`, so that a model that reads them can also
    go without.

    Args:
        encoder: holds the network to train, and the frozen tokenizer.
        image_share: the share of a batch's rows that are made of random frames of all its rows.
        action_dropout: the share of clips whose actions are hidden.
        context: frames that predictions start from, where `predict` is not told; at most all of a clip but one.
        temperature, top_k: of predictions, see `models.sequence.toto_generation.Sampling`. Below 1, our choice: at 1
            one unlikely code in many spoils the rest of its frame.

    Raises:
        UsageError: a number makes no sense.
    """

    wants_video = CODES  # clips of codes, in place of frames

    def __init__(
        self,
        encoder: TotoEncoder,
        *,
        image_share: float = 0.0,
        action_dropout: float = 0.1,
        context: int = 2,
        temperature: float = 0.5,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        if not (0 <= image_share <= 1 and 0 <= action_dropout <= 1):
            raise UsageError(f"image_share and action_dropout must be in [0, 1], got {image_share}, {action_dropout}")
        if context < 1:
            raise UsageError(f"context must be at least 1, got {context}")
        self.encoder, self.image_share, self.action_dropout = encoder, image_share, action_dropout
        self.context = min(context, self.network.context - 1)  # 0 of images: there is nothing to predict
        self.sampling = Sampling(temperature=temperature, top_k=top_k)

    @classmethod
    def make_encoder(
        cls,
        *,
        tokenizer: FrameTokenizer,
        network: Mapping[str, object],
        sizes: Mapping[str, int],
        camera: str = "camera",
    ) -> TotoEncoder:
        """A fresh encoder for data of these sizes, see `VideoEncoder.over`.

        Args:
            tokenizer, sizes, camera: see there.
            network: further arguments of `TotoNetwork`; with `actions`, whether actions are read: by the paper no.

        Raises:
            UsageError: actions are to be read, and the data has none.
        """
        given = {name: value for name, value in network.items() if name != "actions"}
        reads = bool(network.get("actions", False))
        if reads and not sizes.get(ACTION):
            raise UsageError("encoder.actions=true, but the data has no actions, or they are left out: set it to false")
        # A size of null does not come here, and numbers without one mean it.
        named = {"size": None, **given} if "width" in given else given
        actions = sizes[ACTION] if reads else 0
        return TotoEncoder.over(tokenizer, network=named, sizes={**sizes, ACTION: actions}, camera=camera)

    @property
    def network(self) -> TotoNetwork:
        """What learns."""
        return self.encoder.network

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: `codes` int64 [B, T, N]; where actions are read `action` float [B, T, A], in units of the data, and
                `action_is_pad` bool [B, T].
            generator: a CPU generator, for what becomes images and which actions are hidden.

        Returns:
            The loss; of codes alone `code_nll` in nats, `later_nll` without the first frames, `accuracy`, how many were
            the likeliest after the first frames, and `copied`, how many of those are as in the frame before, which is
            what a model that has learned nothing about motion gets right. The last three only see rows of videos.
        """
        codes = batch[CODES]
        images = self._draw(len(codes), self.image_share, generator, codes.device)
        codes = self.shuffled(codes, images, generator)
        dropped = self._draw(len(codes), self.action_dropout, generator, codes.device)
        actions, away = self._actions(batch, dropped | images)
        return self.sequence_loss(codes, actions, away, images | (codes.shape[1] == 1))

    def _draw(self, rows: int, share: float, generator: torch.Generator, device: torch.device) -> Bool[Tensor, " B"]:
        return (torch.rand(rows, generator=generator) < share).to(device)

    def shuffled(
        self, codes: Int[Tensor, "B T N"], images: Bool[Tensor, " B"], generator: torch.Generator
    ) -> Int[Tensor, "B T N"]:
        """Clips of which some (`images` True) are random frames of all of them, no frame twice."""
        order = torch.randperm(codes.shape[0] * codes.shape[1], generator=generator).to(codes.device)
        mixed = codes.flatten(0, 1)[order].unflatten(0, codes.shape[:2])
        return torch.where(images[:, None, None], mixed, codes)

    def sequence_loss(
        self,
        codes: Int[Tensor, "B T N"],
        actions: Float[Tensor, "B T A"] | None,
        away: Bool[Tensor, "B T"] | None,
        images: Bool[Tensor, " B"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and metrics.

        Args:
            codes: of every frame.
            actions: normalised; None: they are not read.
            away: True = the action is not known.
            images: True = the row is a sequence of images.
        """
        network = self.network
        self._check(codes)
        values, hidden = {network.view: codes}, {}
        if actions is not None and away is not None:
            values[ACTION], hidden[ACTION] = actions, away
        logits = network(values, hidden, images=images, predict=True)
        errors = code_error(logits["codes"].flatten(1, 2), codes.flatten(1) + FIRST_CODE)  # (B, T * N)
        ends = code_error(logits["end"][:, None], torch.full_like(codes[:, :1, 0], END))  # (B, 1)
        metrics = {"code_nll": errors.detach().mean()}
        if codes.shape[1] > 1:
            metrics |= _of_videos(errors.detach(), logits["codes"].detach(), codes, ~images)
        return torch.cat([errors, ends], dim=1).mean(), metrics

    @torch.no_grad()
    def predict(
        self, batch: Mapping[str, Tensor], *, context: int | None = None, generator: torch.Generator | None = None
    ) -> Int[Tensor, "B T N"]:
        """The codes of clips, of which the first `context` frames are given and the others predicted.

        Clips that are longer than the network's context are continued piece by piece, each from the last `context`
        frames before it.

        Args:
            batch: as of `forward`; T is the number of frames wanted, and codes after the context may hold anything.
            context: None: that of the objective.
            generator: a CPU generator; None: nothing is drawn, every code is the likeliest one.

        Raises:
            UsageError: there is nothing to start from, or no room to go on.
        """
        codes, network = batch[CODES], self.network
        given = self.context if context is None else context
        if not 1 <= given < network.context or given > codes.shape[1]:
            most = min(network.context - 1, codes.shape[1])
            raise UsageError(
                f"context must be in [1, {most}] frames, below the encoder's {network.context}, got {given}"
            )
        self._check(codes[:, :given])
        actions, away = self._actions(batch, torch.zeros(len(codes), dtype=torch.bool, device=codes.device))
        found = codes[:, :given]
        while found.shape[1] < codes.shape[1]:
            start = found.shape[1] - given
            stop = min(codes.shape[1], start + network.context)
            new = continue_frames(
                network,
                found[:, start:],
                frames=stop - found.shape[1],
                generator=generator or torch.Generator(),
                sampling=Sampling(temperature=0) if generator is None else self.sampling,
                actions=None if actions is None else actions[:, start:stop],
                away=None if away is None else away[:, start:stop],
            )
            found = torch.cat([found, new], dim=1)
        return found

    def _actions(self, batch: Mapping[str, Tensor], dropped: Bool[Tensor, " B"]) -> tuple[Tensor | None, Tensor | None]:
        """Normalised actions [B, T, A], and which are not known [B, T]; None where they are not read or not there."""
        if not self.network.sizes[ACTION] or ACTION not in batch:
            return None, None
        actions = self.network.normalize(ACTION, batch[ACTION])
        away = batch.get(ACTION + PAD_SUFFIX)
        unknown = dropped[:, None].expand(actions.shape[:2])
        return actions, unknown if away is None else unknown | away

    def _check(self, codes: Int[Tensor, "B T N"]) -> None:
        places, known = self.network.sizes[self.network.view], self.network.vocabulary
        if codes.ndim != 3 or codes.shape[2] != places:
            raise UsageError(f'batch["codes"]: expected [B, T, {places}], got {list(codes.shape)}')
        # Elsewhere than on a CPU looking at the values would wait for the device at every step.
        if codes.device.type == "cpu" and codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < known:
            raise UsageError(
                f'batch["codes"]: expected 0 to {known - 1}, got {int(codes.min())} to {int(codes.max())}: they are of '
                "another tokenizer"
            )


def _of_videos(
    errors: Float[Tensor, "B TN"], logits: Float[Tensor, "B T N V4"], codes: Int[Tensor, "B T N"], videos: Tensor
) -> dict[str, Tensor]:
    """What is told of the frames after the first, over rows that are videos."""
    count = (videos.sum() * codes[0, 1:].numel()).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(videos[:, None, None], values, torch.zeros_like(values)).float().sum() / count

    later = codes[:, 1:]
    return {
        "later_nll": mean(errors.unflatten(1, codes.shape[1:])[:, 1:]),
        "accuracy": mean((logits[:, 1:].argmax(dim=-1) == later + FIRST_CODE).float()),
        "copied": mean((later == codes[:, :-1]).float()),
    }
