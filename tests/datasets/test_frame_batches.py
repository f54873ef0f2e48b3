"""Labels of a folder layout, and frames that belong together: in time, across cameras, of one place."""

import numpy as np
import pytest
from PIL import Image

from embodied.core.errors import UsageError
from embodied.datasets.loading.frame_batches import FrameBatches
from embodied.datasets.loading.frames import open_frames
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.objectives.parts.pairings import CameraPairs, PlacePairs, TimePairs, make_pairing

LENGTHS = (6, 3, 9)
CAMERAS = ("front", "top")


def write_store(path, *, lengths=LENGTHS, cameras=CAMERAS):
    """Every pixel says episode, step and camera; the state is the step, in metres."""
    images = {f"observation.images.{name}": KeySpec("uint8", (8, 8, 3)) for name in cameras}
    with EpisodeStore.create(path, keys={**images, "observation.state": KeySpec("float32", (2,))}, fps=10) as store:
        for episode, length in enumerate(lengths):
            arrays = {}
            for camera, key in enumerate(images):
                says = np.stack([np.full(length, 50 * episode), np.arange(length), np.full(length, 100 * camera)], -1)
                arrays[key] = np.broadcast_to(says[:, None, None].astype(np.uint8), (length, 8, 8, 3))
            state = np.stack([np.arange(length), np.zeros(length)], axis=1).astype(np.float32)
            store.append({**arrays, "observation.state": state}, task="", seed=0, success=True)
    return path


@pytest.fixture
def demos(tmp_path):
    return write_store(tmp_path / "demos")


@pytest.fixture
def classes(tmp_path):
    """red: two pictures, one of them two folders down; blue: one."""
    for name, colour in (("red/a.png", 10), ("red/more/b.png", 20), ("blue/c.png", 30)):
        (tmp_path / "classes" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / "classes" / name)
    return tmp_path / "classes"


@pytest.fixture
def opened(tmp_path):
    def open_them(*sources, **options):
        return open_frames([*sources], image_size=8, cache_root=tmp_path / "cache", **options)

    return open_them


def said(frames):
    """Episode, step and camera of frames uint8 [..., 8, 8, 3], int [..., 3]."""
    assert (frames == frames[..., :1, :1, :]).all()
    return frames[..., 0, 0, :].astype(int) // [50, 1, 100]


def pairs(batches, steps=20):
    """What the anchors and their first partners say over some steps, int [n, 3] each."""
    drawn = [batches(step) for step in range(steps)]
    together = (np.concatenate([batch[name] for batch in drawn]) for name in ("images", "partners"))
    images, partners = together
    return said(images), said(partners[:, 0])


def test_the_first_folder_is_the_class(classes, opened):
    frames = opened(classes)
    assert frames.class_names == ("blue", "red")
    assert [frames.read(np.arange(3))[:, 0, 0, 0].tolist(), frames.labels().tolist()] == [[30, 10, 20], [0, 1, 1]]
    batch = FrameBatches(frames, batch_size=5, seed=0, labels=True)(3)
    assert batch["labels"].dtype == np.int64
    assert batch["labels"].tolist() == [int(value < 30) for value in batch["images"][:, 0, 0, 0]]


def test_classes_of_several_sources_are_one_list(classes, opened, tmp_path):
    other = tmp_path / "other" / "green"
    other.mkdir(parents=True)
    Image.new("RGB", (8, 8), (40, 0, 0)).save(other / "d.png")
    frames = opened(classes, other.parent)
    assert frames.class_names == ("blue", "green", "red")
    assert frames.labels(np.array([3, 0, 1])).tolist() == [1, 0, 2]


def test_tasks_of_episodes_are_classes(tmp_path, opened):
    spec = {"observation.images.a": KeySpec("uint8", (8, 8, 3))}
    with EpisodeStore.create(tmp_path / "tasks", keys=spec, fps=10) as store:
        for task, length in (("push", 2), ("lift", 3), ("push", 1)):
            arrays = {"observation.images.a": np.zeros((length, 8, 8, 3), np.uint8)}
            store.append(arrays, task=task, seed=0, success=True)
    frames = opened(tmp_path / "tasks")
    assert frames.class_names == ("lift", "push")
    assert frames.labels().tolist() == [1, 1, 0, 0, 0, 1]


def test_labels_follow_pictures_that_are_skipped(classes, opened):
    (classes / "blue" / "aa.png").write_bytes(b"no picture")
    frames = opened(classes, on_error="skip")
    assert len(frames) == 3
    assert frames.labels().tolist() == [0, 1, 1]


def test_who_wants_labels_is_told_which_source_has_none(classes, demos, opened):
    Image.new("RGB", (8, 8)).save(classes / "loose.png")
    for sources, named in (([classes], "classes"), ([demos], "demos/observation.images.front")):
        with pytest.raises(UsageError, match=f"{named}.* has no labels: classes are folders"):
            FrameBatches(opened(*sources), batch_size=2, seed=0, labels=True)


def test_relations_of_episodes_cameras_and_pictures(demos, classes, opened):
    frames = opened(classes, demos)
    relations, told = frames.relations(), said(frames.read(np.arange(3, 39)))
    assert relations.episodes.tolist() == [0, 1, 2, *(told[:, 0] + 3)]
    assert relations.steps.tolist() == [0, 0, 0, *told[:, 1]]
    assert relations.cameras.tolist() == [0, 0, 0, *(told[:, 2] + 1)]


def test_time_pairs_are_earlier_frames_of_the_same_episode_and_camera(demos, opened):
    batches = FrameBatches(opened(demos), batch_size=64, seed=0, pairing=TimePairs(gap=(2, 4)))
    images, partners = pairs(batches)
    assert (images[:, [0, 2]] == partners[:, [0, 2]]).all()
    gaps = images[:, 1] - partners[:, 1]
    assert set(gaps) == {2, 3, 4}
    # every frame that has a partner is drawn: the third and later of each episode, at both cameras
    expected = {(e, t, c) for c in range(2) for e, length in enumerate(LENGTHS) for t in range(2, length)}
    assert set(map(tuple, images)) == expected
    late = gaps[images[:, 1] >= 4]
    assert np.allclose(np.bincount(late)[2:] / len(late), 1 / 3, atol=0.06)  # uniform where all fit
    assert set(gaps[images[:, 1] == 3]) == {2, 3}  # and else what stays within the episode


def test_camera_pairs_are_the_same_moment(demos, opened):
    images, partners = pairs(FrameBatches(opened(demos), batch_size=36, seed=0, pairing=CameraPairs()), steps=1)
    assert (images[:, :2] == partners[:, :2]).all()
    assert (images[:, 2] != partners[:, 2]).all()
    assert len(set(map(tuple, images))) == 36


def test_three_cameras_are_drawn_alike(tmp_path, opened):
    store = write_store(tmp_path / "three", lengths=(4,), cameras=("a", "b", "c"))
    _, partners = pairs(FrameBatches(opened(store), batch_size=300, seed=0, pairing=CameraPairs(partners=2)), steps=1)
    assert np.allclose(np.bincount(partners[:, 2]) / 300, 1 / 3, atol=0.1)


def test_places_by_coordinates_are_met_on_another_visit(demos, opened):
    pairing = PlacePairs(place="observation.state", dims=(0,), size=2.0)
    images, partners = pairs(FrameBatches(opened(demos), batch_size=64, seed=0, pairing=pairing))
    assert (images[:, 0] != partners[:, 0]).all()
    assert (images[:, 1] // 2 == partners[:, 1] // 2).all()
    assert images[:, 1].max() == 5  # what lies beyond only the longest episode has seen
    assert set(partners[:, 2]) == {0, 1}


def test_places_by_folders(tmp_path, opened):
    for place in range(2):
        for visit in range(3):
            (tmp_path / "p" / str(place)).mkdir(parents=True, exist_ok=True)
            says = (0, visit, 100 * place)
            Image.new("RGB", (8, 8), says).save(tmp_path / "p" / str(place) / f"{visit}.png")
    images, partners = pairs(FrameBatches(opened(tmp_path / "p"), batch_size=6, seed=0, pairing=PlacePairs()))
    assert (images[:, 2] == partners[:, 2]).all()
    assert (images[:, 1] != partners[:, 1]).all()


def test_batches_are_a_function_of_seed_and_step(demos, opened):
    def make(seed):
        return FrameBatches(opened(demos), batch_size=8, seed=seed, pairing=TimePairs(gap=(1, 8), partners=3))

    one, again, other = make(0), make(0), make(1)
    one(0)
    for name, value in one(7).items():
        assert np.array_equal(value, again(7)[name])
        assert not np.array_equal(value, other(7)[name])
        assert not np.array_equal(value, one(8)[name])
    assert one(7)["partners"].shape == (8, 3, 8, 8, 3)


def test_weights_of_sources_stay_among_frames_that_have_partners(tmp_path, demos, opened):
    short = write_store(tmp_path / "short", lengths=(2,) * 20, cameras=("front",))
    frames = opened(demos, short, weights=[1, 3])
    batches = FrameBatches(frames, batch_size=2000, seed=0, pairing=TimePairs(gap=(1, 8)))
    assert np.isclose((batches.indices(0) >= 36).mean(), 0.75, atol=0.04)
    with pytest.raises(UsageError, match=r"short/observation.images.front has none"):
        FrameBatches(frames, batch_size=4, seed=0, pairing=TimePairs(gap=(2, 8)))
    unused = opened(demos, short, weights=[1, 0])
    drawn = FrameBatches(unused, batch_size=100, seed=0, pairing=TimePairs(gap=(2, 8))).indices(0)
    assert (drawn < 36).all()


def test_frames_that_may_not_be_used_are_no_partners_either(demos, opened):
    frames = opened(demos)
    usable = frames.relations().episodes != 1
    for pairing in (TimePairs(gap=(1, 3)), CameraPairs(), PlacePairs(place="observation.state", dims=(0,), size=2.0)):
        images, partners = pairs(FrameBatches(frames, batch_size=64, seed=0, pairing=pairing, only=usable))
        assert set(images[:, 0]) == set(partners[:, 0]) == {0, 2}
    assert set(FrameBatches(frames, batch_size=64, seed=0, only=usable).indices(3)) <= set(np.flatnonzero(usable))


@pytest.mark.parametrize(
    ("pairing", "message"),
    [
        (TimePairs(gap=(9, 20)), r"wants two frames of one episode at least 9 apart \(objective.gap\): .*demos"),
        (PlacePairs(), "demos/observation.images.front, .* has no labels"),
        (PlacePairs(place="observation.stat"), "no episode store in data has the key observation.stat"),
        (
            PlacePairs(place="observation.state", dims=(0, 2)),
            "place_dims must name elements 0 to 1 of",
        ),
        (PlacePairs(place="observation.images.top"), "observation.images.top of demos is no vector"),
    ],
)
def test_data_that_lack_what_a_pairing_wants(demos, opened, pairing, message):
    with pytest.raises(UsageError, match=message):
        FrameBatches(opened(demos), batch_size=4, seed=0, pairing=pairing)


def test_one_camera_and_single_pictures_have_no_pairs(tmp_path, classes, opened):
    single = write_store(tmp_path / "single", cameras=("front",))
    with pytest.raises(UsageError, match=r"two cameras .*: single/observation.images.front has none"):
        FrameBatches(opened(single), batch_size=4, seed=0, pairing=CameraPairs())
    with pytest.raises(UsageError, match=r"two frames of one episode .*: classes has none"):
        FrameBatches(opened(single, classes), batch_size=4, seed=0, pairing=TimePairs(gap=(1, 2)))


def test_wrong_pairings_say_what_is_right():
    for make, message in (
        (lambda: make_pairing("times"), "unknown objective.pairing 'times': did you mean time"),
        (lambda: make_pairing("time", gap=(0, 3)), r"gap must be two numbers of frames, .* got \[0, 3\]"),
        (lambda: make_pairing("time", gap=(4, 3)), "gap must be"),
        (lambda: make_pairing("time", gap=5), r"gap must be two numbers of frames, \[least, most\], got 5"),
        (lambda: make_pairing("places", place_size=0.0), "place_size must be positive, got 0.0"),
        (lambda: make_pairing("cameras", partners=0), "partners must be at least 1, got 0"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_shares_decide_how_often_a_frame_is_drawn(demos, classes, opened):
    """Three pictures and 36 frames; a share of 0 is never drawn, twice the share twice as often."""
    shares = np.concatenate([[1.0, 0.5, 0.0], np.full(36, 0.1)])
    plain = FrameBatches(opened(classes, demos), batch_size=64, seed=0, shares=shares)
    counts = np.bincount(np.concatenate([plain.indices(step) for step in range(200)]), minlength=39) / (200 * 64)
    np.testing.assert_allclose(counts, shares / shares.sum(), atol=0.02)
    assert counts[2] == 0
    # the weight of a source stays, however little of it is left
    weighted = FrameBatches(opened(classes, demos, weights=[1, 3]), batch_size=64, seed=0, shares=shares)
    counts = np.bincount(np.concatenate([weighted.indices(step) for step in range(200)]), minlength=39) / (200 * 64)
    np.testing.assert_allclose([counts[:3].sum(), counts[0] / counts[:3].sum()], [1 / 4, 2 / 3], atol=0.02)
    assert counts[2] == 0


def test_frames_that_are_left_are_visited_alike_and_only_where_they_are_not_held_out(classes, opened):
    frames = opened(classes)
    left = FrameBatches(frames, batch_size=2, seed=0, shares=np.array([1.0, 0.0, 1.0]))
    assert sorted(left.indices(0)) == [0, 2]  # an epoch, not draws
    alone = FrameBatches(frames, batch_size=2, seed=0, shares=np.array([1.0, 0.0, 1.0]), only=np.array([1, 1, 0], bool))
    assert set(alone.indices(0)) == {0}
    with pytest.raises(UsageError, match="no frame is left to draw"):
        FrameBatches(frames, batch_size=2, seed=0, shares=np.array([1.0, 0.0, 0.0]), only=np.array([0, 1, 1], bool))
