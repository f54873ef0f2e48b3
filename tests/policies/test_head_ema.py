"""The average of weights that diffusion policies are evaluated with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from embodied.policies.heads.ema import EMA


def test_decays_equal_diffusers():
    golden = np.load(Path(__file__).parent / "fixtures" / "heads_diffusers.npz")
    ema = EMA(nn.Linear(1, 1))
    assert [ema.decay(int(update)) for update in golden["ema_updates"]] == pytest.approx(golden["ema_decays"].tolist())
    assert ema.decay(10_001) == pytest.approx(0.999, abs=1e-6)


def test_the_average_follows_the_weights():
    module = nn.Linear(1, 1, bias=False)
    ema, expected = EMA(module, power=1.0), 0.0
    for update, value in enumerate([2.0, 4.0, 8.0, 16.0]):
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(module)
        expected = ema.decay(update) * expected + (1 - ema.decay(update)) * value
        assert ema.average.weight.item() == pytest.approx(expected)
    assert [ema.decay(update) for update in range(4)] == [0.0, 0.0, 0.5, pytest.approx(2 / 3)]


def test_statistics_and_frozen_weights_are_copied():
    module = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    module[1].bias.requires_grad_(False)
    ema = EMA(module)
    for value in (1.0, 2.0, 3.0, 4.0):
        with torch.no_grad():
            for tensor in (*module.parameters(), module[0].running_mean):
                tensor.fill_(value)
        ema.update(module)
    average = ema.average
    assert average[0].weight.item() == average[1].bias.item() == average[0].running_mean.item() == 4.0
    assert 2.0 < average[1].weight.item() < 4.0


def test_the_average_is_apart_from_the_module_and_stays_in_eval_mode():
    module = nn.Linear(1, 1)
    ema = EMA(module).train()
    with torch.no_grad():
        module.weight.add_(1.0)
    assert not ema.average.training
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert ema.average.weight.item() != module.weight.item()


def test_a_resumed_average_goes_on_as_an_uninterrupted_one():
    def weights(ema, module, values):
        for value in values:
            with torch.no_grad():
                module.weight.fill_(value)
            ema.update(module)

    module = nn.Linear(1, 1, bias=False)
    whole, first, second = EMA(module), EMA(module), EMA(module)
    weights(whole, module, [1.0, 2.0, 3.0, 4.0, 5.0])
    weights(first, module, [1.0, 2.0, 3.0])
    second.load_state_dict(first.state_dict())
    weights(second, module, [4.0, 5.0])
    assert second.average.weight.item() == whole.average.weight.item()
