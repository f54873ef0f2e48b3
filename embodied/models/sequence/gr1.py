"""The network of GR-1: a causal transformer over words, frames and proprioception, with queries that nobody sees.

Legend: B batch, T steps, K cameras, N patches of a frame, V values of each, P proprioception, A action, E width of an
instruction, Q latents, L tokens of the sequence, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, image_key
from embodied.models.sequence.attention_rules import mask_from_groups
from embodied.models.sequence.gr1_action import GR1ActionHead
from embodied.models.sequence.gr1_stems import GR1Stems, module_name
from embodied.models.sequence.layout import Layout
from embodied.models.sequence.network import SequenceNetwork
from embodied.models.sequence.standardize import Standardize
from embodied.models.sequence.trunk import Trunk

FUTURE = "future."  # what stands before a camera's key: what is asked about its frames to come
LENGTH_EPSILON = 1e-6
SIZES: dict[str, dict[str, Any]] = {
    "published": {
        **{"width": 384, "depth": 12, "heads": 12, "latents": 9, "dropout": 0.1},
        **{"resampler_depth": 3, "resampler_heads": 4, "resampler_head_width": 128},
    },
    "small": {
        **{"width": 128, "depth": 4, "heads": 4, "latents": 9, "dropout": 0.0},
        **{"resampler_depth": 1, "resampler_heads": 4, "resampler_head_width": 32},
    },
}


class GR1Network(SequenceNetwork):
    """Each step is a token of the instruction, one of proprioception, and of every camera Q latents and a class token.

    Then come queries: [ACT], of which the action is made, and Q + 1 of [OBS] for each camera, of which its future frame
    is made. A token looks at what stands before it but for queries, which are hidden even from themselves; so a query
    left out changes nothing, and the action alone costs less than half of the tokens. Patches pass a perceiver
    resampler that cameras share. Tokens, not queries, get a learned embedding of their step, counted from the first
    step of the window that is there: a window that grows with an episode gives at every step what it gave there.

    Source: Wu et al. 2023 (https://arxiv.org/abs/2312.13139), bytedance/GR-1 `models/gr1.py`. The trunk is GPT-2's
    without its positions, and with ReLU. Published: size=`published`, camera features and patches of 768 values,
    instructions of 512, P = A = 7 with a gripper each.

    Departures: what is missing (a sensor, an instruction, a step before the episode began) is hidden from all others,
    where the authors have every modality at every step and hide whole steps; in its place, unseen, stands the one word
    embedding of the authors' GPT-2, which their forward never reads but their number of weights includes.
    Proprioception and actions are standardised by buffers. Without actions the feature of a step is the mean of what
    becomes of its [OBS].

    Args:
        cameras: names of the views.
        latent_dim: V; the class token of a frame comes before its patches.
        state_dim: P; 0: none.
        action_dim: A; 0: there are no actions, and no [ACT].
        text_dim: E; 0: no instructions.
        context: T at most.
        size: a name of `SIZES`, for every number below that is None.
        width, depth, heads, dropout: of the trunk.
        latents: Q.
        resampler_depth, resampler_heads, resampler_head_width: see `Resampler`.
        gripper, state_gripper: which of the values of action and proprioception is the gripper's; None: none.

    Raises:
        UsageError: numbers or names make no sense.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        latent_dim: int,
        state_dim: int,
        action_dim: int,
        text_dim: int,
        context: int = 10,
        size: str = "small",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        dropout: float | None = None,
        latents: int | None = None,
        resampler_depth: int | None = None,
        resampler_heads: int | None = None,
        resampler_head_width: int | None = None,
        gripper: int | None = None,
        state_gripper: int | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise unknown_name("encoder.size", str(size), SIZES)
        if len(set(cameras)) < len(cameras) or not cameras:
            raise UsageError(f"cameras: expected different names, at least one, got {list(cameras)}")
        if context < 1:
            raise UsageError(f"context must be at least 1, got {context}")
        given = {
            **{"width": width, "depth": depth, "heads": heads, "dropout": dropout, "latents": latents},
            **{"resampler_depth": resampler_depth, "resampler_heads": resampler_heads},
            "resampler_head_width": resampler_head_width,
        }
        sizes = SIZES[size] | {name: value for name, value in given.items() if value is not None}
        if not 0 <= sizes["dropout"] < 1 or min(value for name, value in sizes.items() if name != "dropout") < 1:
            raise UsageError(f"encoder: expected a dropout in [0, 1) and whole numbers of at least 1, got {sizes}")
        self._arguments: dict[str, Any] = {
            **{"cameras": list(cameras), "latent_dim": latent_dim, "state_dim": state_dim, "action_dim": action_dim},
            **{"text_dim": text_dim, "context": context, "size": size, **sizes},
            **{"gripper": gripper if action_dim else None, "state_gripper": state_gripper if state_dim else None},
        }
        self.cameras, self.context, self.width = tuple(cameras), context, int(sizes["width"])
        self.sizes = {image_key(camera): latent_dim for camera in cameras}
        self.sizes |= {name: count for name, count in ((STATE, state_dim), (INSTRUCTION, text_dim)) if count}
        self.sizes[ACTION] = 0  # not read
        self.size, self.dropout = size, float(sizes["dropout"])
        made = self._arguments
        names = ("cameras", "latent_dim", "state_dim", "text_dim", "context", "latents", "state_gripper")
        resampler = ("resampler_depth", "resampler_heads", "resampler_head_width")
        self.stems = GR1Stems(width=self.width, **{name: made[name] for name in (*names, *resampler)})
        self.state_scale = Standardize(state_dim)
        self.norm = nn.LayerNorm(self.width)
        self.trunk = Trunk(
            width=self.width,
            depth=int(sizes["depth"]),
            heads=int(sizes["heads"]),
            eps=1e-5,
            mlp="relu",
            dropout=self.dropout,
        )
        initialize_gpt2(self.trunk)
        head = GR1ActionHead(self.width, action_dim, gripper=made["gripper"]) if action_dim else None
        self.action_head = head
        self._make_queries(int(sizes["latents"]) + 1)

    def _make_queries(self, count: int) -> None:
        """The queries, the order of a step's tokens with and without those of the future, and who sees whom."""
        act = {ACTION: 1} if self.action_head is not None else {}
        future = {FUTURE + image_key(camera): count for camera in self.cameras}
        self.queries = nn.ParameterDict(
            {module_name(name): torch.randn(number, self.width) for name, number in (act | future).items()}
        )
        self.layouts: dict[bool, Layout] = {}
        for asked in (False, True) if act else (True,):
            queries = act | future if asked else act
            layout = self.layouts[asked] = Layout({**self.stems.tokens, **queries}, queries=list(queries))
            groups, times = layout.group_ids(self.context), layout.time_ids(self.context)
            self.register_buffer(f"rule_{asked}", mask_from_groups(groups, times, "hidden_queries"), persistent=False)

    def fit(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take the scale of proprioception and actions: mean and deviation, of a gripper the middle and half the range.

        Args:
            statistics: by key; what is missing keeps its scale.

        Raises:
            UsageError: one has another size.
        """
        if STATE in self.sizes and STATE in statistics:
            self.state_scale.fit(STATE, statistics)
        if self.action_head is not None and ACTION in statistics:
            self.action_head.scale.fit(ACTION, statistics)

    def normalize(self, name: str, values: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
        """What the network sees: proprioception standardised, instructions of length 1, the rest as it is."""
        expected = self.sizes[name]
        if values.shape[-1] != expected:
            raise UsageError(f"{name}: expected {expected} values per step, got {values.shape[-1]}")
        if name == STATE:
            return self.state_scale(values)
        if name == INSTRUCTION:
            return values / (values.norm(dim=-1, keepdim=True) + LENGTH_EPSILON)
        return values

    def forward(
        self,
        values: Mapping[str, Float[Tensor, "B T *frame V"]],
        hidden: Mapping[str, Bool[Tensor, "B T"]],
        *,
        future: bool = False,
    ) -> dict[str, Float[Tensor, "B T *queries D"]]:
        """The feature of every step by the key `action`, [B, T, D]; of a step that is not there it means nothing.

        Args:
            values: normalised; frames as [B, T, 1 + N, V]; keys that are missing altogether are hidden.
            hidden: of every key, True = not there. What is hidden may hold anything, not a number included.
            future: also what becomes of each camera's [OBS], [B, T, Q + 1, D], by `future.<key>`.
        """
        asked = future or self.action_head is None
        layout = self.layouts[asked]
        tokens, there = self.stems(values, hidden)
        batch, steps = next(iter(hidden.values())).shape
        tokens |= {name: self.queries[module_name(name)].expand(batch, steps, -1, -1) for name in layout.queries}
        sequence = self.norm(layout.interleave(tokens))  # (B, L, D)
        if self.dropout:
            sequence = F.dropout(sequence, self.dropout, self.training)
        found = layout.split(self.trunk(sequence, mask=self._attention(asked, layout, there, steps)))
        out = {name: part for name, part in found.items() if name.startswith(FUTURE)}
        if self.action_head is not None:
            return {ACTION: found[ACTION][:, :, 0], **out}
        return {ACTION: torch.cat(list(out.values()), dim=2).mean(dim=2), **out}

    def _attention(
        self, asked: bool, layout: Layout, there: Mapping[str, Bool[Tensor, "B T"]], steps: int
    ) -> Bool[Tensor, "B 1 L L"]:
        """Who sees whom. A token that would see nothing looks at itself, so that its row is not empty."""
        length = steps * layout.step_tokens
        rule = self.get_buffer(f"rule_{asked}")[:length, :length]
        every = torch.ones_like(next(iter(there.values())))
        keep = torch.cat(
            [there.get(name, every)[..., None].expand(-1, -1, count) for name, count in layout.tokens.items()], dim=2
        ).flatten(1)  # (B, L)
        mask = rule & keep[:, None]
        blind = ~mask.any(dim=-1, keepdim=True)
        return (mask | (blind & torch.eye(length, dtype=torch.bool, device=mask.device)))[:, None]

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild it."""
        return dict(self._arguments)


def initialize_gpt2(trunk: Trunk) -> None:
    """Normal with deviation 0.02 for every weight matrix of the trunk, zero biases, as GPT-2's code has it."""
    for part in trunk.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
