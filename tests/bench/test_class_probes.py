"""Probes on labels: they read classes that are there, and nothing else; folders and tasks give them."""

import numpy as np
import pytest
from PIL import Image
from square_store import KEYS

from embodied.bench.inspection.class_probes import (
    chance_accuracy,
    knn_accuracy,
    linear_accuracy,
    why_no_classes,
)
from embodied.bench.inspection.samples import Part, read_sample
from embodied.cli.main import main
from embodied.core.run_folder import read_metrics
from embodied.datasets.store.episode_store import EpisodeStore

RANDOM = np.random.default_rng(0)
SETTINGS = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2", "device=cpu"),
    *("train.steps=2", "train.batch_size=4", "train.warmup_steps=1", "train.checkpoint_every=2"),
]


@pytest.fixture
def colours(tmp_path):
    """Twelve noisy pictures of each of three colours, in folders named after them."""
    for number, colour in enumerate(("red", "green", "blue")):
        (tmp_path / "photos" / colour / "deeper").mkdir(parents=True)
        for count in range(12):
            frame = RANDOM.integers(0, 60, (32, 40, 3), dtype=np.uint8)
            frame[..., number] += 150
            Image.fromarray(frame).save(tmp_path / "photos" / colour / ("deeper" * (count % 2)) / f"{count}.png")
    return tmp_path / "photos"


def part(classes, episodes):
    frames = np.zeros((len(episodes), 8, 8, 3), np.uint8)
    labels = [str(number) for number in range(len(episodes))]
    return Part(name="toy", frames=frames, episodes=np.asarray(episodes), labels=labels, classes=classes)


def test_both_probes_read_a_linear_class_and_no_other():
    classes = RANDOM.integers(0, 4, 200)
    told = np.eye(4)[classes] @ RANDOM.normal(size=(4, 16)) + 0.01 * RANDOM.normal(size=(200, 16))
    noise = RANDOM.normal(size=(200, 16))
    for kind in (linear_accuracy, knn_accuracy):
        assert kind(told, classes, np.arange(200)) == 1.0
        assert kind(noise, classes, np.arange(200)) < 0.45


def test_what_names_the_episode_does_not_name_its_class():
    episodes = np.repeat(np.arange(40), 5)
    classes = RANDOM.permutation(np.arange(40) % 4)[episodes]
    named = np.eye(40)[episodes]
    assert linear_accuracy(named, classes, episodes) < 0.5
    assert knn_accuracy(named, classes, episodes) < 0.5


def test_chance_is_the_most_frequent_class():
    assert chance_accuracy(np.array([0, 2, 2, 2, 1])) == 0.6


@pytest.mark.parametrize(
    ("classes", "episodes", "reason"),
    [
        (None, range(8), "no folders of classes"),
        (np.array([0, 0, 1, 1]), [0, 0, 1, 1], "it has 2 episodes: 4 are needed"),
        (np.arange(8), range(8), "fewer than two of its classes"),
        (np.array([0, 0, 0, 0, 1, 1]), [0, 1, 2, 3, 4, 4], "fewer than two of its classes"),
        (np.array([0, 0, 1, 1]), range(4), None),
    ],
)
def test_reasons(classes, episodes, reason):
    found = why_no_classes(part(classes, episodes))
    assert found is None if reason is None else reason in found


def test_the_first_folder_is_the_class(colours):
    (found,) = read_sample([str(colours)], frames=36, camera=None, target="observation.state")
    names = [str(name) for name in ("blue", "green", "red")]
    brightest = found.frames.mean(axis=(1, 2)).argmax(axis=1)  # 0 red
    assert [names[number] for number in found.classes] == [("red", "green", "blue")[place] for place in brightest]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(colours / "loose.png")
    (found,) = read_sample([str(colours)], frames=100, camera=None, target="observation.state")
    assert found.classes is None


def test_tasks_of_a_store_are_classes(tmp_path):
    with EpisodeStore.create(tmp_path / "store", keys=KEYS, fps=10.0) as store:
        for number in range(6):
            frames = np.full((3, 48, 48, 3), 40 * number, np.uint8)
            arrays = {"observation.images.front": frames, "observation.state": np.zeros((3, 2), np.float32)}
            store.append(arrays, task=("open", "close")[number % 2], seed=number, success=True)
    (found,) = read_sample([str(tmp_path / "store")], frames=18, camera=None, target="observation.state")
    assert found.classes.tolist() == [1, 1, 1, 0, 0, 0] * 3  # sorted: close, open


def test_pretrain_logs_accuracies_beside_chance(tmp_path, colours, capsys):
    given = ["pretrain", *SETTINGS, f"data={colours}", f"probe={colours}", "probe_every=2", "probe_frames=36"]
    assert main([*given, f"run={tmp_path / 'run'}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "health only" not in out
    assert "linear_top1 1.000, knn_top1 1.000, chance_top1 0.333" in out  # raw pixels
    looks = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "rankme" in record]
    assert [record["step"] for record in looks] == [0, 2]
    for record in looks:
        assert record["chance_top1"] == pytest.approx(1 / 3)
        assert record["linear_top1_pooled"] > 0.9  # a random ViT sees colours
        assert {"knn_top1_pooled", "linear_top1_cls", "knn_top1_cls"} <= record.keys()
        assert not any("r2" in name for name in record)
