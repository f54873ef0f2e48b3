"""What `policy.head` may be, and what each head is given where the settings say null."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from embodied.policies.heads.registry import head_modules
from embodied.policies.heads.temporal_ensemble import DECAY


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """What a head is given where the settings say null. A module in `policies/heads/` may bring its own as `KIND`.

    Args:
        text: one line for `embodied list heads`.
        module: in `policies/heads/`, if not its own name.
        neck: in `policies/necks/`.
        history: moments it reads.
        chunk: actions predicted; None: one per moment.
        execute: of them, before the next plan.
        ensemble: decay of temporal ensembling; None: none.
        ema: evaluate an average of the weights.
        single: it can predict no more than one action.
    """

    text: str = ""
    module: str | None = None
    neck: str = "pooled"
    history: int = 1
    chunk: int | None = 1
    execute: int = 1
    ensemble: float | None = None
    ema: bool = False
    single: bool = False


KINDS: dict[str, HeadKind] = {
    "mlp": HeadKind(text="VC-1 head: pooled feature, frame differences, input BatchNorm, MLP 256x3", neck="flare"),
    "conv": HeadKind(text="Theia head: token grid, three convolutions, BatchNorm MLP", module="mlp", neck="spatial"),
    "gmm": HeadKind(text="robomimic BC-GMM: a mixture of Gaussians over the chunk"),
    "rnn_gmm": HeadKind(text="robomimic BC-RNN-GMM: an LSTM with a mixture per step", history=10, chunk=None),
    "act": HeadKind(text="ACT: a conditional VAE over chunks, temporal ensembling", chunk=16, ensemble=DECAY),
    "diffusion": HeadKind(
        text="Diffusion Policy: a U-Net denoises chunks, averaged weights", history=2, chunk=16, execute=8, ema=True
    ),
    "flow": HeadKind(text="flow matching as in pi0: a few Euler steps to a chunk", chunk=16, execute=8, ema=True),
    "vq_bet": HeadKind(text="VQ-BeT: a GPT chooses codes of chunks, and offsets to them", history=2, chunk=8),
    "gr1": HeadKind(text="the action head of a GR-1 encoder, as it was pre-trained", single=True),
    "bins": HeadKind(text="RT-1 and OpenVLA: every dimension a choice among 256 bins"),
}


@cache
def head_kinds() -> dict[str, HeadKind]:
    """`KINDS`, and those of modules in `policies/heads/` that are none of them: their `KIND`, or the defaults."""
    known = {kind.module or name for name, kind in KINDS.items()}
    others = {name: module for name, module in head_modules().items() if name not in known}
    return KINDS | {name: getattr(module, "KIND", _default(module.HEAD)) for name, module in others.items()}


def _default(head: type) -> HeadKind:
    return HeadKind(text=(head.__doc__ or "").strip().partition("\n")[0])
