"""`tracker=`: what a run logs goes to TensorBoard, Weights & Biases or trackio as well; metrics.jsonl is the record.

Nothing leaves the machine unless the user says so: W&B is offline without WANDB_MODE, the others are local anyway.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from embodied.core.errors import MissingExtraError, unknown_name
from embodied.core.files import hash_json
from embodied.core.protocols import LogMetrics
from embodied.core.run_folder import RunFolder

PROJECT = "embodied"
PACKAGES = {"tensorboard": ("tensorboardX", "tracking"), "wandb": ("wandb", "wandb"), "trackio": ("trackio", "trackio")}
"""Per tracker the package that it needs and the extra that installs it."""


@dataclass(frozen=True)
class Tracker:
    """Where records and pictures go.

    Attributes:
        log: takes a record with its `step`.
        show: takes a step and the PNG of a picture that belongs to it.
    """

    log: LogMetrics
    show: Callable[[int, Path], None]


def check_tracker(name: str | None) -> None:
    """Before anything is written.

    Raises:
        UsageError: there is no such tracker.
        MissingExtraError: its package is not installed.
    """
    if name is None:
        return
    if name not in PACKAGES:
        raise unknown_name("tracker", name, PACKAGES)
    package, extra = PACKAGES[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # a folder wandb/ that runs have left is no package
        raise MissingExtraError(package, extra)


@contextmanager
def open_records(
    run: RunFolder, config: DictConfig, *, done: int, first: bool
) -> Iterator[tuple[LogMetrics, Callable[[int, Path], None]]]:
    """Where a run's records go, and its pictures: metrics.jsonl, and what `tracker=` names.

    Args:
        run: its folder.
        config: of the run, with `tracker`.
        done: the step that it goes on from.
        first: of the processes that train together; the others record nothing.
    """
    if not first:
        yield (lambda record: None), (lambda step, path: None)
        return
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict), type(settings)
    named = {str(key): value for key, value in settings.items()}
    with run.metrics(keep=done or -1) as metrics, open_tracker(config.tracker, run, named, done=done) as tracker:

        def log(record: Mapping[str, float | int | str]) -> None:
            metrics(record)
            tracker.log(record)

        yield log, tracker.show


@contextmanager
def open_tracker(name: str | None, run: RunFolder, config: Mapping[str, Any], *, done: int) -> Iterator[Tracker]:
    """What `check_tracker` has let through, until the block ends; None for one that keeps nothing.

    Args:
        name: None, or one of `PACKAGES`.
        run: TensorBoard's and W&B's files go into its folder; a resumed run goes on in the same place.
        config: shown beside the curves.
        done: the step that the run goes on from, 0 for a new one.
    """
    if name is None:
        yield Tracker(lambda record: None, lambda step, path: None)
        return
    opened = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}[name]
    with opened(run, config, done) as tracker:
        yield tracker


@contextmanager
def _tensorboard(run: RunFolder, config: Mapping[str, Any], done: int) -> Iterator[Tracker]:
    from tensorboardX import SummaryWriter

    # What a killed attempt wrote after its checkpoint is hidden, all of it where there is none.
    purge = done + 1 if done else 0
    writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=purge, flush_secs=20)

    def log(record: Mapping[str, float | int | str]) -> None:
        step, values = _numbers(record)
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    def show(step: int, path: Path) -> None:
        name, pixels = _picture(path)
        writer.add_image(name, pixels, step, dataformats="HWC")

    try:
        if not done:
            writer.add_text("config", _indented(config), 0)
        yield Tracker(log, show)
    finally:
        writer.close()


@contextmanager
def _wandb(run: RunFolder, config: Mapping[str, Any], done: int) -> Iterator[Tracker]:
    import wandb

    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=run.path.name,
        id=hash_json([str(run.path.resolve()), run.config_hash])[:16],
        resume="allow",
        config=dict(config),
        dir=str(run.path),
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=wandb.Settings(console="off"),  # a progress bar is no log
    )

    def log(record: Mapping[str, float | int | str]) -> None:
        step, values = _numbers(record)
        opened.log(values, step=step)

    def show(step: int, path: Path) -> None:
        name, pixels = _picture(path)
        opened.log({name: wandb.Image(pixels)}, step=step)

    try:
        yield Tracker(log, show)
    except BaseException:
        opened.finish(exit_code=1)
        raise
    opened.finish()


@contextmanager
def _trackio(run: RunFolder, config: Mapping[str, Any], done: int) -> Iterator[Tracker]:
    import trackio

    # Its runs have no identity but the name, which two run folders may share.
    unique = f"{run.path.name}-{hash_json(str(run.path.resolve()))[:6]}"
    opened = trackio.init(
        project=PROJECT, name=unique, config=dict(config), resume="allow" if done else "never", embed=False
    )

    def log(record: Mapping[str, float | int | str]) -> None:
        step, values = _numbers(record)
        opened.log(values, step=step)

    def show(step: int, path: Path) -> None:
        name, pixels = _picture(path)
        opened.log({name: trackio.Image(pixels)}, step=step)

    try:
        yield Tracker(log, show)
    finally:
        trackio.finish()


def _numbers(record: Mapping[str, float | int | str]) -> tuple[int, dict[str, float]]:
    """The step, and all finite numbers beside it: what is not finite has no place on a curve."""
    values = {key: float(value) for key, value in record.items() if key != "step" and not isinstance(value, str)}
    return int(record["step"]), {key: value for key, value in values.items() if math.isfinite(value)}


def _picture(path: Path) -> tuple[str, np.ndarray]:
    """Name, without the step, and pixels of `<name>_<step>.png`."""
    from PIL import Image

    with Image.open(path) as image:
        return path.stem.rsplit("_", 1)[0], np.asarray(image.convert("RGB"))


def _indented(config: Mapping[str, Any]) -> str:
    """Markdown that shows the settings as they are in config.yaml."""
    return "".join(f"    {line}\n" for line in OmegaConf.to_yaml(OmegaConf.create(dict(config))).splitlines())
