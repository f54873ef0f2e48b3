"""How well a frame tokenizer draws frames again: PSNR per episode store, beside pictures that know nothing.

  embodied collect task=dial-turn-v3 env.visuals=varied env.image_size=64 episodes=10 env.horizon=40 \
      collect.seed=7000000 collect.only_successes=false store=unseen/dial-turn-varied       # and so on
  python benchmarks/tokenizer_quality.py default unseen/*

Every fifth frame is encoded and decoded. Beside it stand the mean frame of its episode (what is lost where nothing that
moves is drawn) and the mean frame of the store (where nothing of the look is, either).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from embodied.bench.imitation_data import read_episodes
from embodied.bench.video_metrics import psnr
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.tokenizer import FrameTokenizer, load_frame_tokenizer

EVERY = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", help="default, or the run folder of embodied pretrain objective=vq")
    parser.add_argument("stores", nargs="+", type=Path)
    chosen = parser.parse_args()
    tokenizer = load_frame_tokenizer(chosen.tokenizer)
    table = Table("store", "episodes", "frames", "tokenizer", "mean of the episode", "mean of the store", box=None)
    for path in chosen.stores:
        episodes = frames_of(EpisodeStore.open(path), tokenizer.image_size)
        table.add_row(path.name, str(len(episodes)), str(sum(map(len, episodes))), *measured(tokenizer, episodes))
    Console(width=120).print(table)
    print("PSNR in dB, mean over frames")


def frames_of(store: EpisodeStore, size: tuple[int, int]) -> list[Tensor]:
    """Every fifth frame of each episode, uint8 [F, S1, S2, 3]; of the store's first camera."""
    key = next(key for key in sorted(store.keys) if key.startswith(IMAGE_PREFIX))
    found = [torch.as_tensor(np.asarray(read_episodes(store, key, [number]))) for number in range(len(store))]
    shape = tuple(found[0].shape[1:3])
    if shape != size:
        raise SystemExit(f"frames of {shape} pixels, but the tokenizer draws {size}: collect others")
    return [episode[::EVERY] for episode in found]


def measured(tokenizer: FrameTokenizer, episodes: list[Tensor]) -> list[str]:
    """Decibels of the tokenizer, of each episode's mean frame and of the mean frame of all."""
    truth = torch.cat(episodes)
    with torch.inference_mode():
        drawn = torch.cat([tokenizer.decode(tokenizer.codes(episode)) for episode in episodes])
    own = torch.cat([mean_frame(episode).expand(episode.shape) for episode in episodes])
    guesses = (drawn, own, mean_frame(truth).expand(truth.shape))
    return [f"{psnr(truth[None].numpy(), guess[None].numpy()).mean():.1f}" for guess in guesses]


def mean_frame(frames: Tensor) -> Tensor:
    """Uint8 [1, S1, S2, 3]."""
    return frames.float().mean(0, keepdim=True).round().to(torch.uint8)


if __name__ == "__main__":
    main()
