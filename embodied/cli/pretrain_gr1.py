"""`embodied pretrain objective=gr1`: episode stores -> a sequence encoder that is also a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from embodied.bench.plots import save_image_grid
from embodied.bench.pretraining import PICTURES
from embodied.cli.config import positive
from embodied.cli.pretrain_gr1_start import EXPORT, export, start_from
from embodied.cli.pretrain_sequence import open_frame_encoder
from embodied.cli.pretrain_settings import expand_data
from embodied.cli.settings import cache_bytes, resolve_cache
from embodied.cli.window_training import card_of, open_tools, train_on_windows
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, IMAGE_PREFIX, INSTRUCTION, PAD_SUFFIX, STATE, Reporter, image_key
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed, numpy_generator
from embodied.datasets.loading.future_windows import FUTURE, FutureWindows, open_future_windows, words_of
from embodied.datasets.loading.sequence_sources import Caches, Latents
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.gr1 import CLASS_AND_PATCHES, ClassAndPatches, GR1Encoder
from embodied.encoders.text.load import load_text_encoder, text_fingerprint
from embodied.objectives.video.gr1 import GR1
from embodied.training.batches import to_tensors


@dataclass(frozen=True, kw_only=True)
class Words:
    """The instructions of the data.

    Args:
        text: `spec` and `fingerprint` of their encoder.
        vectors: the embedding float32 [E] of each.
    """

    text: Mapping[str, str]
    vectors: Mapping[str, np.ndarray]


def pretrain_gr1(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the stores to the artifact."""
    positive(config, "sequence.context")
    tools = open_tools(config, reader="sequence.image_encoder")
    reporter = tools.reporter
    with reporter.phase("data"):
        frames = ClassAndPatches(encoder=open_frame_encoder(config)).eval()
        paths, weights = expand_data(config, kinds="episode store")
        words = read_words(config, paths)
        example = check_settings(config, frames, words)
        data = open_data(config, paths, weights, example, words, device=tools.device, reporter=reporter)
    objective = build_gr1(config, frames, data.sizes, words)
    kept = start_from(config, objective, note=reporter.note)
    objective.encoder.network.fit(statistics(data, objective, but=kept))
    read = ", ".join([*data.sizes, *([INSTRUCTION] if words else [])])
    run = train_on_windows(config, overrides, objective, data, tools, told=f"{len(data)} windows of {read}")
    if run is not None:
        finish(config, run, objective.cpu().eval(), data)
        tools.console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    return 0


def read_words(config: DictConfig, paths: Sequence[str]) -> Words | None:
    """The embedding of every instruction; None where none are read.

    Raises:
        UsageError: some are missing, or there is no such text encoder.
    """
    spec, missing = config.sequence.text_encoder, str(config.sequence.missing_instructions)
    if spec is None:
        return None
    encoder = load_text_encoder(str(spec))
    said = words_of(paths, missing=missing)
    vectors = encoder.encode(said).cpu().float().numpy()
    text = {"spec": str(spec), "fingerprint": text_fingerprint(encoder)}
    return Words(text=text, vectors=dict(zip(said, vectors, strict=True)))


def check_settings(config: DictConfig, frames: nn.Module, words: Words | None) -> GR1:
    """The objective for some data, which checks its settings before anything is encoded."""
    counts = {}
    for key, gripper in ((STATE, config.encoder.state_gripper), (ACTION, config.encoder.gripper)):
        counts[key] = max(2, gripper + 1) if isinstance(gripper, int) else 2
    return build_gr1(config, frames, {image_key("camera"): 1, **counts}, words)


def open_data(
    config: DictConfig,
    paths: Sequence[str],
    weights: Sequence[float] | None,
    example: GR1,
    words: Words | None,
    *,
    device: torch.device,
    reporter: Reporter,
) -> FutureWindows:
    """The windows of `data`, with what an objective of these settings reads and predicts."""
    settings, camera, frames = config.sequence, config.sequence.camera, example.encoder.frames
    return open_future_windows(
        paths,
        latents=Latents(encoder=frames, fingerprint=fingerprint(frames), output=CLASS_AND_PATCHES),
        caches=Caches(root=resolve_cache(config), max_bytes=cache_bytes(config), device=device, reporter=reporter),
        context=int(settings.context),
        ahead=example.next_frames,
        image_size=example.decoder.image_size,
        instructions=None if words is None else words.vectors,
        cameras=None if camera is None else [camera] if isinstance(camera, str) else [str(name) for name in camera],
        leave_out=[str(name) for name in settings.leave_out],
        mixed_robots=bool(settings.mixed_robots),
        weights=weights,
    )


def build_gr1(config: DictConfig, frames: nn.Module, sizes: Mapping[str, int], words: Words | None) -> GR1:
    """The objective with its fresh network; weights depend on the seed alone.

    Args:
        config: of the verb.
        frames: the image encoder.
        sizes: values of every key of the data.
        words: the instructions, if they are read.
    """
    network: dict[str, Any] = {str(key): value for key, value in config.encoder.items() if value is not None}
    network |= {
        "cameras": [key.removeprefix(IMAGE_PREFIX) for key in sizes if key.startswith(IMAGE_PREFIX)],
        "state_dim": sizes.get(STATE, 0),
        "action_dim": sizes.get(ACTION, 0),
        "text_dim": 0 if words is None else len(next(iter(words.vectors.values()))),
        "context": int(config.sequence.context),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            text = None if words is None else words.text
            encoder = GR1Encoder(frames=frames.cpu(), network=network, text=text)
            objective = hydra.utils.instantiate(config.objective, encoder=encoder)
        except (TypeError, ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
    assert isinstance(objective, GR1)
    return objective


def statistics(
    data: FutureWindows, objective: GR1, *, but: Sequence[str]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and deviation of proprioception and actions, of a gripper the middle and half the range.

    Args:
        data: all windows.
        objective: knows the grippers.
        but: keys that keep the scale they have.

    Raises:
        UsageError: a gripper never moves.
    """
    made = objective.encoder.network.config()
    grippers = {ACTION: made["gripper"], STATE: made["state_gripper"]}
    found = {}
    for key, (mean, std) in data.statistics().items():
        if key in but:
            continue
        if (place := grippers[key]) is not None:
            low, high = data.range_of(key, place)
            if low == high:
                raise UsageError(f"{key}: value {place} is said to be a gripper, but is {low:g} in all of the data")
            mean[place], std[place] = (low + high) / 2, (high - low) / 2
        found[key] = (torch.from_numpy(mean), torch.from_numpy(std))
    return found


def finish(config: DictConfig, run: RunFolder, objective: GR1, data: FutureWindows) -> None:
    """Write the artifact with its card, all weights to go on from, and futures to look at."""
    if objective.weights["video"]:
        draw_futures(objective, data, run.path / "plots" / "future.png", seed=int(config.seed))
    export(objective, run.path / EXPORT)
    card = card_of(config, run, objective.encoder.config(), data)
    save_encoder(objective.encoder, run.path / "encoder", card=card)


def draw_futures(objective: GR1, data: FutureWindows, path: Path, *, seed: int) -> None:
    """A PNG with a row of predicted and a row of true frames for each camera, of windows whose future is there."""
    chosen = numpy_generator(seed, "pictures").permutation(len(data))[: 16 * PICTURES]
    batch = data.batch(np.sort(chosen))
    whole = ~np.any([batch[key + PAD_SUFFIX][:, -1] for key in batch if _is_future(key)], axis=0)
    if not whole.any():
        return  # every episode is shorter than the way to the future
    tensors = to_tensors({key: rows[whole][:PICTURES] for key, rows in batch.items()}, slice(None), torch.device("cpu"))
    shown = objective.pictures(tensors)
    save_image_grid([row.numpy() for rows in shown.values() for row in rows], path)


def _is_future(key: str) -> bool:
    return key.startswith(FUTURE) and not key.endswith(PAD_SUFFIX)
