"""Looks at the pre-trainings of `embodied replicate`: numbers that a job's run is measured for when it is done.

jobs:
  model: {looks: {decoding: {clips: 1, rounds: 3, action_clips: 48}}}  # of objective=maskvit
  other: {looks: {depths: {store: probe, frames: 512}}}        # of objective=toto; a store of the preset
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied.cli.config import compose_config
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.core.reporting import SilentReporter

Numbers = dict[str, float]


def look_at(kind: str, run: Path, settings: Mapping[str, Any], *, device: str, cache: Sequence[str]) -> Numbers:
    """What a look at a run finds, by name.

    Args:
        kind: see `check_look`.
        run: its folder, finished.
        settings: of the look; `store` is a folder.
        device: where.
        cache: settings of the caches, as of a command.

    Raises:
        UsageError, UserError: the run is none that can be looked at so.
    """
    check_look(kind, settings)
    look, defaults = LOOKS[kind]
    return look(run, {**defaults, **settings}, device, cache)


def check_look(kind: str, settings: Mapping[str, Any]) -> None:
    """There is such a look, and it has these settings.

    Raises:
        UsageError: it has not, or one is missing.
    """
    if kind not in LOOKS:
        raise unknown_name("look", kind, LOOKS)
    known = LOOKS[kind][1]
    for name in settings:
        if name not in known:
            raise unknown_name(f"setting of the look {kind}", name, known)
    if missing := [name for name, value in known.items() if value is None and name not in settings]:
        raise UsageError(f"the look {kind}: {missing[0]} is missing")


def decoding(run: Path, settings: Mapping[str, Any], device: str, cache: Sequence[str]) -> Numbers:
    """Passes and seconds of a masked model, see `decoding_costs`, and what actions tell it, see `action_use`.

    Of clips that it was not trained on, if any are.
    """
    from embodied.bench.decoding_cost import action_use, decoding_costs
    from embodied.bench.inspection.samples import spaced
    from embodied.cli.predict import open_data
    from embodied.objectives.video.maskvit import MaskViT
    from embodied.objectives.video.trained import load_trained

    trained = load_trained(run)
    objective = trained.objective.to(device)
    if not isinstance(objective, MaskViT):
        raise UsageError(f"the look decoding is for objective=maskvit, {run} is of {type(objective).__name__}")
    config = compose_config("predict", [*cache, f"device={device}"])
    data, _ = open_data(config, run, trained, SilentReporter())

    def batch(clips: int) -> dict[str, torch.Tensor]:
        chosen = data.batch(np.array(spaced(len(data), clips)))
        return {key: torch.from_numpy(values).to(device) for key, values in chosen.items()}

    found = decoding_costs(objective, batch(int(settings["clips"])), rounds=int(settings["rounds"]))
    return found | action_use(objective, batch(int(settings["action_clips"])))


def depths(run: Path, settings: Mapping[str, Any], device: str, cache: Sequence[str]) -> Numbers:
    """R2 of the simulator's state at every depth, `<pooling>_<blocks>`.

    Beside them `middle` and `last`: what attention reads where the features are, and after all blocks; their difference
    `middle_minus_last`; and `attention_minus_mean` where the features are, both trained alike. The run gets
    `plots/depths.png` and `depths.json`.
    """
    from embodied.bench.inspection.depth_clips import read_windows
    from embodied.bench.inspection.depth_probe import ATTENTION, POOLINGS, TRAINED_MEAN, depth_curve, plot_depths
    from embodied.bench.inspection.measure import why_no_probe
    from embodied.core.files import write_json
    from embodied.encoders.toto import TotoEncoder
    from embodied.objectives.video.trained import load_trained

    trained = load_trained(run)
    encoder = trained.objective.encoder.to(device)
    if not isinstance(encoder, TotoEncoder):
        raise UsageError(f"the look depths is for objective=toto, {run} is of {type(trained.objective).__name__}")
    windows = read_windows(
        str(settings["store"]),
        encoder,
        frames=int(settings["frames"]),
        camera=None,
        target=ENVIRONMENT_STATE,
        stride=trained.stride,
    )
    if (reason := why_no_probe(windows.part, ENVIRONMENT_STATE)) is not None:
        raise UserError(f"{settings['store']} cannot be probed: {reason}")
    blocks, middle = range(encoder.network.depth + 1), encoder.network.read_depth
    curve = depth_curve(
        encoder,
        windows,
        target=ENVIRONMENT_STATE,
        depths=blocks,
        steps=int(settings["steps"]),
        reporter=SilentReporter(),
    )
    plot_depths([curve], run / "plots" / "depths.png")
    write_json(run / "depths.json", curve.record())
    found = {f"{name}_{depth}": float(curve.scores[name][depth].r2) for name in POOLINGS for depth in blocks}
    read, last = found[f"{ATTENTION}_{middle}"], found[f"{ATTENTION}_{blocks[-1]}"]
    found |= {name: float(each.r2) for name, each in curve.baselines.items()}
    return found | {
        "middle": read,
        "last": last,
        "middle_minus_last": read - last,
        "attention_minus_mean": read - found[f"{TRAINED_MEAN}_{middle}"],
    }


# By name: what looks, and its settings; None: has to be given.
LOOKS: dict[str, tuple[Callable[[Path, Mapping[str, Any], str, Sequence[str]], Numbers], dict[str, Any]]] = {
    "decoding": (decoding, {"clips": 1, "rounds": 3, "action_clips": 48}),
    "depths": (depths, {"store": None, "frames": 512, "steps": 300}),
}
