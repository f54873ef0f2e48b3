"""Mixtures of datasets: how often each is drawn, what a window holds, and what is refused."""

import numpy as np
import pytest
import yaml
from tiny_mixtures import CHUNK, entries, make_arm, mixture
from tiny_sequences import CONTEXT, VIEW, make_store

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.datasets.loading.mixture_manifest import DatasetEntry, read_manifest
from embodied.datasets.loading.mixture_statistics import image_statistics, vector_statistics
from embodied.datasets.loading.mixtures import mixing_weights
from embodied.datasets.store.episode_store import EpisodeStore


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mixing": "inverse_sqrt"}, [2 / 3, 1 / 3]),
        ({"mixing": "temperature"}, [1 / 3, 2 / 3]),
        ({"mixing": "temperature", "temperature": 1.0}, [1 / 5, 4 / 5]),
        ({"mixing": "uniform"}, [1 / 2, 1 / 2]),
        ({"mixing": "uniform", "factors": [3, 1]}, [3 / 4, 1 / 4]),
        ({"mixing": "inverse_sqrt", "factors": [1, 2]}, [1 / 2, 1 / 2]),
        ({"mixing": "weights", "factors": [1, 4]}, [1 / 5, 4 / 5]),
    ],
)
def test_shares_of_a_small_and_a_large_dataset(options, expected):
    assert mixing_weights([100, 400], **options) == pytest.approx(expected)


def test_bad_mixings():
    with pytest.raises(UsageError, match="unknown mixing 'sqrt'"):
        mixing_weights([1, 2], "sqrt")
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        mixing_weights([1, 2], "temperature", temperature=0)


def test_batches_draw_every_dataset_by_its_share_as_a_function_of_the_step(tmp_path):
    make_store(tmp_path / "dot", lengths=(4,) * 4)
    make_arm(tmp_path / "arm", lengths=(16,) * 4)
    data = mixture(tmp_path, entries(tmp_path))
    assert data.shares == pytest.approx([2 / 3, 1 / 3])
    sampler = data.sampler(batch_size=64, seed=3)
    drawn = np.concatenate([sampler.batch(step) for step in range(100)])
    share = (drawn < 16).mean()
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / len(drawn))
    counts = np.bincount(drawn, minlength=80)
    assert counts.min() > 0 and counts[:16].std() / counts[:16].mean() < 0.1  # within a dataset every frame alike
    again = mixture(tmp_path, entries(tmp_path)).sampler(batch_size=64, seed=3)
    assert np.array_equal(again.batch(57), sampler.batch(57))


def test_a_batch_holds_the_values_of_the_stores_and_says_what_is_not_there(tmp_path):
    data = mixture(tmp_path, entries(tmp_path))
    assert len(data) == 22 + 14 and data.views == 2 and data.frame_shape == (4, 8)
    batch = data.batch(np.array([22 + 1, 6]))  # arm: episode 0, step 1; dot: the last step of episode 0
    assert batch["dataset"].tolist() == [1, 0]
    arm, dot = (EpisodeStore.open(tmp_path / name) for name in ("arm", "dot"))
    np.testing.assert_array_equal(batch[STATE][0, -2:], arm.read(STATE, 0, 2))
    np.testing.assert_array_equal(batch[STATE][1, :, :3], dot.read(STATE, 3, 7))
    assert not batch[STATE][1, :, 3:].any()
    assert batch[STATE + "_is_pad"].tolist() == [[True, True, False, False], [False] * CONTEXT]
    np.testing.assert_array_equal(batch[ACTION][0], arm.read(ACTION, 1, 1 + CHUNK))
    np.testing.assert_array_equal(batch[ACTION][1, 0, :2], dot.read(ACTION, 6, 7)[0])
    assert batch[ACTION + "_is_pad"].tolist() == [[False] * CHUNK, [False, True, True]]
    assert batch["images_is_pad"][1].tolist() == [[False, True]] * CONTEXT
    assert batch["images_is_pad"][0].tolist() == [[True, True]] * 2 + [[False, False]] * 2
    assert batch["images"].shape == (2, CONTEXT, 2, 4, 8) and batch["images"][1, :, 0].any()
    with pytest.raises(IndexError):
        data.batch(np.array([36]))


def test_a_batch_has_the_words_of_each_windows_task(tmp_path):
    data = mixture(tmp_path, entries(tmp_path), instructions={"go round": np.array([1.0, 2.0], np.float32)})
    batch = data.batch(np.array([22 + 1, 6]))  # the arm's task, move, has no words here
    assert batch[INSTRUCTION].tolist() == [[0, 0], [1, 2]]
    assert batch[INSTRUCTION + "_is_pad"].tolist() == [True, False]
    _, held = data.hold_out(0.3, seed=0)
    assert held.batch(np.arange(len(held)))[INSTRUCTION].shape == (len(held), 2)
    assert INSTRUCTION not in mixture(tmp_path, entries(tmp_path)).batch(np.array([0]))


def test_holding_out_keeps_numbers_names_and_whole_episodes(tmp_path):
    data = mixture(tmp_path, entries(tmp_path))
    kept, held = data.hold_out(0.4, seed=0)
    assert len(kept) + len(held) == len(data) and held.names == data.names
    assert set(held.batch(np.arange(len(held)))["dataset"]) == {0, 1}
    assert kept.fingerprint() != data.fingerprint()
    assert [record["dataset"] for record in data.describe()] == ["dot", "arm"]


def test_scales_of_every_embodiment(tmp_path):
    data = mixture(tmp_path, entries(tmp_path))
    dot = EpisodeStore.open(tmp_path / "dot").statistics(STATE)
    found = vector_statistics(data, STATE, {"dot": "limits", "arm": "zscore"})
    np.testing.assert_allclose(found["dot"][0], (dot["min"] + dot["max"]) / 2, atol=1e-6)
    np.testing.assert_allclose(found["dot"][1], (dot["max"] - dot["min"]) / 2, atol=1e-6)
    arm = EpisodeStore.open(tmp_path / "arm").statistics(STATE)
    np.testing.assert_allclose(found["arm"][1], arm["std"], atol=1e-5)
    images = image_statistics(data)
    rows = data.sources[0].rows[VIEW][:].reshape(-1, 8)
    np.testing.assert_allclose(images["dot"][0], rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(images["dot"][1], rows.std(axis=0), atol=1e-4)


def test_a_manifest_names_datasets_keys_and_weights(tmp_path):
    make_store(tmp_path / "data" / "dot")
    make_arm(tmp_path / "data" / "arm")
    text = {
        "datasets": [
            {"path": "data/dot", "weight": 2, "normalize": "zscore"},
            {
                **{"path": "data/arm", "name": "lift", "embodiment": "panda", "cameras": ["top"]},
                "keys": {"observation.images.top": "observation.images.side", STATE: "observation.raw.tactile"},
            },
        ]
    }
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(text))
    dot, lift = read_manifest(tmp_path / "mix.yaml")
    assert (dot.name, dot.embodiment, dot.weight, dot.normalize) == ("dot", "dot", 2.0, "zscore")
    data = mixture(tmp_path, [dot, lift], mixing="weights")
    assert data.shares == pytest.approx([2 / 3, 1 / 3])
    assert data.embodiments["panda"].cameras == ("top",)
    store = EpisodeStore.open(tmp_path / "data" / "arm")
    np.testing.assert_array_equal(
        data.batch(np.array([22]))[STATE][0, -1], store.read("observation.raw.tactile", 0, 1)[0]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "expected one entry, datasets, got list"),
        ("datasets: []", "datasets must be a list of at least one"),
        ("datasets: [{name: a}]", "dataset 1: expected settings, path among them"),
        ("datasets: [{path: a, wieght: 2}]", "unknown setting 'wieght': did you mean weight"),
        ("datasets: [{path: a, weight: -1}]", "weight of a must be positive, got -1.0"),
        ("datasets: [{path: a, weight: much}]", "weight: expected a number, got 'much'"),
        ("datasets: [{path: a, normalize: zscor}]", "did you mean zscore"),
        ("datasets: [{path: a, name: a.b}]", "name of a dataset: expected letters"),
        ("datasets: [{path: a, keys: {stat: b}}]", "unknown key of a 'stat'"),
        ("datasets: [{path: a}, {path: b/a}]", "two datasets are called a"),
        (
            "datasets: [{path: a, embodiment: x}, {path: b, embodiment: x, normalize: zscore}]",
            "normalize is limits and zscore",
        ),
        (
            "datasets: [{path: a, embodiment: x, action_meaning: m}, {path: b, embodiment: x, action_meaning: mm}]",
            "actions of the embodiment x mean 'm' in a, 'mm' in b: give the datasets different embodiments",
        ),
    ],
)
def test_manifests_that_make_no_sense(tmp_path, text, message):
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read_manifest(tmp_path / "mix.yaml")


def test_manifests_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read the manifest"):
        read_manifest(tmp_path / "none.yaml")
    (tmp_path / "mix.yaml").write_text("datasets: [")
    with pytest.raises(UserError, match="is no YAML"):
        read_manifest(tmp_path / "mix.yaml")


def of_one_body(folder, *names, **options):
    return [DatasetEntry(name=name, paths=(str(folder / name),), embodiment="body", **options) for name in names]


def test_conflicting_meanings_are_declared_or_refused(tmp_path):
    make_store(tmp_path / "a", robot="left")
    make_store(tmp_path / "b", robot="right", first_seed=5)
    with pytest.raises(UsageError, match=r"of the embodiment body is of different robots \(left in .*action_meaning"):
        mixture(tmp_path, of_one_body(tmp_path, "a", "b"))
    data = mixture(tmp_path, of_one_body(tmp_path, "a", "b", action_meaning="moves in m"))
    assert list(data.embodiments) == ["body"] and data.owners == ["body", "body"]
    make_arm(tmp_path / "c")
    with pytest.raises(UsageError, match=r"different numbers of values \(3 in .*5 in .*different embodiments"):
        mixture(tmp_path, of_one_body(tmp_path, "a", "c", action_meaning="moves in m"))


def test_values_that_are_no_numbers_are_named(tmp_path):
    make_arm(tmp_path / "arm", broken=(1, 4))
    found = DatasetEntry(
        name="arm", paths=(str(tmp_path / "arm"),), embodiment="arm", keys={STATE: "observation.raw.tactile"}
    )
    with pytest.raises(UserError, match=r"observation\.raw\.tactile of .*arm is not a number in episode 1, step 4:"):
        mixture(tmp_path, [found])


def test_stores_that_do_not_fit(tmp_path):
    make_store(tmp_path / "video", keys=(VIEW,))
    entry = DatasetEntry(name="video", paths=(str(tmp_path / "video"),), embodiment="video")
    with pytest.raises(UsageError, match="has no actions: HPT learns by predicting them"):
        mixture(tmp_path, [entry])
    found = entries(tmp_path)
    with pytest.raises(UsageError, match=r"a window of 12 steps is longer than every episode of .*dot"):
        mixture(tmp_path, found, context=12)
    with pytest.raises(UsageError, match="unknown camera of dot 'frnt': did you mean front"):
        mixture(tmp_path, entries(tmp_path, cameras=("frnt",)))
    with pytest.raises(UsageError, match=r"unknown key in .*dot, named by keys of dot 'observation.stat'"):
        mixture(tmp_path, entries(tmp_path, keys={STATE: "observation.stat"}))
    make_store(tmp_path / "blind", keys=(STATE, ACTION))
    with pytest.raises(UsageError, match="no dataset has frames"):
        mixture(tmp_path, [DatasetEntry(name="blind", paths=(str(tmp_path / "blind"),), embodiment="blind")])
