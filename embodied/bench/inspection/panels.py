"""The pictures of a page, each the HTML of a section: colours of features, neighbours, where the encoder looks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embodied.bench.inspection.choices import Place, pairs, patch_index, query_frames, shown_frames
from embodied.bench.inspection.features import device_of, read_tokens
from embodied.bench.inspection.pictures import heat, jpeg_uri, png_uri, principal_colours, thumbnail
from embodied.bench.inspection.probes import unit_rows
from embodied.bench.inspection.samples import Part
from embodied.encoders.attention import class_attention

QUERIES, NEIGHBOURS, ATTENDED, PAIRS = 6, 5, 6, 4
CLICKABLE = 256  # patches of a frame: the cosines of all pairs lie in the page, 0.2 MB for each of the frames to find
_RAMP = '<span class="ramp"></span>'


def colours_panel(encoder: nn.Module, parts: Sequence[Part]) -> str:
    """Patch features of rows of frames, one PCA for all."""
    rows = shown_frames(parts)
    places = [place for row in rows for place in row]
    colours, shares = principal_colours(_tokens(encoder, parts, places))
    maps = dict(zip(places, colours.reshape(len(places), *encoder.grid, 3), strict=True))  # type: ignore[misc]
    strips = [
        _strip(
            f"<figure>{_frame(parts, place)}{_map(maps[place])}{_caption(_label(parts, place))}</figure>"
            for place in row
        )
        for row in rows
    ]
    percent = ", ".join(f"{share:.0%}" for share in shares)
    text = (
        "One PCA of the patch features of all frames here; the three main directions are red, green and blue. The same "
        "colour is the same feature: things should keep theirs over time, and differ from what is around them. "
        f"Share of the variance: {percent}."
    )
    return _section("Features as colours", text, strips)


def neighbours_panel(parts: Sequence[Part], features: Sequence[Mapping[str, np.ndarray]]) -> str:
    """The nearest frames of other episodes, by the cosine of centred pooled features."""
    values = np.concatenate([each["pooled"] for each in features]).astype(np.float64)
    unit = unit_rows(values - values.mean(axis=0))
    owners = np.concatenate([np.full(len(part), number) for number, part in enumerate(parts)])
    episodes = np.concatenate([part.episodes for part in parts])
    starts = np.cumsum([0, *map(len, parts)])
    strips = []
    for number, index in query_frames(parts, QUERIES):
        row = starts[number] + index
        cosines = unit @ unit[row]
        cosines[(owners == number) & (episodes == parts[number].episodes[index])] = -np.inf
        best = [one for one in _distinct(cosines, owners, episodes) if np.isfinite(cosines[one])]
        if not best:
            continue
        figures = [
            f'<figure class="query">{_frame(parts, (number, index))}{_caption(_label(parts, (number, index)))}</figure>'
        ]
        for one in best:
            place = int(owners[one]), int(one - starts[owners[one]])
            words = f"cos {cosines[one]:.2f}; {_label(parts, place)}"
            figures.append(f"<figure>{_frame(parts, place)}{_caption(words)}</figure>")
        strips.append(_strip(figures))
    text = (
        "Left a frame, beside it the most similar frames of other episodes (cosine of pooled features after the mean "
        "is taken off, one frame per episode). They should show the same moment of the task, or the same kind of thing."
    )
    if not strips:
        text = "All frames are of one episode: there are no other episodes to look in."
    return _section("Nearest neighbours", text, strips)


def attention_panel(encoder: nn.Module, parts: Sequence[Part]) -> str:
    """The class token's attention in the last block; says so where the encoder has none."""
    places = query_frames(parts, ATTENDED)
    device, figures = device_of(encoder), []
    for place in places:
        frame = parts[place[0]].frames[place[1]]
        batch = torch.from_numpy(np.ascontiguousarray(frame[None])).to(device)
        weights = class_attention(encoder, encoder.preprocess(batch))  # type: ignore[operator]
        if weights is None:
            text = (
                "No class token whose attention could be read: look at where patches find their like, below. "
                "(Read are this package's transformers and those of hf:.)"
            )
            return _section("Where the class token looks", text, [])
        mean = weights[0].mean(dim=0).float().cpu().numpy()  # (N,)
        picture = heat(frame, mean.reshape(encoder.grid), low=0.0, high=float(np.quantile(mean, 0.99)))  # type: ignore[arg-type]
        words = f"{mean.sum():.0%} on patches; {_label(parts, place)}"
        figures.append(f"<figure>{_frame(parts, place)}{_picture(picture)}{_caption(words)}</figure>")
    text = (
        "Attention of the class token in the last block, mean of the heads, each frame on a scale of its own: "
        f"nothing {_RAMP} much. What is not on patches is on class tokens and registers."
    )
    return _section("Where the class token looks", text, [_strip(figures)])


def correspondence_panel(encoder: nn.Module, parts: Sequence[Part]) -> str:
    """Cosine of one patch to all patches of its own frame and of others; a click chooses another patch."""
    grid: tuple[int, int] = encoder.grid  # type: ignore[assignment]
    clickable = grid[0] * grid[1] <= CLICKABLE
    strips = []
    for pair in pairs(parts, PAIRS, grid=grid):
        places = [pair.frame, *pair.others]
        tokens = _tokens(encoder, parts, places).astype(np.float64)
        tokens -= tokens.mean(axis=(0, 1))
        unit = tokens / np.maximum(np.linalg.norm(tokens, axis=2, keepdims=True), 1e-12)
        row, column = patch_index(pair.patch, grid)
        cosines = np.einsum("nd,fmd->nfm", unit[0], unit)  # (N, F, N)
        figures = [
            f'<figure class="query"><span class="framed">{_frame(parts, pair.frame)}{_box(row, column, grid)}</span>'
            f"{_caption(_label(parts, pair.frame))}</figure>"
        ]
        for place, values in zip(places, cosines[row * grid[1] + column], strict=True):
            picture = heat(parts[place[0]].frames[place[1]], values.reshape(grid), low=0.0, high=1.0)
            found = "itself" if place == pair.frame else f"cos up to {values.max():.2f}"
            words = f"<figcaption><output>{found}</output>; {escape(_label(parts, place))}</figcaption>"
            figures.append(f"<figure>{_frame(parts, place)}{_picture(picture)}{words}</figure>")
        strips.append(_strip(figures, attributes=_cosines(cosines, grid) if clickable else ""))
    text = (
        "One patch (yellow; where most moves, or of a photograph where most is to be seen) and how similar every patch "
        "is to it, in its own frame, at another time, in another episode: cosine after the mean is taken off, 0 "
        f"{_RAMP} 1. A good encoder finds the same part again, and little else."
    )
    return _section(
        "Where is this patch?", text + (" Click another patch of a left frame." if clickable else ""), strips
    )


def reconstruction_panel(pictures: Path | None) -> str:
    """What the pre-training of this encoder drew; nothing where there is no such picture."""
    if pictures is None:
        return ""
    from PIL import Image

    shown = png_uri(np.asarray(Image.open(pictures).convert("RGB")))
    text = "Drawn at the end of the pre-training, from frames of its data: what goes in, what is predicted."
    return _section("Reconstructions", text, [f'<div class="scroll"><img alt="reconstructions" src="{shown}"></div>'])


def _distinct(cosines: np.ndarray, owners: np.ndarray, episodes: np.ndarray) -> list[int]:
    """The best frames, at most one of an episode: neighbours in time say nothing new."""
    found: dict[tuple[int, int], int] = {}
    for one in np.argsort(-cosines, kind="stable"):
        found.setdefault((int(owners[one]), int(episodes[one])), int(one))
        if len(found) == NEIGHBOURS:
            break
    return list(found.values())


def _tokens(encoder: nn.Module, parts: Sequence[Part], places: Sequence[Place]) -> np.ndarray:
    """Patch tokens [F, N, D]; frames of different parts have different sizes."""
    return np.concatenate([read_tokens(encoder, parts[part].frames[index][None]) for part, index in places])


def _label(parts: Sequence[Part], place: Place) -> str:
    part = parts[place[0]]
    return part.labels[place[1]] if len(parts) == 1 else f"{part.name}, {part.labels[place[1]]}"


def _frame(parts: Sequence[Part], place: Place) -> str:
    return _picture(thumbnail(parts[place[0]].frames[place[1]]))


def _picture(picture: np.ndarray) -> str:
    return f'<img alt="" src="{jpeg_uri(picture)}">'


def _map(colours: np.ndarray) -> str:
    return f'<img class="map" alt="" src="{png_uri(colours)}">'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>"


def _box(row: int, column: int, grid: tuple[int, int]) -> str:
    """A patch's outline over a frame."""
    top, left = 100 * row / grid[0], 100 * column / grid[1]
    return (
        f'<span class="box" style="top:{top:.3f}%;left:{left:.3f}%;width:{100 / grid[1]:.3f}%;'
        f'height:{100 / grid[0]:.3f}%"></span>'
    )


def _cosines(cosines: np.ndarray, grid: tuple[int, int]) -> str:
    """What inspect.js reads: cosines [N, F, N] from 0 to 1 as bytes."""
    levels = (np.clip(cosines, 0, 1) * 255).round().astype(np.uint8)
    return f' data-grid="{grid[0]} {grid[1]}" data-cosines="{b64encode(levels.tobytes()).decode()}"'


def _strip(figures: Iterable[str], *, attributes: str = "") -> str:
    return f'<div class="strip"{attributes}>{"".join(figures)}</div>'


def _section(title: str, text: str, strips: Sequence[str]) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="soft">{text}</p>{"".join(strips)}</section>'
