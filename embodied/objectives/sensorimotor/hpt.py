"""HPT: heterogeneous pre-trained transformers (Wang et al. 2024, https://arxiv.org/abs/2409.20537).

Legend: B batch, T steps, K cameras, N tokens of a frame, V values of each, P proprioception, H chunk, A action, L
tokens of the trunk, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, INSTRUCTION, PAD_SUFFIX, STATE, ActionHead, image_key
from embodied.models.sequence.hpt import HPTNetwork, HPTStems, pool_kept, take_scale
from embodied.models.sequence.hpt_trunk import HPTTrunk

IMAGES, DATASET = "images", "dataset"
PACK_BELOW = 0.75  # share of the trunk's tokens that are there


class Embodiments(nn.Module):
    """The trunk that all share, and the stems of each: what HPT pre-trains.

    Args:
        trunk: made or loaded.
        frozen: the trunk does not learn, and drops no path.
    """

    def __init__(self, trunk: HPTTrunk, *, frozen: bool = False) -> None:
        super().__init__()
        self.trunk, self.stems = trunk, nn.ModuleDict()
        self.frozen = frozen
        trunk.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Embodiments:
        super().train(mode)
        self.trunk.train(mode and not self.frozen)
        return self

    def add(self, name: str, **options: Any) -> HPTStems:
        """Fresh stems of one more embodiment; `options` of `HPTStems` but its width.

        Raises:
            UsageError: there is one of that name, or the name cannot be one.
        """
        if name in self.stems or "." in name or hasattr(self.stems, name):
            raise UsageError(f"an embodiment cannot be called {name!r} here: give it another name")
        made = HPTStems(width=self.trunk.width, **options)
        self.stems[name] = made
        return made

    def of(self, name: str) -> HPTStems:
        """The stems of an embodiment.

        Raises:
            UsageError: the trunk has none of that name.
        """
        if name not in self.stems:
            raise unknown_name("embodiment", name, self.stems)
        stems = self.stems[name]
        assert isinstance(stems, HPTStems)
        return stems

    def network(self, name: str) -> HPTNetwork:
        """Stems and trunk of one embodiment, sharing their weights with this."""
        return HPTNetwork(stems=self.of(name), trunk=self.trunk)


class HPT(nn.Module):
    """Behaviour cloning of many embodiments through one trunk.

    Every window passes the stems of its embodiment, the shared trunk and the head of its embodiment, which predicts the
    next actions, normalised. In training, stems see only the last steps of a window, a number drawn for each window and
    modality (the authors draw one per batch and modality).

    In place of the authors' batches of one dataset each, drawn by its share, every window of a batch is drawn so. An
    embodiment that a batch holds no window of gets gradients of zero.

    Args:
        encoder: the trunk, and stems of every embodiment.
        heads: of every embodiment, one `ActionHead` each with a history of 1.
        datasets: the embodiment of each dataset by the dataset's name, in the order of their numbers.
        suffix_masking: see above.

    Raises:
        UsageError: an embodiment has no stems or no head.
    """

    wants_sequences = True  # windows, in place of frames
    wants_mixture = True  # of many datasets

    def __init__(
        self,
        encoder: Embodiments,
        *,
        heads: Mapping[str, nn.Module],
        datasets: Mapping[str, str],
        suffix_masking: bool = True,
    ) -> None:
        super().__init__()
        for owner in datasets.values():
            encoder.of(owner)
            if owner not in heads:
                raise unknown_name("embodiment with a head", owner, heads)
        self.encoder, self.datasets, self.suffix_masking = encoder, dict(datasets), suffix_masking
        self.heads = nn.ModuleDict(heads)
        for name, head in heads.items():
            for kind, fill in (("shift", 0.0), ("scale", 1.0)):
                self.register_buffer(f"action_{kind}_{name}", torch.full((head.action_dim,), fill))  # type: ignore[arg-type]

    def fit_actions(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take shift and scale [A] of every embodiment's actions.

        Raises:
            UsageError: one is missing or has another size.
        """
        for name in self.heads:
            shift, scale = self.get_buffer(f"action_shift_{name}"), self.get_buffer(f"action_scale_{name}")
            take_scale(shift, scale, statistics, name, what="actions of ")

    def forward(
        self, batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            batch: as of `datasets.loading.mixtures.MixtureDataset.batch`, in units of the data.
            generator: a CPU generator, for how much of each window is seen and for heads that draw.

        Returns:
            The loss; `loss_<dataset>` of each dataset, nan where the batch has no window of it.
        """
        number, names = batch[DATASET], list(self.datasets)
        features = self._features(batch, generator)
        total = features.new_zeros((), dtype=torch.float32)
        metrics = {}
        for index, name in enumerate(names):
            rows = (number == index).nonzero().flatten()
            if len(rows):
                loss = self._head_loss(self.datasets[name], features[rows], batch, rows, generator)
                total = total + loss * len(rows) / len(number)
                metrics[f"loss_{name}"] = loss.detach()
            else:
                metrics[f"loss_{name}"] = total.new_full((), float("nan"))
        return total + self._unused(number), metrics

    def _features(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> Float[Tensor, "B D"]:
        """The trunk runs once for all embodiments: rows do not see each other."""
        number = batch[DATASET]
        state_away, image_away = self._cut(batch, generator)
        owners = list(dict.fromkeys(self.datasets.values()))
        owner_of = torch.tensor([owners.index(owner) for owner in self.datasets.values()], device=number.device)
        rows_of = [(name, (owner_of[number] == index).nonzero().flatten()) for index, name in enumerate(owners)]
        made = [
            (rows, *self._stem_tokens(name, batch, rows, state_away, image_away)) for name, rows in rows_of if len(rows)
        ]
        length = max(tokens.shape[1] for _, tokens, _ in made)
        order = torch.cat([rows for rows, _, _ in made]).argsort()
        tokens = torch.cat([F.pad(part, (0, 0, 0, length - part.shape[1])) for _, part, _ in made])[order]
        keep = torch.cat([F.pad(part, (0, length - part.shape[1])) for _, _, part in made])[order]
        return pool_kept(self._through_trunk(tokens, keep), keep)

    def _through_trunk(self, tokens: Float[Tensor, "B L D"], keep: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Packed where embodiments lack so many modalities that it saves time; the tokens that are there are equal."""
        trunk = self.encoder.trunk
        if float(keep.float().mean()) < PACK_BELOW:
            return trunk.packed(tokens, keep)
        found: Tensor = trunk(tokens, keep_mask=keep)
        return found

    def _cut(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is not there or not seen of proprioception [B, T] and of frames [B, T, K], True = away."""
        state_away, image_away = batch[STATE + PAD_SUFFIX], batch[IMAGES + PAD_SUFFIX]
        if not (self.training and self.suffix_masking):
            return state_away, image_away
        rows, steps = state_away.shape
        first = torch.randint(0, steps, (2, rows, 1), generator=generator)  # at least the present is seen
        early = (torch.arange(steps) < first).to(state_away.device)
        return state_away | early[0], image_away | early[1][..., None]

    def _stem_tokens(
        self, name: str, batch: Mapping[str, Tensor], rows: Tensor, state_away: Tensor, image_away: Tensor
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        stems = self.encoder.of(name)
        values, hidden = {}, {}
        for place, camera in enumerate(stems.cameras):
            key = image_key(camera)
            values[key] = stems.normalize(key, batch[IMAGES][rows, :, place])
            hidden[key] = image_away[rows, :, place]
        if size := stems.sizes.get(STATE, 0):
            values[STATE] = stems.normalize(STATE, batch[STATE][rows, :, :size])
            hidden[STATE] = state_away[rows]
        if INSTRUCTION in stems.sizes:
            values[INSTRUCTION] = batch[INSTRUCTION][rows][:, None]
            hidden[INSTRUCTION] = batch[INSTRUCTION + PAD_SUFFIX][rows][:, None]
        tokens: Tensor
        tokens, keep = stems(values, hidden)
        return tokens, keep

    def _head_loss(
        self, name: str, features: Tensor, batch: Mapping[str, Tensor], rows: Tensor, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        head = self.heads[name]
        assert isinstance(head, ActionHead)
        shift, scale = self.get_buffer(f"action_shift_{name}"), self.get_buffer(f"action_scale_{name}")
        real = ~batch[ACTION + PAD_SUFFIX][rows]
        actions = (batch[ACTION][rows, :, : len(shift)] - shift) / scale
        loss, _ = head.loss(features[:, None], actions, real, generator=generator)
        return loss

    def _unused(self, number: Tensor) -> Float[Tensor, ""]:
        """Zero, through the weights of embodiments that have no row: every process must have the same gradients."""
        present = {owner for index, owner in enumerate(self.datasets.values()) if bool((number == index).any())}
        absent = [name for name in self.heads if name not in present]
        parts = [
            part
            for name in absent
            for module in (self.encoder.of(name), self.heads[name])
            for part in module.parameters()
        ]
        return sum((0.0 * part.sum() for part in parts), torch.zeros((), device=number.device))
