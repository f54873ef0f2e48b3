"""The figures of a scene: profile, demonstrations, ranks, who beats whom."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from embodied.bench.html import scrolled
from embodied.bench.tables.contenders import Contender
from embodied.bench.tables.figures import Chart, Line, stacked_bar, swatch
from embodied.bench.tables.ranking import Inks
from embodied.bench.tables.scenes import Scene


def profile_chart(scene: Scene, inks: Inks) -> Chart:
    """Performance profiles with their bands."""
    lines = []
    for row in scene.rows:
        if row.profile is not None:
            profile = row.profile
            band = (None, None) if profile.low is None or profile.high is None else (profile.low, profile.high)
            lines.append(
                Line(
                    label=row.contender.label,
                    ink=inks[row.contender],
                    x=profile.thresholds.tolist(),
                    y=profile.share.tolist(),
                    low=None if band[0] is None else band[0].tolist(),
                    high=None if band[1] is None else band[1].tolist(),
                )
            )
    ticks = (0, 0.25, 0.5, 0.75, 1.0)
    return Chart(lines=lines, x_label="score", y_label="share of runs above it", x_ticks=ticks, height=300)


def profile_legend(scene: Scene, inks: Inks) -> str:
    """Who is who in the profiles, and in all charts of the scene."""
    return _legend([row.contender for row in scene.rows if row.profile is not None], inks)


def demos_chart(scene: Scene, inks: Inks) -> Chart:
    """IQM by number of demonstrations; no lines where there is one number only."""
    lines = [
        Line(
            label=row.contender.label,
            ink=inks[row.contender],
            x=[float(number) for number in row.by_demos],
            y=[estimate.value for estimate in row.by_demos.values()],
            low=[estimate.value if estimate.low is None else estimate.low for estimate in row.by_demos.values()],
            high=[estimate.value if estimate.high is None else estimate.high for estimate in row.by_demos.values()],
            markers=True,
        )
        for row in scene.rows
        if row.by_demos
    ]
    ticks = sorted({value for line in lines for value in line.x})
    return Chart(lines=lines, x_label="demonstrations", y_label="IQM", x_ticks=ticks, height=300)


def rank_chart(scene: Scene, inks: Inks) -> str:
    """For each ranked contender the share of resamples in which it has rank 1, 2, ..."""
    if scene.ranks is None:
        return ""
    count = len(scene.ranked)
    rows = []
    for place in scene.ranks.order:
        contender = scene.ranked[place]
        shares = [
            (f"rank {rank + 1}: {share:.0%}", float(share), _tint(rank, count))
            for rank, share in enumerate(scene.ranks.probabilities[place])
        ]
        first = float(scene.ranks.probabilities[place][0])
        rows.append(
            f'<tr data-c="{inks[contender].key}"><td class="name">{swatch(inks[contender])}'
            f"{escape(contender.label)}</td><td>{stacked_bar(shares, width=200)}</td>"
            f'<td class="number">{first:.0%}</td></tr>'
        )
    whole = f"The whole order holds in {scene.ranks.whole:.0%} of the resamples. The strongest colour is rank 1."
    head = "<tr><th>contender</th><th>ranks</th><th>is first</th></tr>"
    return scrolled(f"<table>{head}{''.join(rows)}</table>") + f'<p class="soft">{whole}</p>'


def _tint(rank: int, count: int) -> str:
    """The accent colour: strong for rank 1, faint for the last."""
    percent = 100 - round(88 * rank / max(1, count - 1))
    return f"color-mix(in srgb, var(--accent) {percent}%, var(--card))"


def pairwise_table(scene: Scene, inks: Inks) -> str:
    """Probability of improvement of every pair as a shaded matrix."""
    shown = [row.contender for row in scene.rows if row.aggregates]
    if len(shown) < 2:
        return ""
    numbers = {contender: str(place) for place, contender in enumerate(shown, 1)}
    head = "".join(f'<th title="{escape(item.label)}">{numbers[item]}</th>' for item in shown)
    rows = []
    for first in shown:
        cells = []
        for second in shown:
            value = scene.pairwise.get((first, second))
            if value is None:
                cells.append('<td class="cell soft">·</td>')
            else:
                title = f"{first.label} beats {second.label} in {value:.0%}"
                cells.append(f'<td class="cell" style="--v:{value:.2f}" title="{escape(title)}">{100 * value:.0f}</td>')
        rows.append(
            f'<tr data-c="{inks[first].key}"><td class="name">{numbers[first]} {swatch(inks[first])}'
            f"{escape(first.label)}</td>{''.join(cells)}</tr>"
        )
    return scrolled(f'<table class="matrix"><tr><th></th>{head}</tr>{"".join(rows)}</table>')


def _legend(contenders: Sequence[Contender], inks: Inks) -> str:
    items = []
    for item in contenders:
        dash = f' stroke-dasharray="{inks[item].dash}"' if inks[item].dash else ""
        items.append(
            f'<span data-c="{inks[item].key}"><svg width="22" height="8" style="--ink:{inks[item].color}">'
            f'<line class="curve" x1="0" x2="22" y1="4" y2="4"{dash}/></svg> {escape(item.label)}</span>'
        )
    return f'<p class="legend">{" ".join(items)}</p>'
