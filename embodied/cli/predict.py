"""Let a pre-trained video model continue clips, or expect frames to come, and look at what it predicts.

Films of truth and prediction side by side, a contact sheet, curves over the horizon, and one page with the numbers:
PSNR, SSIM, distances between features and between sets of clips, beside copying the last frame and beside the
tokenizer's own reconstruction. The page opens from disk in any browser; metrics.json beside it is for scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.bench.inspection.samples import spaced
from embodied.bench.prediction.judge import Clips, Judgement, judge, judgement_record, predict_clips
from embodied.bench.prediction.page import header, judgement_rows, prediction_page
from embodied.bench.prediction.pictures import write_contact_sheet, write_curves, write_film
from embodied.bench.video_metrics import FeatureNetwork
from embodied.cli.config import compose_config, positive
from embodied.cli.predict_futures import future_clips, is_gr1, load_gr1
from embodied.cli.pretrain_settings import expand_data
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache, resolve_device
from embodied.core.errors import UsageError
from embodied.core.files import write_json, write_text
from embodied.core.protocols import ACTION, STATE, Reporter
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.clip_sources import Codes, open_clips
from embodied.datasets.loading.clips import ClipDataset
from embodied.datasets.loading.sequence_sources import Caches
from embodied.encoders.artifact import fingerprint
from embodied.encoders.video import VideoEncoder
from embodied.objectives.video.trained import TrainedVideo, load_trained

PAGE, NUMBERS, SHEET, CURVES = "report.html", "metrics.json", "frames.png", "horizon.png"
_FPS = 10.0  # of films whose data say nothing
_SHOWN = 4  # clips on the contact sheet


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied predict`."""
    config = compose_config("predict", arguments)
    if not config.run:
        raise UsageError("which model? write run=<run folder>, as embodied pretrain objective=maskvit printed it")
    positive(config, "episodes", *(name for name in ("frames", "context") if config[name] is not None))
    if isinstance(config.films, bool) or config.films < 0:
        raise UsageError(f"films must be a whole number of at least 0, got {config.films!r}")
    device, console = resolve_device(str(config.device)), Console()
    run, reporter = Path(config.run).expanduser(), RichReporter(console)
    if is_gr1(run):
        gr1, before = load_gr1(run)
        network = FeatureNetwork.load(str(config.features), device=device)
        futures = future_clips(config, gr1.to(device), before, reporter)
        clips, rate, trained_on, model = futures.clips, futures.fps, futures.trained_on, type(gr1).__name__
    else:
        trained = load_trained(run)
        network = FeatureNetwork.load(str(config.features), device=device)
        clips, rate, trained_on = continued_clips(config, run, trained, device=device, reporter=reporter)
        model = type(trained.objective).__name__
    with reporter.phase("judge"):
        judgement = judge(clips, network, seed=int(config.seed), reporter=reporter)
    folder = Path(config.to).expanduser() if config.to else run / "predictions"
    fps = float(config.fps or rate)
    command = shlex.join(["embodied", "predict", *arguments])
    write_all(folder, clips, judgement, network, fps=fps, films=int(config.films), facts={
        "title": f"{model}: predictions", "trained_on": trained_on, "command": command,
    })  # fmt: skip
    show(judgement, console)
    console.print(f"look at [bold]{escape(str(folder / PAGE))}[/]", highlight=False, soft_wrap=True)
    return 0


def continued_clips(
    config: DictConfig, run: Path, trained: TrainedVideo, *, device: torch.device, reporter: Reporter
) -> tuple[Clips, float, bool]:
    """The clips of a model of codes, their frames per second, and whether it was trained on them."""
    trained.objective.to(device)
    with reporter.phase("data"):
        data, trained_on = open_data(config, run, trained, reporter)
    context = trained.context if config.context is None else int(config.context)
    indices = np.array(spaced(len(data), int(config.episodes)))
    with reporter.phase("predict"):
        clips = predict_clips(
            trained.objective, data, indices, context=context, seed=int(config.seed), reporter=reporter
        )
    rates = [source.fps for source in data.sources if source.fps]
    return clips, rates[0] / data.stride if rates else _FPS, trained_on


def open_data(config: DictConfig, run: Path, trained: TrainedVideo, reporter: Reporter) -> tuple[ClipDataset, bool]:
    """The clips to predict, and whether the model was trained on them.

    What the run kept from training (`holdout`) is found again by its seed; other data were never seen, unless the user
    names what the run names.
    """
    before = OmegaConf.load(RunFolder.open(run).path / "config.yaml")
    assert isinstance(before, DictConfig)
    own = config.data is None
    chosen = OmegaConf.merge(before, {} if own else {"data": config.data, "weights": None})
    assert isinstance(chosen, DictConfig)
    paths, _ = expand_data(chosen, kinds="episode store, video or folder of videos")
    settings = before.video
    encoder = trained.objective.encoder
    assert isinstance(encoder, VideoEncoder)
    camera = config.camera if config.camera is not None else settings.get("camera")
    data = open_clips(
        paths,
        codes=Codes(tokenizer=encoder.tokenizer, fingerprint=fingerprint(encoder.tokenizer)),
        caches=Caches(
            root=resolve_cache(config),
            max_bytes=cache_bytes(config),
            device=next(trained.objective.parameters()).device,
            reporter=reporter,
        ),
        frames=trained.frames if config.frames is None else int(config.frames),
        stride=trained.stride,
        cameras=None if camera is None else [camera] if isinstance(camera, str) else [str(name) for name in camera],
        leave_out=left_out(encoder, settings.get("leave_out") or []),
        mixed_robots=bool(settings.get("mixed_robots", False)),
        video_fps=before.get("video_fps"),
    )
    if own and before.get("holdout"):
        return data.hold_out(float(before.holdout), seed=derive_seed(int(before.seed), "holdout"))[1], False
    return data, own or sorted(paths) == sorted(expand_data(before, kinds="episode store")[0])


def left_out(encoder: VideoEncoder, asked: Sequence[str]) -> list[str]:
    """What of the data the model does not read: what the run left out, and what it has no input for."""
    unknown = [key for key in (ACTION, STATE) if not encoder.sequence.sizes.get(key, 0)]
    return sorted({*map(str, asked), *unknown})


def write_all(
    folder: Path,
    clips: Clips,
    judgement: Judgement,
    network: FeatureNetwork,
    *,
    fps: float,
    films: int,
    facts: dict[str, Any],
) -> None:
    """Everything that is left: films, pictures, numbers and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    filmed = [folder / f"clip_{number}.mp4" for number in range(min(films, judgement.clips))]
    for number, path in enumerate(filmed):
        write_film(clips, number, path, fps=fps)
    write_contact_sheet(clips, range(min(_SHOWN, judgement.clips)), folder / SHEET)
    write_curves(judgement.horizon, folder / CURVES)
    write_json(folder / NUMBERS, {**judgement_record(judgement, network), **facts})
    page = prediction_page(
        judgement, network, folder=folder, films=filmed, sheet=folder / SHEET, curves=folder / CURVES, **facts
    )
    write_text(folder / PAGE, page)


def show(judgement: Judgement, console: Console) -> None:
    """The table of the page, without its intervals."""
    shown = Table(box=None, pad_edge=False)
    for name in header(judgement):
        shown.add_column(name, justify="right" if name else "left", no_wrap=not name)
    for row in judgement_rows(judgement, intervals=False):
        shown.add_row(*row)
    console.print(shown)
