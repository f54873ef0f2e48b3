"""Which batches a run sees depends on seed and step alone."""

import numpy as np
import pytest
import torch

from embodied.core.errors import UsageError
from embodied.datasets.loading.data_loader import load_batches
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec


@pytest.fixture
def dataset(tmp_path):
    keys = {"observation.images.front": KeySpec("uint8", (4, 4, 3)), "action": KeySpec("float32", (2,))}
    with EpisodeStore.create(tmp_path / "s", keys=keys, fps=10) as store:
        for number in range(4):
            images = np.random.default_rng(number).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
            store.append(
                {"observation.images.front": images, "action": images[:, 0, 0, :2].astype(np.float32)},
                task="",
                seed=0,
                success=True,
            )
    data = materialize(store, keys=list(keys), cache_root=tmp_path / "c")
    return WindowDataset(data, windows={"observation.images.front": [-1, 0], "action": range(3)})


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[key], other[key]) for key in batch)


def test_batches_come_as_tensors_of_each_step(dataset):
    sampler = EpochSampler(len(dataset), batch_size=6, seed=0)
    batches = list(load_batches(dataset, sampler, stop=5))
    assert batches[0]["observation.images.front"].dtype == torch.uint8 and len(batches) == 5
    wanted = dataset.batch(sampler.batch(3))
    assert all(np.array_equal(batches[3][key].numpy(), array) for key, array in wanted.items())


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_workers_give_what_none_give(dataset, start_method):
    sampler = EpochSampler(len(dataset), batch_size=6, seed=0)
    several = list(load_batches(dataset, sampler, stop=9, workers=2, start_method=start_method))
    assert_same(several, list(load_batches(dataset, sampler, stop=9)))


def test_a_run_that_was_stopped_resumes_inside_an_epoch(dataset):
    sampler = EpochSampler(len(dataset), batch_size=6, seed=0)
    before = []
    for batch in load_batches(dataset, sampler, stop=9, workers=2, start_method="forkserver"):
        before.append(batch)
        if len(before) == 4:  # in the middle of the second epoch, with batches read ahead
            break
    resumed = list(load_batches(dataset, sampler, start=4, stop=9, workers=1, start_method="forkserver"))
    assert_same(before + resumed, list(load_batches(dataset, sampler, stop=9)))


def test_torchs_own_batches_work_too(dataset):
    (batch, *_) = torch.utils.data.DataLoader(dataset, batch_size=4)
    assert batch["action"].shape == (4, 3, 2) and batch["action_is_pad"].dtype == torch.bool


def test_wrong_arguments_are_refused(dataset):
    sampler = EpochSampler(len(dataset), batch_size=6, seed=0)
    for wrong in ({"start": 3, "stop": 2}, {"stop": 1, "workers": -1}, {"stop": 1, "prefetch": 0}):
        with pytest.raises(UsageError, match="expected 0 <= start <= stop"):
            load_batches(dataset, sampler, **wrong)


@pytest.mark.parametrize("weights", [None, [1.0] * 20 + [3.0] * 3])
def test_ranks_share_the_batches_of_one_process(weights):
    whole = EpochSampler(23, batch_size=12, seed=5, weights=weights)
    ranks = [EpochSampler(23, batch_size=4, seed=5, weights=weights, rank=rank, world_size=3) for rank in range(3)]
    for step in (0, 1, 7):
        assert np.array_equal(np.concatenate([rank.batch(step) for rank in ranks]), whole.batch(step))


def test_a_rank_outside_its_world_is_refused():
    for rank, world_size in ((2, 2), (-1, 1), (0, 0)):
        with pytest.raises(UsageError, match="rank"):
            EpochSampler(5, batch_size=1, seed=0, rank=rank, world_size=world_size)


def test_epochs_are_uniform_permutations():
    """Chi-square over where each of 6 items lands in 3,000 epochs: 25 degrees of freedom, 99.9 % below 52.6."""
    sampler = EpochSampler(6, batch_size=6, seed=0)
    epochs = np.stack([sampler.batch(step) for step in range(3000)])
    counts = np.stack([np.bincount(epochs[:, place], minlength=6) for place in range(6)])
    assert ((counts - 500) ** 2 / 500).sum() < 52.6
    orders = np.unique(epochs[:, :3] @ [36, 6, 1], return_counts=True)[1]  # 119 degrees of freedom
    assert len(orders) == 120 and ((orders - 25) ** 2 / 25).sum() < 173.6
