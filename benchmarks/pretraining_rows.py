"""The table of pretraining_table.py: from the folders of its runs to table.md, table.json and table_<scene>.png."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.bench.bench_folders import read_folder
from embodied.bench.cells import CellResult
from embodied.bench.inspection.measure import MEAN, PIXELS
from embodied.bench.plots import Row, plot_comparison
from embodied.bench.suite import MANDATORY
from embodied.bench.tables.contenders import BASELINES, make_entry
from embodied.core.errors import UserError
from embodied.core.files import write_json, write_text
from embodied.core.run_folder import read_metrics

BENCH_TASKS = ("hammer-v3", "assembly-v3")
SCENES = ("static", "varied")
RANDOM = "random init"  # untrained weights of the architecture of all others
POOLED, GRID = "pooled", "tokens 4x4"  # the first is what the controllers see
NOTHING = "-"
PAIRED = ("pairing", "gap")  # of objectives that see two frames
LABELS = {"pixels": "raw pixels 16x16", "random": "random (architecture of the default encoder)"}


@dataclass
class Line:
    """A row of the table.

    Args:
        name: the objective or baseline.
        reason: why it failed; None if it has not.
        seconds: of pre-training.
        frames_per_second: of pre-training.
        weights: of the encoder.
        differs: settings in which it is not like `mae`.
        probes: records of task, scene, features, and the R^2 of both probes with their intervals.
        success: by `<task> <scene>` mean, low, high (None with nothing to give them) and the number of runs.
        failed_cells: why control has no number, by `<task> <scene>`.
    """

    name: str
    reason: str | None = None
    seconds: float | None = None
    frames_per_second: float | None = None
    weights: int | None = None
    differs: list[str] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    success: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed_cells: dict[str, str] = field(default_factory=dict)


def write_table(
    folder: Path,
    runs: Mapping[str, Path],
    failed: Mapping[str, str],
    *,
    bench: Path,
    batch: int,
    needs: Mapping[str, str],
    reference: DictConfig,
) -> str:
    """Write all files from what there is; returns the main table.

    Args:
        folder: of the whole comparison.
        runs: run folders of the objectives, by name.
        failed: reasons, by name.
        bench: the folder of the benchmark.
        batch: frames of a step.
        needs: which objective learns from the result of which.
        reference: the configuration that the others are compared with.
    """
    results = bench_results(bench)
    lines = []
    for name, run in runs.items():
        line = Line(name, reason=failed.get(name))
        if line.reason is None:
            add_training(line, run, batch, needs.get(name), reference)
            add_probes(line, folder / "inspect" / name / "numbers.json")
        add_success(line, results, str(run / "encoder"))
        lines.append(line)
    lines += baseline_lines(folder, [line for line in lines if line.probes], results)
    write_json(folder / "table.json", [asdict(line) for line in lines])
    table = main_table(lines)
    parts = [table, *(f"Settings that differ:\n\n{text}" for text in [differences(lines)] if text)]
    parts += [f"R² of the simulator's state, {scene} scene\n\n{probe_table(lines, scene)}" for scene in SCENES]
    write_text(folder / "table.md", "\n\n".join(parts) + "\n")
    for scene in SCENES:
        plot_scene(lines, scene, folder / f"table_{scene}.png")
    return table


def bench_results(folder: Path) -> Sequence[CellResult]:
    """All cells that have ended; none if the benchmark has not begun."""
    try:
        return read_folder(folder).results
    except UserError:  # no folder, or nothing in it yet
        return ()


def add_training(line: Line, run: Path, batch: int, need: str | None, reference: DictConfig) -> None:
    """Time, from the speed between records: a training that was killed counts what it has kept; and what differs."""
    records = [record for record in read_metrics(run / "metrics.jsonl") if "frames_per_second" in record]
    if records:
        steps = [record["step"] for record in records]
        parts = zip(records, [0, *steps], strict=False)
        line.seconds = sum((record["step"] - before) * batch / record["frames_per_second"] for record, before in parts)
        line.frames_per_second = steps[-1] * batch / line.seconds
    if (run / "config.yaml").is_file():
        theirs, ours = flat_settings(reference), flat_settings(OmegaConf.load(run / "config.yaml"))
        line.differs = [f"{key}={value}" for key, value in ours.items() if theirs.get(key) != value]
    if need is not None:
        line.differs.append(f"learns from the result of {need}, whose time is not counted here")


def flat_settings(resolved: Any) -> dict[str, str]:
    """Data, encoder and training of a resolved configuration."""
    config = OmegaConf.to_container(resolved)
    assert isinstance(config, dict), config
    found = {f"{group}.{key}": str(value) for group in ("encoder", "train") for key, value in config[group].items()}
    data = config["data"] if isinstance(config["data"], list) else [config["data"]]
    paired = {f"objective.{key}": str(config["objective"][key]) for key in PAIRED if key in config["objective"]}
    return {"data": "+".join(Path(str(each)).name for each in data), **found, **paired}


def add_probes(line: Line, path: Path) -> None:
    """What `embodied inspect` measured on the encoder's own features."""
    numbers = json.loads(path.read_text(encoding="utf-8"))
    line.weights = numbers["parameters"]
    line.probes = [record for record in probe_records(numbers) if record["features"] not in (PIXELS, MEAN)]


def probe_records(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One flat record per store and kind of features; stores are called `<task>-<scene>`."""
    found = []
    for part in numbers["probes"]:
        task, _, scene = part["part"].partition(",")[0].rpartition("-")
        found += [{"task": task, "scene": scene, **row} for row in part["rows"]]
    return found


def add_success(line: Line, results: Sequence[CellResult], encoder: str) -> None:
    """What the controllers on its features achieved."""
    for task in BENCH_TASKS:
        for scene in SCENES:
            own = [result for result in results if result.cell.encoder == encoder]
            entry = make_entry([each for each in own if (each.cell.task, each.cell.variant) == (task, scene)])
            key = f"{task} {scene}"
            if entry.failed:
                line.failed_cells[key] = entry.failed[0].reason
            if entry.estimate is not None:
                found = entry.estimate
                low, high = entry.one_policy_interval or (found.low, found.high)
                line.success[key] = {"mean": found.value, "low": low, "high": high, "runs": len(entry.runs)}


def baseline_lines(folder: Path, measured: Sequence[Line], results: Sequence[CellResult]) -> list[Line]:
    """The baselines of control; raw pixels with their probes, which stand beside those of any encoder."""
    lines = []
    for name in sorted(MANDATORY, key=BASELINES.index):
        line = Line(LABELS.get(name, name))
        add_success(line, results, name)
        if name == "pixels" and measured:
            numbers = json.loads((folder / "inspect" / measured[0].name / "numbers.json").read_text(encoding="utf-8"))
            line.probes = [
                {**record, "features": features}
                for features in (POOLED, GRID)
                for record in probe_records(numbers)
                if record["features"] == PIXELS
            ]
        lines.append(line)
    return lines


def main_table(lines: Sequence[Line]) -> str:
    """Markdown: R^2 of linear probes as means over tasks, success with intervals; who failed says why."""
    columns = [f"{task} {scene}" for scene in SCENES for task in BENCH_TASKS]
    probes = [f"R² {features}, {scene}" for features in (POOLED, GRID) for scene in SCENES]
    rows = []
    for line in lines:
        seconds = NOTHING if line.seconds is None else f"{line.seconds:.0f}"
        cells = [f"failed: {line.reason}".replace("|", "/") if line.reason else seconds]
        cells += [mean_r2(line, features, scene) for features in (POOLED, GRID) for scene in SCENES]
        rows.append([line.name, *cells, *(success_text(line, column) for column in columns)])
    return markdown(["objective", "seconds", *probes, *columns], rows)


def mean_r2(line: Line, features: str, scene: str) -> str:
    """Mean over the tasks, of the linear probe."""
    found = [each["linear"]["r2"] for each in line.probes if (each["scene"], each["features"]) == (scene, features)]
    return f"{fmean(found):.3f}" if found else NOTHING


def success_text(line: Line, column: str) -> str:
    """`55 % (40 to 69)`; why there is none."""
    if column not in line.success:
        return "failed" if column in line.failed_cells else NOTHING
    found = line.success[column]
    interval = "" if found["low"] is None else f" ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
    return f"{100 * found['mean']:.0f} %{interval}"


def differences(lines: Sequence[Line]) -> str:
    """A list of what is not alike, and of cells without a number."""
    found = [f"- {line.name}: {', '.join(line.differs)}" for line in lines if line.differs]
    common = max((line.weights for line in lines if line.name == RANDOM and line.weights), default=None)
    found += [
        f"- {line.name}: {line.weights:,} weights in the encoder instead of {common:,}"
        for line in lines
        if common and line.weights and line.weights != common
    ]
    found += [f"- {line.name}, {key}: {text}" for line in lines for key, text in line.failed_cells.items()]
    return "\n".join(found)


def probe_table(lines: Sequence[Line], scene: str) -> str:
    """Markdown of every kind of features, with 95 % intervals over episodes."""
    rows = []
    for line in lines:
        for kind in dict.fromkeys(each["features"] for each in line.probes):
            own = {each["task"]: each for each in line.probes if (each["scene"], each["features"]) == (scene, kind)}
            scores = [own[task][probe] if task in own else None for task in BENCH_TASKS for probe in ("linear", "knn")]
            cells = [f"{one['r2']:.3f} ({one['low']:.3f} to {one['high']:.3f})" if one else NOTHING for one in scores]
            rows.append([line.name, kind, *cells])
    heads = [f"{task}, {probe}" for task in BENCH_TASKS for probe in ("linear", "kNN")]
    return markdown(["objective", "features", *heads], rows)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def plot_scene(lines: Sequence[Line], scene: str, path: Path) -> None:
    """Success per task with intervals; who has no number has no mark."""
    groups = {}
    for task in BENCH_TASKS:
        found = [
            (line.name, line.success.get(f"{task} {scene}", {"mean": nan, "low": nan, "high": nan})) for line in lines
        ]
        groups[f"{task}, {scene}"] = [
            Row(
                label=name, mean=one["mean"], low=_known(one["low"], one["mean"]), high=_known(one["high"], one["mean"])
            )
            for name, one in found
        ]
    plot_comparison(groups, path)


def _known(bound: float | None, mean: float) -> float:
    return mean if bound is None else bound
