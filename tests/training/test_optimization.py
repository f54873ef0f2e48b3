"""Recipes: groups by layer, schedules, averages, parts of a batch, compiled parts, monitors."""

import time

import numpy as np
import pytest
import torch
from tiny_objectives import batch, frames, generator, make
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.training.optimization import Recipe, parameter_groups, scaled_learning_rate
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import STATE, load_weights
from embodied.training.schedule_free import ScheduleFreeAdamW
from embodied.training.throughput import count_flops, peak_flops


class Killed(Exception):
    pass


class KillingReporter(SilentReporter):
    def track(self, items, *, total, description, done=0):
        for item in items:
            if item == 5:
                raise Killed
            yield item


def run(folder, *, name="mae", steps=8, recipe=None, records=None, monitors=(), reporter=None):
    objective = make(name)
    pretrain(
        objective,
        lambda step: {name: values.numpy() for name, values in batch(8, seed=step).items()},
        steps=steps,
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_steps=2,
        clip=1.0,
        precision="fp32",
        seed=0,
        checkpoint_folder=folder,
        checkpoint_every=4,
        device=torch.device("cpu"),
        log=[].append if records is None else records.append,
        reporter=reporter or SilentReporter(),
        log_every=2,
        recipe=recipe,
        monitors=monitors,
    )
    return objective


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mae", Recipe(average=0.9, betas=(0.9, 0.99), layer_decay=0.8)),
        ("mae", Recipe(schedule="schedule_free", weight_decay_end=0.2)),
        ("droppos", Recipe(schedule="linear", accumulate=2)),
        ("densecl", Recipe(accumulate=2)),
        ("look", Recipe(accumulate=2)),
        ("distill", Recipe()),
        ("vq", Recipe(schedule="constant")),
        ("ibot", Recipe(betas=(0.9, 0.999))),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, name, recipe):
    """With averages, the optimiser's own state, codes, teachers, centres and schedules of the objective."""
    records, expected_records = [], []
    expected = run(tmp_path / "whole", name=name, recipe=recipe, records=expected_records)
    with pytest.raises(Killed):
        run(tmp_path / "killed", name=name, recipe=recipe, reporter=KillingReporter())
    assert same(expected, run(tmp_path / "killed", name=name, recipe=recipe, records=records))
    assert records[-1]["loss"] == expected_records[-1]["loss"]
    # and once more, from the end
    assert same(expected, run(tmp_path / "killed", name=name, recipe=recipe))


def test_the_average_is_that_of_the_weights(tmp_path):
    seen = []

    class Watch:
        every = 1

        def __call__(self, step, objective):
            assert not objective.training
            assert not torch.is_grad_enabled()
            seen.append(objective.decoder.head.bias.clone())
            return {"watched": float(step)}

    records = []
    averaged = run(tmp_path / "a", recipe=Recipe(average=0.5), monitors=[Watch()], records=records)
    assert torch.equal(averaged.decoder.head.bias, seen[-1])  # what monitors saw is what the training ends with
    assert [record["watched"] for record in records if "watched" in record] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not same(averaged, run(tmp_path / "b"))
    watched, plain = [], []
    Watch.__call__ = lambda self, step, objective: watched.append(objective.decoder.head.bias.clone()) or {}
    run(tmp_path / "c", monitors=[Watch()])
    average = None
    for step, bias in enumerate(watched, start=1):
        decay = min(0.5, step / (step + 9))
        average = make("mae").decoder.head.bias.detach() if average is None else average
        average = torch.lerp(average, bias, 1 - decay)
        plain.append(average)
    torch.testing.assert_close(seen[-1], plain[-1])


def test_a_checkpoint_gives_the_weights_that_its_training_ended_with(tmp_path):
    for number, recipe in enumerate((Recipe(), Recipe(average=0.5))):
        trained, other = run(tmp_path / str(number), steps=4, recipe=recipe), make("mae")
        assert load_weights(other, tmp_path / str(number) / STATE) == 4
        assert same(other, trained)
    with pytest.raises(UserError, match="belongs to another model"):
        load_weights(make("droppos"), tmp_path / "0" / STATE)


def test_monitors_change_nothing(tmp_path):
    class Draw:
        every = 2

        def __call__(self, step, objective):
            with torch.random.fork_rng():
                objective({"images": frames(4)}, generator())
            return {}

    recipes = {"plain": None, "average": Recipe(average=0.9), "free": Recipe(schedule="schedule_free")}
    for name, recipe in recipes.items():
        watched = run(tmp_path / name / "watched", recipe=recipe, monitors=[Draw()])
        assert same(run(tmp_path / name / "alone", recipe=recipe), watched)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own look
def test_compiled_parts_learn_alike(tmp_path):
    expected, compiled = run(tmp_path / "a", steps=3), run(tmp_path / "b", steps=3, recipe=Recipe(compile="eager"))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, atol=1e-6, rtol=1e-4)


def test_layers_have_rates_of_their_own():
    objective = make("mae")  # two blocks
    groups = parameter_groups(objective, 0.1, layer_decay=0.5)
    scale = {id(part): group["scale"] for group in groups for part in group["params"]}
    vit = objective.encoder.vit
    assert [scale[id(part)] for part in (vit.embed.weight, vit.class_token)] == [0.125, 0.125]
    assert [scale[id(vit.blocks[number].qkv.weight)] for number in (0, 1)] == [0.25, 0.5]
    assert [scale[id(part)] for part in (vit.norm.weight, objective.decoder.head.weight)] == [1.0, 1.0]
    assert all(group["weight_decay"] == (0.1 if group["decays"] else 0.0) for group in groups)
    trained = sum(part.requires_grad for part in objective.parameters())
    assert sum(len(group["params"]) for group in groups) == trained


def test_learning_rates_scale_with_the_batch():
    assert scaled_learning_rate(1e-3, "none", 64) == 1e-3
    assert scaled_learning_rate(1.5e-4, "linear", 4096) == pytest.approx(2.4e-3)
    assert scaled_learning_rate(1e-3, "sqrt", 256) == pytest.approx(5e-4)
    with pytest.raises(UsageError, match=r"unknown train\.scale_learning_rate 'quadratic'"):
        scaled_learning_rate(1e-3, "quadratic", 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"betas": (0.9, 1.0)}, r"train\.betas must be two numbers in \[0, 1\)"),
        ({"accumulate": 0}, r"train\.accumulate must be at least 1"),
        ({"layer_decay": 0.0}, r"train\.layer_decay must be in \(0, 1\]"),
        ({"average": 0.9, "schedule": "schedule_free"}, "choose one"),
        ({"compile": "inducto"}, "did you mean inductor"),
    ],
)
def test_wrong_recipes(options, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**options)


def test_schedule_free_follows_its_paper():
    """Against Algorithm 1 written out in NumPy, with weight decay at y."""
    torch.manual_seed(0)
    layer, target = nn.Linear(3, 2), torch.randn(5, 2)
    inputs = torch.randn(5, 3)
    optimizer = ScheduleFreeAdamW(layer.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1)
    y = [part.detach().numpy().astype(np.float64) for part in layer.parameters()]
    z, x, square, weights = [v.copy() for v in y], [v.copy() for v in y], [np.zeros_like(v) for v in y], 0.0
    for step, rate in enumerate((0.01, 0.02, 0.02, 0.02), start=1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (layer(inputs) - target).pow(2).mean().backward()
        gradients = [part.grad.numpy().astype(np.float64) for part in layer.parameters()]
        optimizer.step()
        weights += rate**2
        for number, gradient in enumerate(gradients):
            square[number] = 0.95 * square[number] + 0.05 * gradient**2
            root = np.sqrt(square[number] / (1 - 0.95**step)) + 1e-8
            z[number] = z[number] - rate * (gradient / root + 0.1 * y[number])
            share = rate**2 / weights
            x[number] = (1 - share) * x[number] + share * z[number]
            y[number] = 0.1 * z[number] + 0.9 * x[number]
        for part, expected in zip(layer.parameters(), y, strict=True):
            np.testing.assert_allclose(part.detach(), expected, atol=2e-6)
    optimizer.swap()
    for part, expected in zip(layer.parameters(), x, strict=True):
        np.testing.assert_allclose(part.detach(), expected, atol=5e-6)
    optimizer.swap()
    for part, expected in zip(layer.parameters(), y, strict=True):
        np.testing.assert_allclose(part.detach(), expected, atol=2e-6)


def test_arithmetic_is_counted():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(192, 50, bias=False)

        def forward(self, batch, generator):
            return self.encoder(batch["images"].float().flatten(1)).sum(), {}

    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    # forward, and the gradient of the weights; the input has none
    assert count_flops(Product(), {"images": images}) == 2 * 2 * 192 * 50
    objective = make("mae")
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert count_flops(objective, {"images": frames(2)}) > 1e6
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert all(part.grad is None for part in objective.parameters())
    assert 1e8 < peak_flops(torch.device("cpu"), "fp32") < 1e14


def test_the_peak_of_cpus_does_not_count_what_others_take(monkeypatch):
    multiply, pause = torch.Tensor.__matmul__, 0.5

    def held_up(left, right):
        time.sleep(pause)
        return multiply(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", held_up)
    peak_flops.cache_clear()
    assert peak_flops(torch.device("cpu"), "fp32") > 2 * 768**3 / pause
    peak_flops.cache_clear()
