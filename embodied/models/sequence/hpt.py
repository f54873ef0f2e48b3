"""The network of HPT for one embodiment: stems that make a fixed number of tokens, and the shared trunk.

Legend: B batch, T steps, K cameras, N tokens of a frame, V values of each, P proprioception, M modalities, Q tokens
that a stem makes, E width of an instruction, L tokens of all stems, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, image_key
from embodied.models.block import initialize
from embodied.models.sequence.cross_attention import LatentReader
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.readouts import pool_tokens
from embodied.models.sequence.sensorimotor import SMALLEST_STD

IMAGE, PROPRIOCEPTION, LANGUAGE = "image", "state", "language"
KEYS = {PROPRIOCEPTION: STATE, LANGUAGE: INSTRUCTION}  # of the data, by stem


class HPTNetwork(SequenceNetwork):
    """Stems of one embodiment, the trunk, and the mean of its tokens.

    Actions are no input of HPT: the key `action` has no values, and stands for the readout.

    Args:
        stems: of the embodiment; None: made from `options`.
        trunk: None: made from `trunk_options`.
        trunk_options: arguments of `HPTTrunk`.
        options: arguments of `HPTStems` but its width.
    """

    def __init__(
        self,
        *,
        stems: HPTStems | None = None,
        trunk: HPTTrunk | None = None,
        trunk_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.trunk = trunk or HPTTrunk(**(trunk_options or {}))
        self.stems = stems or HPTStems(width=self.trunk.width, **options)
        self.width, self.context, self.cameras = self.trunk.width, self.stems.context, self.stems.cameras
        self.sizes = {**self.stems.sizes, ACTION: 0}

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """What the stems see of a modality."""
        return self.stems.normalize(name, values)

    def forward(
        self, values: Mapping[str, Float[Tensor, "B T *frame V"]], hidden: Mapping[str, Bool[Tensor, "B T"]]
    ) -> dict[str, Float[Tensor, "B 1 D"]]:
        """The feature of the last step, from it and those before, by the key `action`.

        Args:
            values: normalised; keys that are missing altogether are hidden.
            hidden: True = not there.
        """
        tokens, keep = self.stems(values, hidden)
        return {ACTION: pool_kept(self.trunk(tokens, keep_mask=keep), keep)[:, None]}

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return {**self.stems.config(), "trunk_options": self.trunk.config()}


class HPTStems(nn.Module):
    """From what one embodiment senses to tokens: a stem for all its cameras, one for proprioception, one for words.

    Source: Wang et al. 2024 (https://arxiv.org/abs/2409.20537), released code. Sines and cosines of an input's place in
    the window are added to its raw values, an MLP follows, and learned latents read all inputs of the window at once.
    The tokens of all stems get sines and cosines of their place in the trunk's input. Modality embeddings are left out,
    as in that code, where they exist but reach nothing.

    Departures: values of frames are standardised, there they are as the image encoder gives them; a modality that is
    not there leaves the places of its tokens empty (nobody looks at them, the mean leaves them out), there the others
    move up; an instruction is one vector of any text encoder and makes one token, there every token of T5 is read, by 8
    latents.

    Args:
        cameras: names of the views.
        latent_dim: V.
        state_dim: P; 0: the embodiment has no proprioception.
        context: T at most.
        width: D.
        tokens: Q.
        hidden: width of the stems' MLP.
        dropout: of the latents' attention in training.
        text_dim: E; 0: no instructions are read.

    Raises:
        UsageError: there is neither a camera nor proprioception, or a number makes no sense.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        latent_dim: int,
        state_dim: int,
        context: int,
        width: int,
        tokens: int = 16,
        hidden: int = 128,
        dropout: float = 0.1,
        text_dim: int = 0,
    ) -> None:
        super().__init__()
        if len(set(cameras)) < len(cameras) or not (cameras or state_dim):
            raise UsageError(f"expected proprioception or cameras with different names, got cameras {list(cameras)}")
        if context < 1 or tokens < 1 or hidden < 1:
            raise UsageError(f"context, tokens and hidden must be at least 1, got {context}, {tokens} and {hidden}")
        self.cameras, self.context, self.width, self.tokens = tuple(cameras), context, width, tokens
        self.sizes = {image_key(camera): latent_dim for camera in cameras}
        self.sizes |= {key: size for key, size in ((STATE, state_dim), (INSTRUCTION, text_dim)) if size}
        self._config: dict[str, Any] = {
            **{"cameras": list(cameras), "latent_dim": latent_dim, "state_dim": state_dim, "context": context},
            **{"tokens": tokens, "hidden": hidden, "dropout": dropout},
            **({"text_dim": text_dim} if text_dim else {}),
        }
        inputs = {IMAGE: latent_dim} if cameras else {}
        inputs |= {PROPRIOCEPTION: state_dim} if state_dim else {}
        self.stems = nn.ModuleDict(
            {name: _Stem(size, width, latents=tokens, hidden=hidden, dropout=dropout) for name, size in inputs.items()}
        )
        for name, size in inputs.items():
            self.register_buffer(f"shift_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(size))
        if text_dim:
            self.stems[LANGUAGE] = _Stem(text_dim, width, latents=1, hidden=hidden, dropout=dropout)

    def fit(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take shift and scale of `image` and `state`: what is seen is (value - shift) / scale; of words, all as it is.

        Raises:
            UsageError: one is missing or has another size.
        """
        for name in (name for name in self.stems if name != LANGUAGE):
            take_scale(self.get_buffer(f"shift_{name}"), self.get_buffer(f"scale_{name}"), statistics, name)

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """What the stems see of a key of the data."""
        if name == INSTRUCTION:
            return values
        kind = PROPRIOCEPTION if name == STATE else IMAGE
        return (values - self.get_buffer(f"shift_{kind}")) / self.get_buffer(f"scale_{kind}")

    def forward(
        self, values: Mapping[str, Float[Tensor, "B T *frame V"]], hidden: Mapping[str, Bool[Tensor, "B T"]]
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """The trunk's input, and which of its tokens are there.

        Args:
            values: normalised, frames as [B, T, V] or [B, T, N, V]; keys that are missing altogether are hidden.
            hidden: of every key, True = not there; it may hold anything, not a number included.
        """
        parts, kept = [], []
        for name, stem in self.stems.items():
            keys = [image_key(camera) for camera in self.cameras] if name == IMAGE else [KEYS[name]]
            inputs, keep = self._inputs(keys, values, hidden)
            per_step = keep.shape[1] // hidden[keys[0]].shape[1]
            if name == LANGUAGE:  # the same at every step
                inputs, keep = inputs[:, -1:], keep[:, -1:]
            there = keep.any(dim=1)
            parts.append(stem(inputs, keep | ~there[:, None], _places(keep, per_step)))
            kept.append(there[:, None].expand(-1, parts[-1].shape[1]))
        tokens, keep = torch.cat(parts, dim=1), torch.cat(kept, dim=1)
        return tokens + sines(self.width, tokens.shape[1]).to(tokens), keep

    def _inputs(
        self, keys: Sequence[str], values: Mapping[str, Tensor], hidden: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "B TKN V"], Bool[Tensor, "B TKN"]]:
        """The inputs of a stem in the order of time, cameras, places in the frame."""
        shown = [key for key in keys if key in values]
        like = values[shown[0]] if shown else hidden[keys[0]].new_zeros(1, 1, self.sizes[keys[0]], dtype=torch.float32)
        count = like.shape[2] if like.ndim == 4 else 1
        parts, kept = [], []
        for key in keys:
            away = hidden[key] if key in values else torch.ones_like(hidden[key])
            shape = (*away.shape, count, self.sizes[key])
            found = values[key].reshape(shape) if key in values else like.new_zeros(shape)
            # Zeros, not just unused: nan times a gradient of zero would be nan in the stem's weights.
            parts.append(torch.where(away[..., None, None], torch.zeros_like(found), found))
            kept.append(~away[..., None].expand(-1, -1, count))
        return torch.stack(parts, dim=2).flatten(1, 3), torch.stack(kept, dim=2).flatten(1, 3)

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it, but the trunk's width."""
        return dict(self._config)


def take_scale(
    shift: Tensor, scale: Tensor, statistics: Mapping[str, tuple[Tensor, Tensor]], name: str, *, what: str = ""
) -> None:
    """Write a scale into buffers [V]; a value that next to never varies keeps its own.

    Args:
        shift, scale: the buffers.
        statistics: by name.
        name: which.
        what: the statistics are of it, for errors.

    Raises:
        UsageError: it is missing or has another size.
    """
    if name not in statistics or statistics[name][0].shape != shift.shape:
        found = "none" if name not in statistics else list(statistics[name][0].shape)
        raise UsageError(f"statistics of {what}{name}: expected those of {len(shift)} values, got {found}")
    shift.copy_(statistics[name][0])
    given = statistics[name][1]
    scale.copy_(torch.where(given > SMALLEST_STD, given, torch.ones_like(given)))


class _Stem(nn.Module):
    def __init__(self, inputs: int, width: int, *, latents: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, width))
        self.reader = LatentReader(width, width, latents=latents, dropout=dropout)
        initialize(self)

    def forward(self, inputs: Float[Tensor, "B I V"], keep_mask: Bool[Tensor, "B I"], places: Tensor) -> Tensor:
        table = sines(inputs.shape[2], inputs.shape[1]).to(inputs)
        return self.reader(self.embed(inputs + table[places]), keep_mask=keep_mask)


def _places(keep: Bool[Tensor, "B I"], per_step: int) -> Int[Tensor, "B I"]:
    """The place of each input, counted from the first step that is there: a window cut short is one of its own."""
    first = keep.int().argmax(dim=1, keepdim=True) // per_step * per_step
    return (torch.arange(keep.shape[1], device=keep.device) - first).clamp(min=0)


def sines(width: int, count: int) -> Float[Tensor, "N D"]:
    """Sines and cosines in turn, as `times.sincos_1d` interleaved, but of any width: raw values have odd ones too."""
    frequency = 1.0 / 10000 ** (torch.arange(width, dtype=torch.float64).div(2, rounding_mode="floor") * 2 / width)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency  # (N, D)
    return torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos()).float()


def pool_kept(tokens: Float[Tensor, "B L D"], keep: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The mean of the tokens that are there; of those that are not where nothing is."""
    return pool_tokens(tokens, "mean", keep_mask=keep | ~keep.any(dim=1, keepdim=True))
