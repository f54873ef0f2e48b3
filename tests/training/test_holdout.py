"""The loss on held-out frames leaves every method as it was; the split takes whole episodes of every source."""

import numpy as np
import pytest
import torch
from tiny_objectives import METHODS, batch, make

from embodied.core.errors import UsageError
from embodied.core.pairing import FrameRelations
from embodied.datasets.loading.holdout import hold_out
from embodied.objectives.parts import distributed
from embodied.training.holdout import HoldoutLoss


def relations(lengths, cameras=1, pictures=0):
    """A store's episodes, once per camera, then single pictures."""
    episodes = np.tile(np.repeat(np.arange(len(lengths)), lengths), cameras)
    which = np.repeat(np.arange(cameras), sum(lengths))
    more = len(lengths) + np.arange(pictures)
    every = np.concatenate([episodes, more])
    return FrameRelations(every, np.zeros_like(every), np.concatenate([which, np.full(pictures, cameras)]))


def test_the_split_takes_whole_episodes_with_all_their_cameras_and_a_share_of_each_source():
    given = relations([3, 5, 2, 4, 6, 1, 3, 4, 2, 5], cameras=2, pictures=50)
    held = hold_out(given, 0.2, seed=0)
    for episode in range(10):
        assert len(set(held[given.episodes == episode])) == 1
    assert len(set(given.episodes[held & (given.episodes < 10)])) == 2
    assert held[given.episodes >= 10].sum() == 10
    np.testing.assert_array_equal(held, hold_out(given, 0.2, seed=0))
    assert (held != hold_out(given, 0.2, seed=1)).any()


def test_a_small_share_is_one_episode_and_a_large_one_leaves_one():
    given = relations([2, 2, 2])
    assert hold_out(given, 0.001, seed=0).sum() == 2
    assert hold_out(given, 0.999, seed=0).sum() == 4
    both = relations([4], pictures=10)  # the store is a single episode: it stays
    assert hold_out(both, 0.1, seed=0)[:4].sum() == 0


def test_nothing_to_split():
    with pytest.raises(UsageError, match="a single episode or picture; give holdout_data"):
        hold_out(relations([7]), 0.5, seed=0)
    with pytest.raises(UsageError, match=r"holdout must be in \(0, 1\)"):
        hold_out(relations([2, 2]), 1.0, seed=0)


def read_batch(number):
    return {name: value.numpy() for name, value in batch(6, seed=number).items()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_comes_back_unchanged(name):
    objective = make(name)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    monitor = HoldoutLoss(read_batch, batches=2, every=1, seed=0, reduced=False)
    objective.eval()
    drawn = torch.random.get_rng_state()
    with torch.no_grad():
        first, second = monitor(1, objective), monitor(2, objective)
    assert first == second
    assert np.isfinite(first["holdout_loss"])
    assert torch.equal(drawn, torch.random.get_rng_state())
    objective.train()
    if hasattr(objective, "after_step"):
        plain = make(name)
        plain.after_step(1, 10)
        objective.after_step(1, 10)  # what was looked at must not be in queues, centres or codes
        before = plain.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())


def test_it_is_the_mean_over_frames_of_the_loss():
    class Brightness(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, batch, generator):
            return self.weight * batch["images"].float().mean(), {}

    batches = [np.full((size, 4, 4, 3), value, np.uint8) for size, value in ((3, 10), (1, 50))]
    monitor = HoldoutLoss(batches.__getitem__, batches=2, every=5, seed=0, reduced=False)
    assert monitor.every == 5
    with torch.no_grad():
        assert monitor(5, Brightness())["holdout_loss"] == pytest.approx(20.0)


def test_one_process_of_several_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value.add_(5.0))
    with distributed.alone():
        assert float(distributed.sum_over_processes(torch.ones(()))) == 1.0
    assert float(distributed.sum_over_processes(torch.ones(()))) == 6.0
