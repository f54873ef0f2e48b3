"""What can be read out of a model of videos at each depth, by how a frame's tokens are pooled.

Legend: F frames, T steps of a window, N tokens of a frame, D width, P values of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from embodied.bench.inspection.depth_clips import Windows
from embodied.bench.inspection.features import BATCH, device_of, raw_pixels
from embodied.bench.inspection.measure import MEAN, PIXELS
from embodied.bench.inspection.probes import Score, episode_folds, linear_probe, mean_probe, moving_values, score
from embodied.bench.plots import BLUE, GREEN, GREY, RED
from embodied.core.errors import UserError
from embodied.core.files import atomic_path
from embodied.core.protocols import Reporter
from embodied.core.seeding import derive_seed, torch_generator
from embodied.encoders.toto import TotoEncoder
from embodied.models.sequence.readouts import AttentionReadout, pool_tokens

ATTENTION, TRAINED_MEAN = "attention", "trained_mean"
POOLINGS = ("mean", "last", ATTENTION, TRAINED_MEAN)
RATE = 3e-3  # of learning, falling to 0, of trained probes
_COLOURS = dict(zip(POOLINGS, (BLUE, GREEN, RED, BLUE), strict=True))
_LINES = {TRAINED_MEAN: ":"}


@dataclass(frozen=True, kw_only=True)
class DepthCurve:
    """R^2 of the state of frames in episodes that were held out.

    Args:
        part: the store's name.
        target: the key that was read out.
        frames, episodes: how many.
        depths: blocks before the tokens.
        scores: by the pooling, one per depth.
        baselines: raw pixels, and always the mean state.
        read_depth: of the encoder's own features.
    """

    part: str
    target: str
    frames: int
    episodes: int
    depths: Sequence[int]
    scores: Mapping[str, Sequence[Score]]
    baselines: Mapping[str, Score]
    read_depth: int

    def record(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def depth_curve(
    encoder: TotoEncoder,
    windows: Windows,
    *,
    target: str,
    depths: Sequence[int],
    steps: int,
    reporter: Reporter,
) -> DepthCurve:
    """Probes at every depth: ridge regression on the mean and on the last of a frame's tokens, and attention over all.

    Ridge regression chooses its penalty and has an exact solution, attention is trained for a while, with a network
    behind it: `trained_mean` is the same attention given the mean alone, for what choosing among tokens is worth.

    Args:
        encoder: in eval mode, on its device.
        windows: whose part can be probed, see `measure.why_no_probe`.
        target: the key of the part's states.
        depths: of the transformer.
        steps: of training a probe of `attention` or `trained_mean`.
        reporter: shows progress.

    Raises:
        UserError: tokens are not finite.
    """
    part = windows.part
    assert part.states is not None
    states = moving_values(part.states)
    scores: dict[str, list[Score]] = {name: [] for name in POOLINGS}
    for depth in reporter.track(depths, total=len(depths), description="depths"):
        tokens = read_depth(encoder, windows, depth)
        if not bool(tokens.isfinite().all()):
            raise UserError(f"after {depth} blocks this encoder gives NaN or infinite tokens")
        for name in POOLINGS[:2]:
            pooled = pool_tokens(tokens, "mean" if name == "mean" else "last").numpy()
            scores[name].append(linear_probe(pooled, states, part.episodes))
        for name, read in ((ATTENTION, tokens), (TRAINED_MEAN, tokens.mean(dim=1, keepdim=True))):
            guesses = attention_guesses(read, states, part.episodes, steps=steps, device=device_of(encoder))
            scores[name].append(score(guesses, states, part.episodes))
    pixels = linear_probe(raw_pixels(part.frames), states, part.episodes)
    return DepthCurve(
        part=part.name,
        target=target,
        frames=len(part),
        episodes=len(np.unique(part.episodes)),
        depths=list(depths),
        scores=scores,
        baselines={PIXELS: pixels, MEAN: mean_probe(states, part.episodes)},
        read_depth=encoder.network.read_depth,
    )


@torch.no_grad()
def read_depth(encoder: TotoEncoder, windows: Windows, depth: int) -> Float[Tensor, "F N D"]:
    """The tokens of the last frame of every window."""
    device, found = device_of(encoder), []
    for first in range(0, len(windows.part), BATCH):
        part = {name: values[first : first + BATCH].to(device) for name, values in windows.window.items()}
        found.append(encoder.at_depths(part, [depth])[depth][:, -1].float().cpu())
    return torch.cat(found)


def attention_guesses(
    tokens: Float[Tensor, "F N D"],
    states: Float[np.ndarray, "F P"],
    episodes: Int[np.ndarray, " F"],
    *,
    steps: int,
    device: torch.device | None = None,
) -> Float[np.ndarray, "F P"]:
    """Every episode predicted once from the others, by a query that attends to the tokens and a linear layer.

    Both are trained by AdamW with settings that are the same everywhere and chosen on nothing; the weights depend on
    the seed alone.
    """
    guesses = np.empty_like(states)
    known, device = torch.from_numpy(states).float(), device or torch.device("cpu")
    for fold, (train, test) in enumerate(episode_folds(episodes)):
        rows = torch.from_numpy(np.flatnonzero(train))
        centre = known[rows].mean(dim=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(0, "attention probe", fold))
            probe = _AttentionProbe(tokens.shape[2], known.shape[1]).to(device)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE, weight_decay=0.01)
        draws = torch_generator(0, "attention probe", fold)
        for step in range(steps):
            chosen = rows[torch.randint(len(rows), (64,), generator=draws)]
            error = probe(tokens[chosen].to(device)) - (known[chosen] - centre).to(device)
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            parts = tokens[torch.from_numpy(test)].split(BATCH)
            guesses[test] = torch.cat([probe(part.to(device)).cpu() + centre for part in parts]).numpy()
    return guesses


class _AttentionProbe(nn.Module):
    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.readout, self.norm, self.head = AttentionReadout(width), nn.LayerNorm(width), nn.Linear(width, values)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B P"]:
        return self.head(self.norm(self.readout(tokens)[:, 0]))


def plot_depths(curves: Sequence[DepthCurve], path: str | Path) -> None:
    """R^2 by depth with intervals, a line per pooling, a panel per store; baselines across, the encoder's own depth."""
    figure = Figure(figsize=(5.2 * len(curves) + 1.6, 3.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(curves)))
    for axes, curve in zip(panels, curves, strict=True):
        for name, row in curve.scores.items():
            line = {"color": _COLOURS[name], "linestyle": _LINES.get(name, "-"), "label": name.replace("_", " ")}
            axes.plot(curve.depths, [each.r2 for each in row], marker="o", **line)
            low, high = [each.low for each in row], [each.high for each in row]
            axes.fill_between(curve.depths, low, high, color=_COLOURS[name], alpha=0.12, linewidth=0)
        for (name, each), style in zip(curve.baselines.items(), ("--", ":"), strict=True):
            axes.axhline(each.r2, color=GREY, linestyle=style, label=name)
        axes.axvline(curve.read_depth, color=GREY, alpha=0.3, linewidth=6, zorder=0, label="features are read here")
        axes.set(xlabel="blocks", ylabel=f"R² of {curve.target}", title=curve.part)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
