"""`embodied pretrain` on pairs, videos and drawn pictures; what the data lack is said before anything is written."""

import av
import numpy as np
import pytest
from PIL import Image

from embodied.cli.main import main
from embodied.core.run_folder import read_metrics
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.load import load_encoder

TINY = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2"),
    *("train.steps=2", "train.batch_size=4", "train.accumulate=2", "train.warmup_steps=1", "device=cpu"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two cameras, one camera, a video of twelve frames, and pictures."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, cameras in (("two", ("a", "b")), ("one", ("a",))):
        keys = {f"observation.images.{camera}": KeySpec("uint8", (32, 32, 3)) for camera in cameras}
        with EpisodeStore.create(root / name, keys=keys, fps=10.0) as store:
            for _ in range(2):
                arrays = {key: random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8) for key in keys}
                store.append(arrays, task="", seed=0, success=True)
    (root / "films").mkdir()
    with av.open(str(root / "films" / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", 10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(12):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (32, 48, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (root / "photos").mkdir()
    for number in range(4):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{number}.png")
    return root


def pretrain(tmp_path, *settings):
    return main(["pretrain", *TINY, f"root={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", *settings])


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        (["objective=siammae", "objective.mask_ratio=0.9", "data={root}/films", "objective.gap=[2,6]"], 12),
        (["objective=croco", "data={root}/two"], 24),
        (["objective=mae", "data=[visual_atoms,{root}/films]", "visual_atoms.frames=1500", "video_fps=5"], 1506),
    ],
    ids=["siammae on a video", "croco on two cameras", "drawn pictures and a video"],
)
def test_pretrains(tmp_path, data, settings, frames):
    assert pretrain(tmp_path, *(each.format(root=data) for each in settings)) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert f"**Frames:** {frames}" in (run / "encoder" / "README.md").read_text()
    assert load_encoder(str(run / "encoder")).width == 24
    rows = 3 if settings[0] == "objective=mae" else 4  # and the partner
    assert np.asarray(Image.open(run / "plots" / "reconstructions.png")).shape == (32 * rows, 8 * 32, 3)
    (last,) = read_metrics(run / "metrics.jsonl")
    assert ("stranger_loss" in last) == (rows == 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["objective=siammae", "objective.mask_ratio=0.9", "data=[{root}/two,{root}/photos]", "objective.gap=[1,2]"],
            "the objective wants two frames of one episode at least 1 apart (objective.gap): photos has none",
        ),
        (
            ["objective=croco", "data={root}/one"],
            "(objective.pairing=cameras): one/observation.images.a has none",
        ),
        (["objective=croco", "objective.pairing=places", "data={root}/one"], "one/observation.images.a has no labels"),
        (["data=visual_atoms", "visual_atoms.classes=5", "visual_atoms.frames=3"], "visual_atoms needs at least one"),
        (["data={root}/films", "video_fps=-1"], "video_fps must be a positive number, got -1"),
    ],
)
def test_what_the_data_lack_is_said_before_anything_is_written(tmp_path, data, capsys, settings, message):
    assert pretrain(tmp_path, *(each.format(root=data) for each in settings)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()
