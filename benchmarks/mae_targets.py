"""MAE's two targets on simulator frames: raw pixels, or each patch normalised by itself (the paper's best).

    python benchmarks/mae_targets.py FRAMES STORE [STEPS]     (2 CPU cores, 600 steps: about 10 minutes)

FRAMES: a folder of episode stores to pre-train on (benchmarks/pretraining_data.sh); STORE: demonstrations to probe on,
as `embodied collect` makes them. Prints, for a random encoder and for both targets after the same steps with the same
seeds, the R2 of a ridge regression from the pooled feature to hand and object position: fitted on all episodes but the
last five, measured on those.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embodied.cli.pretrain_settings import expand
from embodied.core.files import cache_folder
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.frames import open_frames
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.masked.mae import MAE
from embodied.training.pretrain import pretrain

POSITIONS = slice(0, 7)  # hand xyz, gripper, object xyz
HELD_OUT = 5  # episodes
RIDGE = 1e-3


def probe(encoder: ViTEncoder, store: EpisodeStore) -> float:
    """R2, averaged over the values, on the held-out episodes."""
    features = []
    with torch.inference_mode():
        for start in range(0, store.num_frames, 64):
            frames = torch.from_numpy(store.read(store.image_keys[0], start, min(start + 64, store.num_frames)))
            features.append(encoder.eval()(encoder.preprocess(frames))[1]["pooled"].numpy())
    inputs = np.concatenate(features).astype(np.float64)
    targets = store.read(ENVIRONMENT_STATE, 0, store.num_frames)[:, POSITIONS].astype(np.float64)
    fitted = sum(store.lengths[:-HELD_OUT])
    mean, std = inputs[:fitted].mean(0), inputs[:fitted].std(0) + 1e-8
    inputs = np.concatenate([(inputs - mean) / std, np.ones((len(inputs), 1))], axis=1)
    gram = inputs[:fitted].T @ inputs[:fitted] + RIDGE * fitted * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, inputs[:fitted].T @ targets[:fitted])
    error = ((inputs[fitted:] @ weights - targets[fitted:]) ** 2).sum(0)
    spread = ((targets[fitted:] - targets[:fitted].mean(0)) ** 2).sum(0)
    moving = targets[:fitted].std(0) > 1e-4
    return float(np.mean(1 - error[moving] / spread[moving]))


def main() -> None:
    paths, store = expand(Path(sys.argv[1])), EpisodeStore.open(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 600
    frames = open_frames(paths, image_size=128, cache_root=cache_folder() / "frames")
    sampler = frames.sampler(batch_size=64, seed=0)
    torch.manual_seed(0)
    print(f"random encoder: R2 {probe(ViTEncoder(), store):.3f}", flush=True)
    for norm_pix in (False, True):
        torch.manual_seed(0)
        objective = MAE(ViTEncoder(), norm_pix=norm_pix, crop_scale=(0.8, 1.0))
        records: list[Mapping[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            pretrain(
                objective,
                lambda step: frames.read(sampler.batch(step)),
                steps=steps,
                learning_rate=6e-4,
                weight_decay=0.05,
                warmup_steps=steps // 10,
                clip=1.0,
                precision="bf16",
                seed=0,
                checkpoint_folder=Path(folder),
                checkpoint_every=steps,
                device=torch.device("cpu"),
                log=records.append,
                reporter=SilentReporter(),
            )
        name = "per-patch normalised" if norm_pix else "raw pixels"
        print(
            f"{name}: R2 {probe(objective.encoder, store):.3f} after {steps} steps, loss {records[-1]['loss']:.3f}, "
            f"patches with next to no variance {records[-1]['flat_patches']:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
