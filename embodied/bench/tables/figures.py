"""Drawings of a page, as inline SVG: intervals, lines with bands, stacked bars. Colours come from the page's style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.tables.contenders import BASELINES, Contender

HUES = 12
DASHES = ("", "6 3", "2 3", "9 3 2 3")
BASELINE_DASHES = {"random": "6 3", "pixels": "2 3", "proprioception": "9 3 2 3"}


@dataclass(frozen=True)
class Ink:
    """How a contender looks in every drawing: a number that ties its parts together, a colour, a dash."""

    key: int
    color: str
    dash: str

    @property
    def stroke(self) -> str:
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        return f'style="--ink:{self.color}"{dash}'


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart, with a band where `low` and `high` are given."""

    label: str
    ink: Ink
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What `line_chart` draws, before it is drawn."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    x_ticks: Sequence[float] | None = None
    width: int = 460
    height: int = 260

    def drawn(self) -> str:
        """Inline SVG for a page; empty text without lines."""
        return line_chart(
            self.lines,
            x_label=self.x_label,
            y_label=self.y_label,
            x_ticks=self.x_ticks,
            width=self.width,
            height=self.height,
        )


def inks(contenders: Sequence[Contender]) -> dict[Contender, Ink]:
    """Colours for what is compared, greys for the baselines; the dash tells one encoder's controllers apart.

    The controller that most of them have is drawn without one. Baselines of one controller have a dash each instead:
    their greys alone are too alike.
    """
    count = Counter(contender.controller for contender in contenders)
    controllers = sorted(count, key=lambda name: (-count[name], name))
    encoders = list(dict.fromkeys(contender.encoder for contender in contenders if not contender.baseline))
    alone = len({contender.controller for contender in contenders if contender.baseline}) == 1
    found = {}
    for key, contender in enumerate(contenders):
        dash = DASHES[controllers.index(contender.controller) % len(DASHES)]
        if contender.baseline:
            color = f"var(--b{BASELINES.index(contender.encoder)})"
            dash = BASELINE_DASHES.get(contender.encoder, "") if alone else dash
        else:
            color = f"var(--c{encoders.index(contender.encoder) % HUES})"
        found[contender] = Ink(key, color, dash)
    return found


def swatch(ink: Ink) -> str:
    """A dot in a contender's colour."""
    return f'<i class="swatch" style="--ink:{ink.color}"></i>'


def interval_bar(estimate: Estimate, ink: Ink, *, scale: tuple[float, float] = (0.0, 1.0), width: int = 110) -> str:
    """A dot with its interval over a scale; a hollow dot has no interval."""
    first, last = scale

    def place(value: float) -> float:
        return 4 + (width - 8) * min(max((value - first) / (last - first), 0.0), 1.0)

    parts = [f'<line class="track" x1="4" x2="{width - 4}" y1="8" y2="8"/>']
    if first < 0 < last:
        parts.append(f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="2" y2="14"/>')
    text = f"{estimate.value:.3f}, no interval: a single seed"
    if estimate.low is not None and estimate.high is not None:
        text = f"{estimate.value:.3f}, 95 % interval {estimate.low:.3f} to {estimate.high:.3f}"
        low, high = place(estimate.low), place(estimate.high)
        parts.append(f'<line class="span" x1="{low:.1f}" x2="{max(high, low + 0.5):.1f}" y1="8" y2="8"/>')
    hollow = " hollow" if estimate.low is None else ""
    parts.append(f'<circle class="dot{hollow}" cx="{place(estimate.value):.1f}" cy="8" r="3.6"/>')
    return (
        f'<svg class="bar" width="{width}" height="16" viewBox="0 0 {width} 16" role="img" style="--ink:{ink.color}">'
        f"<title>{text}</title>{''.join(parts)}</svg>"
    )


def seed_dots(scores: Sequence[float], seeds: Sequence[int], estimate: Estimate, ink: Ink, *, width: int = 220) -> str:
    """Every seed's score, small, over the interval of their mean."""
    bar = interval_bar(estimate, ink, width=width)
    dots = "".join(
        f'<circle class="seed" cx="{4 + (width - 8) * score:.1f}" cy="8" r="2.2"><title>seed {seed}: {score:.3f}'
        "</title></circle>"
        for score, seed in zip(scores, seeds, strict=True)
    )
    return bar.removesuffix("</svg>") + dots + "</svg>"


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    width: int = 460,
    height: int = 260,
) -> str:
    """Lines over [0, 1], with bands; empty text without lines."""
    if not lines:
        return ""
    left, right, top, bottom = 46, 12, 10, 40
    values = [value for line in lines for value in line.x]
    first, last = min(values), max(values)
    last = last if last > first else first + 1.0

    def at(x: float, y: float) -> str:
        across = left + (width - left - right) * (x - first) / (last - first)
        return f"{across:.1f},{top + (height - top - bottom) * (1 - min(max(y, 0.0), 1.0)):.1f}"

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = at(first, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:.2g}</text>')
    for tick in x_ticks or (first, (first + last) / 2, last):
        x = at(tick, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - bottom + 16}" text-anchor="middle">{_short(tick)}</text>')
    middle = left + (width - left - right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="name" transform="translate(11 {top + (height - top - bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for line in lines:
        parts.append(_line(line, at))
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _line(line: Line, at: Callable[[float, float], str]) -> str:
    points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
    parts = [f"<title>{escape(line.label)}</title>"]
    if line.low is not None and line.high is not None:
        upper = [at(x, y) for x, y in zip(line.x, line.high, strict=True)]
        lower = [at(x, y) for x, y in zip(line.x, line.low, strict=True)]
        parts.append(f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(points)}"/>')
    if line.markers or len(points) == 1:
        dots = [point.split(",") for point in points]
        parts += [f'<circle class="dot" cx="{x}" cy="{y}" r="2.6"/>' for x, y in dots]
    return f'<g data-c="{line.ink.key}" {line.ink.stroke}>{"".join(parts)}</g>'


def stacked_bar(shares: Sequence[tuple[str, float, str]], *, width: int = 300, height: int = 14) -> str:
    """Parts of a whole side by side.

    Args:
        shares: label, share of the width in [0, 1], colour.
        width, height: of the drawing.
    """
    parts, start = [], 0.0
    for label, share, color in shares:
        if share > 0:
            parts.append(
                f'<rect x="{start * width:.1f}" width="{share * width:.1f}" height="{height}" style="fill:{color}">'
                f"<title>{escape(label)}</title></rect>"
            )
        start += share
    return f'<svg class="stack" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value == int(value) else f"{value:.2g}"
