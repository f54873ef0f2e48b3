"""Merged, split and filtered stores hold exactly the episodes asked for, bit for bit, and remember their parents."""

import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets import editing
from embodied.datasets.editing import copy_part, merge, select, split_episodes
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

IMAGE = "observation.images.a"
KEYS = {IMAGE: KeySpec("uint8", (16, 12, 3)), "action": KeySpec("float32", (2,), names=("x", "y"))}
QUIET = SilentReporter()


def episode(seed, length):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (length, 16, 12, 3), dtype=np.uint8)
    return {IMAGE: images, "action": rng.normal(size=(length, 2)).astype(np.float32)}


def make(path, *, seeds, keys=KEYS, fps=10, robot="arm"):
    """A store of one episode per seed, of 3 + seed frames; even seeds succeed, every third is unknown."""
    store = EpisodeStore.create(path, keys=keys, fps=fps, robot=robot, provenance={"made": str(path.name)})
    for seed in seeds:
        success = None if seed % 3 == 0 else seed % 2 == 0
        arrays = {key: array for key, array in episode(seed, 3 + seed).items() if key in keys}
        task = "Open drawer" if seed < 3 else "hammer"
        store.append(arrays, task=task, seed=seed, success=success, origin=f"o{seed}", notes={"n": seed})
    store.close()
    return EpisodeStore.open(path)


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "a", seeds=range(6))


def same_episode(one, two):
    return (one.length, one.task, one.seed, one.success, one.origin, one.notes) == (
        (two.length, two.task, two.seed, two.success, two.origin, two.notes)
    ) and one.hashes == two.hashes


def test_a_merged_store_holds_the_episodes_of_all(tmp_path, store):
    other = make(tmp_path / "b", seeds=[7, 8], robot="arm2")
    merge([store, other], tmp_path / "ab", reporter=QUIET)
    merged = EpisodeStore.open(tmp_path / "ab")
    assert len(merged) == 8 and (merged.fps, merged.robot) == (10, "arm, arm2") and merged.keys == KEYS
    assert all(map(same_episode, merged.episodes, [*store.episodes, *other.episodes]))
    assert np.array_equal(merged.read_episode(7)[IMAGE], episode(8, 11)[IMAGE])
    made = merged.provenance["edit"]
    assert (made["verb"], made["episodes"]) == ("merge", 8)
    assert [parent["name"] for parent in made["parents"]] == ["a", "b"]
    assert made["parents"][1] == {"name": "b", "fingerprint": other.fingerprint(), "provenance": {"made": "b"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 20}, "has 10 frames/s and .* 20"),
        ({"keys": {"action": KEYS["action"]}}, f"a has {IMAGE}: bring the stores to the same keys"),
        ({"keys": {**KEYS, "action": KeySpec("float32", (2,), names=("y", "x"))}}, "differ in the names of action"),
    ],
)
def test_stores_that_do_not_fit_are_not_merged(tmp_path, store, change, message):
    other = make(tmp_path / "b", seeds=[1], **change)
    with pytest.raises(UsageError, match=message):
        merge([store, other], tmp_path / "ab", reporter=QUIET)
    assert not (tmp_path / "ab").exists()


def test_a_merge_needs_two_different_stores_with_episodes(tmp_path, store):
    with pytest.raises(UsageError, match="two stores or more"):
        merge([store], tmp_path / "ab", reporter=QUIET)
    with pytest.raises(UsageError, match="given twice"):
        merge([store, EpisodeStore.open(tmp_path / "a")], tmp_path / "ab", reporter=QUIET)
    empty = [make(tmp_path / name, seeds=[]) for name in ("e", "f")]
    with pytest.raises(UserError, match="no episodes to write"):
        merge(empty, tmp_path / "ab", reporter=QUIET)


def test_an_interrupted_merge_goes_on(tmp_path, store, monkeypatch):
    other = make(tmp_path / "b", seeds=[7, 8])
    whole = tmp_path / "whole"
    merge([store, other], whole, reporter=QUIET)
    copied, real = [], editing._copy

    def fails_at_fourth(origin, info, target):
        copied.append(info.seed)
        if len(copied) == 4:
            raise KeyboardInterrupt
        real(origin, info, target)

    monkeypatch.setattr(editing, "_copy", fails_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        merge([store, other], tmp_path / "ab", reporter=QUIET)
    assert len(EpisodeStore.open(tmp_path / "ab")) == 3
    merge([store, other], tmp_path / "ab", reporter=QUIET)
    assert copied == [0, 1, 2, 3, 3, 4, 5, 7, 8]
    assert EpisodeStore.open(tmp_path / "ab").fingerprint() == EpisodeStore.open(whole).fingerprint()
    with pytest.raises(UsageError, match="was made with"):
        merge([other, store], tmp_path / "ab", reporter=QUIET)


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"success": True}, [2, 4]),
        ({"success": False}, [1, 5]),
        ({"task": "*DRAWER"}, [0, 1, 2]),
        ({"task": "hammer", "success": True}, [4]),
        ({"min_length": 5, "max_length": 7}, [2, 3, 4]),
        ({"episodes": [5, 1], "success": False}, [1, 5]),
    ],
)
def test_episodes_are_selected_by_every_condition(store, conditions, found):
    assert select(store, **conditions) == found


def test_an_empty_selection_says_what_tasks_there_are(store):
    with pytest.raises(UserError, match="its tasks are 'Open drawer', 'hammer'"):
        select(store, task="drawer")


def test_a_part_has_the_chosen_episodes_and_keys(tmp_path, store):
    copy_part(store, tmp_path / "part", episodes=[4, 2], keys=["act*"], settings={"verb": "filter"}, reporter=QUIET)
    part = EpisodeStore.open(tmp_path / "part")
    assert part.keys == {"action": KEYS["action"]} and [info.seed for info in part.episodes] == [4, 2]
    assert np.array_equal(part.read_episode(0)["action"], episode(4, 7)["action"])
    assert part.provenance["edit"]["parents"][0]["provenance"] == {"made": "a"}
    with pytest.raises(UsageError, match="unknown key 'acton': did you mean action"):
        copy_part(store, tmp_path / "x", episodes=[0], keys=["acton"], settings={}, reporter=QUIET)


def test_long_episodes_are_copied_in_blocks(tmp_path, store, monkeypatch):
    monkeypatch.setattr(editing, "BLOCK_BYTES", 2 * 16 * 12 * 3)
    copy_part(store, tmp_path / "part", episodes=[5], settings={}, reporter=QUIET)
    assert same_episode(EpisodeStore.open(tmp_path / "part").episodes[0], store.episodes[5])


def test_jpeg_frames_are_not_compressed_again(tmp_path):
    store = make(tmp_path / "a", seeds=[1, 2], keys={IMAGE: KeySpec("uint8", (16, 12, 3), codec="jpeg")})
    copy_part(store, tmp_path / "part", episodes=[1, 0], settings={}, reporter=QUIET)
    part = EpisodeStore.open(tmp_path / "part")
    assert [info.hashes for info in part.episodes] == [store.episodes[1].hashes, store.episodes[0].hashes]
    assert np.array_equal(part.read_episode(0)[IMAGE], store.read_episode(1)[IMAGE])


def test_splits_are_disjoint_seeded_and_complete(store):
    parts = split_episodes(store, {"train": 0.5, "val": 0.5}, seed=0)
    assert sorted(parts["train"] + parts["val"]) == list(range(6)) and len(parts["train"]) == 3
    assert parts == split_episodes(store, {"train": 0.5, "val": 0.5}, seed=0)
    assert len({str(split_episodes(store, {"train": 0.5, "val": 0.5}, seed=seed)) for seed in range(8)}) > 1
    assert {name: len(part) for name, part in split_episodes(store, {"a": 0.34, "b": 0.17}, seed=0).items()} == {
        "a": 2,
        "b": 1,
    }


@pytest.mark.parametrize("fractions", [{}, {"a": 0.0}, {"a": -1.0}, {"a": 0.7, "b": 0.7}, {"a": float("nan")}])
def test_fractions_that_make_no_sense_are_refused(store, fractions):
    with pytest.raises(UsageError, match="fractions must be above 0"):
        split_episodes(store, fractions, seed=0)


def test_a_part_without_episodes_is_refused(store):
    with pytest.raises(UsageError, match="val gets none of the 6 episodes"):
        split_episodes(store, {"train": 0.95, "val": 0.05}, seed=0)
