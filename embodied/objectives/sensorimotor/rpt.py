"""RPT: robot learning with sensorimotor pre-training (Radosavovic et al. 2023, https://arxiv.org/abs/2306.10007).

Legend: B batch, T steps, M modalities (each camera is one), V values of a modality, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import PAD_SUFFIX
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.models.block import initialize
from embodied.models.sequence.sensorimotor import SensorimotorTransformer, kind_of
from embodied.objectives.parts.losses import masked_mean, squared_error

Masking = Literal["token", "timestep", "modality"]


class RPT(nn.Module):
    """Hide most tokens of a window of camera latents, proprioception and actions, predict them from the rest.

    A ratio is drawn per window from `mask_ratio`, then every token is hidden by itself with that probability
    (Sec. 3.2). The network sees a mask token there; a linear layer per modality predicts what was, in the latent space
    of the frozen image encoder for cameras. The loss is the mean squared error on hidden tokens, modalities alike.

    What is not there (a sensor the data lacks, steps before the episode began) is hidden too and never predicted, so
    videos without actions and recordings without cameras train together with whole ones.

    The paper's reference code is not public. Our choices where it is silent: targets are standardised per dimension;
    cameras share their output layer as they share their input layer; the loss is the mean over modalities of each
    one's mean, and with several cameras each camera is a modality.

    Args:
        encoder: holds the transformer to train, and the frozen image encoder.
        mask_ratio: the range of the ratio.
        masking: what is hidden together: `token`, or for the paper's ablation all of a `timestep`, or all steps of a
            `modality`.
        causal: as many tokens are hidden, but the last ones of the window (Sec. 3.2); attention still goes both ways.
    """

    wants_sequences = True  # windows of sequences, in place of frames

    def __init__(
        self,
        encoder: SensorimotorEncoder,
        *,
        mask_ratio: Sequence[float] = (0.7, 0.9),
        masking: Masking = "token",
        causal: bool = False,
    ) -> None:
        super().__init__()
        if len(mask_ratio) != 2 or not 0 < mask_ratio[0] <= mask_ratio[1] < 1:
            raise UsageError(f"mask_ratio must be two numbers within (0, 1), the lower first, got {list(mask_ratio)}")
        if masking not in get_args(Masking):
            raise unknown_name("masking", str(masking), get_args(Masking))
        self.encoder, self.masking, self.causal = encoder, masking, causal
        self.mask_ratio = (float(mask_ratio[0]), float(mask_ratio[1]))
        network = self.network
        self.outputs = nn.ModuleDict({kind: nn.Linear(network.width, size) for kind, size in network.kinds.items()})
        initialize(self.outputs)

    @property
    def network(self) -> SensorimotorTransformer:
        """The transformer that is trained."""
        found = self.encoder.sequence
        assert isinstance(found, SensorimotorTransformer), type(found)
        return found

    @property
    def modalities(self) -> list[str]:
        """The keys that have values, in the order of a step's tokens."""
        return [name for name, size in self.network.sizes.items() if size]

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: of every modality latents or values [B, T, V] in units of the data, and `<key>_is_pad` bool [B, T],
                True = not there.
            generator: a CPU generator, for masks.

        Returns:
            The loss; `masked`, the share of tokens that were there and hidden; per kind of modality `error_<kind>`, of
            which 1 is what always predicting the mean gives.
        """
        missing = {name: batch[name + PAD_SUFFIX] for name in self.modalities}
        targets = {}
        for name in self.modalities:
            away = missing[name][..., None]
            values = self.network.normalize(name, batch[name])
            targets[name] = torch.where(away, torch.zeros_like(values), values)  # what is not there may be nan
        rows, steps = next(iter(missing.values())).shape
        masks = self.draw_masks(rows, steps, generator).to(next(iter(missing.values())).device)
        masked = {name: masks[..., index] for index, name in enumerate(self.modalities)}
        return self.masked_loss(targets, masked, missing, targets)

    def draw_masks(self, rows: int, steps: int, generator: torch.Generator) -> Bool[Tensor, "B T M"]:
        """Which tokens are hidden, True = hidden."""
        count = len(self.modalities)
        low, high = self.mask_ratio
        ratio = low + (high - low) * torch.rand(rows, 1, 1, generator=generator)
        shape = {"token": (steps, count), "timestep": (steps, 1), "modality": (1, count)}[self.masking]
        masks = (torch.rand(rows, *shape, generator=generator) < ratio).expand(rows, steps, count)
        if self.causal:
            hidden = masks.flatten(1).sum(dim=1, keepdim=True)  # (B, 1)
            place = torch.arange(steps * count)
            masks = (place >= steps * count - hidden).unflatten(1, (steps, count))
        return masks

    def masked_loss(
        self,
        values: Mapping[str, Float[Tensor, "B T _"]],
        masked: Mapping[str, Bool[Tensor, "B T"]],
        missing: Mapping[str, Bool[Tensor, "B T"]],
        targets: Mapping[str, Float[Tensor, "B T _"]],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and metrics, from normalised inputs and targets by modality.

        Args:
            values: what the network may see where it is neither masked nor missing.
            masked: True = hidden from the network, to be predicted.
            missing: True = not there.
            targets: what is to be predicted.
        """
        network = self.network
        hidden = {name: masked[name] | missing[name] for name in self.modalities}
        for name in network.sizes.keys() - hidden.keys():  # no values at all: an action that is only a mask token
            hidden[name] = torch.ones_like(next(iter(hidden.values())))
        tokens = network(values, hidden)
        losses: list[Tensor] = []
        errors: dict[str, list[Tensor]] = {}
        counted = {name: masked[name] & ~missing[name] for name in self.modalities}
        for name, counts in counted.items():
            error = squared_error(self.outputs[kind_of(name)](tokens[name]).float(), targets[name])
            losses.append(masked_mean(error, counts, reduction="batch"))
            errors.setdefault(f"error_{kind_of(name)}", []).append(losses[-1].detach())
        metrics = {name: torch.stack(parts).mean() for name, parts in errors.items()}
        there = torch.stack([(~missing[name]).sum() for name in counted]).sum()
        share = torch.stack([counts.sum() for counts in counted.values()]).sum() / there.clamp(min=1)
        return torch.stack(losses).mean(), {"masked": share, **metrics}
