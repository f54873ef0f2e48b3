"""What a benchmark cost: its cells by contender and phase, and the demonstrations that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from embodied.bench.html import scrolled, table
from embodied.bench.store_costs import StoreCost
from embodied.bench.tables.contenders import Contender, contender_of
from embodied.bench.tables.figures import stacked_bar, swatch
from embodied.bench.tables.ranking import Inks
from embodied.bench.tables.scenes import BenchTables


def cost_section(tables: BenchTables, looks: Inks, stores: Sequence[StoreCost]) -> str:
    """The tables of costs."""
    return _cells(tables, looks) + _stores(stores)


def _cells(tables: BenchTables, looks: Inks) -> str:
    seconds: dict[Contender, dict[str, float]] = {contender: defaultdict(float) for contender in tables.contenders}
    cells: dict[Contender, int] = defaultdict(int)
    cpu: dict[Contender, float] = defaultdict(float)
    measured = all(result.cpu_seconds for result in tables.results if result.episodes)
    for result in tables.results:
        name = contender_of(result)
        cells[name] += 1
        cpu[name] += sum(result.cpu_seconds.values())
        for phase, value in result.seconds.items():
            seconds[name][phase] += value
    phases = list(dict.fromkeys(phase for found in seconds.values() for phase in found))
    most = max((sum(found.values()) for found in seconds.values()), default=0.0) or 1.0
    rows = []
    for contender, found in sorted(seconds.items(), key=lambda item: -sum(item[1].values())):
        shares = [
            (f"{phase} {found.get(phase, 0.0):.0f} s", found.get(phase, 0.0) / most, f"var(--c{place % 12})")
            for place, phase in enumerate(phases)
        ]
        numbers = [f"{found.get(phase, 0.0):.0f}" for phase in phases]
        rows.append(
            [
                swatch(looks[contender]) + escape(contender.label),
                str(cells[contender]),
                *numbers,
                f"<b>{sum(found.values()):.0f}</b>",
                *([f"{cpu[contender]:.0f}"] if measured else []),
                stacked_bar(shares),
            ]
        )
    legend = " ".join(
        f'<span><i class="swatch" style="--ink:var(--c{place % 12})"></i>{escape(phase)}</span>'
        for place, phase in enumerate(phases)
    )
    processor = ["processor s"] if measured else []
    names = ["contender", "cells", *(f"{phase} s" for phase in phases), "all s", *processor, ""]
    told = " Processor seconds are those of a worker and its simulators; on a GPU the others are seconds it was held."
    return (
        '<p class="soft">Seconds by phase. Features are made once and shared, so whose cell came first pays for '
        f'encoding.{told if measured else ""}</p><p class="legend">{legend}</p>'
        f"{scrolled(table(names, rows, is_html=True))}"
    )


def _stores(stores: Sequence[StoreCost]) -> str:
    if not stores:
        return ""
    rows = [
        [
            f"{store.task} ({store.variant})",
            str(store.episodes or ""),
            str(store.frames or ""),
            f"{store.seconds:.0f}",
            "" if store.cpu_seconds is None else f"{store.cpu_seconds:.0f}",
            "the cache had them, or some of them" if store.begun_before else "",
        ]
        for store in stores
    ]
    names = ["demonstrations", "episodes", "frames", "s", "processor s", ""]
    return (
        '<h3>Demonstrations</h3><p class="soft">Collected once per task and look, for all cells: in no contender\'s '
        f"seconds.</p>{scrolled(table(names, rows))}"
    )
