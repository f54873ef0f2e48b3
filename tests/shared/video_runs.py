"""What a run of `embodied pretrain objective=maskvit` leaves, at the size of a test, without the training."""

import numpy as np
import torch
import yaml
from moving_squares import FRAMES, SIDE, VIEW, make, make_encoder
from omegaconf import OmegaConf

from embodied.core.protocols import ACTION
from embodied.core.run_folder import RunFolder
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import save_encoder


def video_store(path, *, lengths=(9, 7, 8, 9), side=SIDE, action_dim=2):
    """Episodes of a bright square that moves to the right over a dark ground."""
    keys = {VIEW: KeySpec("uint8", (side, side, 3)), ACTION: KeySpec("float32", (action_dim,))}
    with EpisodeStore.create(path, keys=keys, fps=10.0, robot="square") as store:
        for seed, length in enumerate(lengths):
            frames = np.full((length, side, side, 3), 30, np.uint8)
            for number in range(length):
                column = (number + 3 * seed) % (side - 4)
                frames[number, 4:8, column : column + 4] = (200, 90 + 20 * seed, 60)
            action = np.tile(np.arange(action_dim, dtype=np.float32), (length, 1))
            store.append({VIEW: frames, ACTION: action}, task="move the square", seed=seed, success=True)
    return path


def video_run(path, store, *, holdout=0.0):
    """A finished run with random weights."""
    objective = make().eval()
    config = {
        "data": str(store),
        "weights": None,
        "video_fps": None,
        "objective": {"_target_": "embodied.objectives.video.maskvit.MaskViT", "context": 2},
        "video": {"frames": FRAMES, "stride": 1, "camera": None, "leave_out": [], "context": 2},
        "holdout": holdout,
        "seed": 0,
    }
    RunFolder.create(path, config_yaml=OmegaConf.to_yaml(OmegaConf.create(config)), config_hash="0", command="test")
    save_encoder(objective.encoder, path / "encoder", card="# of a test\n")
    return path


def random_video_run(path, *, seed=0, action_dim=4):
    """A folder to plan with, of weights by a seed; it may be written anew."""
    encoder = make_encoder(action_dim=action_dim)
    with torch.no_grad():
        encoder.sequence.head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    path.mkdir(exist_ok=True)
    save_encoder(encoder, path / "encoder", card="")
    objective = {"_target_": f"{type(make()).__module__}.MaskViT", "context": 2, "decoding": {"iterations": 2}}
    (path / "config.yaml").write_text(
        yaml.safe_dump({"objective": objective, "video": {"frames": FRAMES, "stride": 1}})
    )
    return path
