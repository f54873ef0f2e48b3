"""RPT: masks and their statistics, what reaches the loss, what is missing, what it learns."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny_sequences import CONTEXT, VIEW, encoder, make, random_batch

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.models.sequence.sensorimotor import SensorimotorTransformer
from embodied.objectives.sensorimotor.rpt import RPT
from embodied.training.optimization import compile_parts

KEYS = (VIEW, STATE, ACTION)


def tensors(batch):
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def parts(objective, rows=5, seed=0):
    """Values, masks and what is missing, by modality, as `masked_loss` takes them."""
    draws = generator(seed)
    values = {
        name: torch.randn(rows, CONTEXT, size, generator=draws) for name, size in zip(KEYS, (8, 3, 2), strict=True)
    }
    masks = objective.draw_masks(rows, CONTEXT, draws)
    masked = {name: masks[..., index] for index, name in enumerate(KEYS)}
    missing = {name: torch.zeros(rows, CONTEXT, dtype=torch.bool) for name in KEYS}
    return values, masked, missing


def test_the_papers_size_has_as_many_weights_as_its_blocks_do():
    network = SensorimotorTransformer(cameras=["a", "b", "c"], latent_dim=768, state_dim=8, action_dim=8)
    assert sum(part.numel() for part in network.trunk.blocks.parameters()) == 1_188_096
    values = {name: torch.randn(1, 16, size) for name, size in network.sizes.items()}
    seen = []
    network.trunk.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    network(values, {name: torch.zeros(1, 16, dtype=torch.bool) for name in values})
    assert seen == [(1, 5 * 16, 192)]


@pytest.mark.parametrize(("masking", "causal"), [*product(("token", "timestep", "modality"), (False, True))])
def test_the_share_of_masks_is_drawn_per_window_from_the_range(masking, causal):
    objective = make(objective={"mask_ratio": (0.7, 0.9), "masking": masking, "causal": causal}, context=16)
    masks = objective.draw_masks(6000, 16, generator())
    shares = masks.flatten(1).float().mean(dim=1)
    assert abs(float(shares.mean()) - 0.8) < 0.01
    # Var = E[r(1-r)] / n + Var[r], n things that are hidden together, r uniform over a width of 0.2
    n = {"token": 48, "timestep": 16, "modality": 3}[masking]
    expected = (0.8 * 0.2 - 0.2**2 / 12) / n + 0.2**2 / 12
    assert abs(float(shares.var()) / expected - 1) < 0.08
    if causal:
        places = masks.flatten(1).int()
        assert bool((places.diff(dim=1) >= 0).all())
    elif masking == "timestep":
        assert bool((masks == masks[..., :1]).all())
    elif masking == "modality":
        assert bool((masks == masks[:, :1]).all())
    else:  # tokens are hidden independently, given the ratio of their window
        first, second = masks[:, 0, 0].float(), masks[:, 3, 2].float()
        assert abs(float(((first - 0.8) * (second - 0.8)).mean()) - 0.2**2 / 12) < 0.01


@torch.no_grad()
def test_loss_against_a_loop_over_tokens():
    objective = make().eval()
    values, masked, missing = parts(objective)
    missing[ACTION][2] = missing[STATE][0, :2] = True
    loss, metrics = objective.masked_loss(values, masked, missing, values)
    hidden = {name: masked[name] | missing[name] for name in KEYS}
    tokens = objective.encoder.sequence(values, hidden)
    heads = {VIEW: "images", STATE: "state", ACTION: "action"}
    means, counted = [], 0
    for name in KEYS:
        errors = []
        for row, step in product(range(5), range(CONTEXT)):
            if masked[name][row, step] and not missing[name][row, step]:
                guess = objective.outputs[heads[name]](tokens[name][row, step])
                errors.append(float((guess - values[name][row, step]).square().mean()))
        means.append(np.mean(errors))
        counted += len(errors)
        assert float(metrics[f"error_{heads[name]}"]) == pytest.approx(means[-1], rel=1e-4)
    assert float(loss) == pytest.approx(np.mean(means), rel=1e-4)
    there = sum(int((~missing[name]).sum()) for name in KEYS)
    assert float(metrics["masked"]) == pytest.approx(counted / there)


def test_no_gradient_from_targets_that_are_seen_nor_from_inputs_that_are_hidden():
    objective = make()
    values, masked, missing = parts(objective)
    missing[STATE][1] = True
    targets = {name: value.clone().requires_grad_() for name, value in values.items()}
    inputs = {name: value.clone().requires_grad_() for name, value in values.items()}
    objective.masked_loss(inputs, masked, missing, targets)[0].backward()
    for name in KEYS:
        counts = masked[name] & ~missing[name]
        reached = targets[name].grad.abs().sum(dim=-1) > 0
        assert torch.equal(reached, counts), name
        reached = inputs[name].grad.abs().sum(dim=-1) > 0
        assert torch.equal(reached, ~(masked[name] | missing[name])), name


def test_every_trained_weight_has_a_gradient_and_the_image_encoder_none():
    objective = make()
    objective(tensors(random_batch()), generator())[0].backward()
    for name, part in objective.named_parameters():
        assert (part.grad is not None) == (not name.startswith("encoder.frames.")), name


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("away", KEYS)
def test_what_is_missing_may_hold_anything(garbage, away):
    objective = make()
    batch = random_batch()
    batch[f"{away}_is_pad"][1:4] = True
    batch[f"{away}_is_pad"][5, 0] = True
    expected, _ = objective(tensors(batch), generator())
    expected.backward()
    gradients = {name: part.grad.clone() for name, part in objective.named_parameters() if part.grad is not None}
    batch[away][batch[f"{away}_is_pad"]] = garbage
    objective.zero_grad()
    loss, _ = objective(tensors(batch), generator())
    loss.backward()
    assert torch.equal(loss, expected)
    assert all(torch.equal(dict(objective.named_parameters())[name].grad, each) for name, each in gradients.items())


def test_a_missing_sensor_is_a_masked_one_and_other_windows_do_not_notice():
    objective = make().eval()
    values, masked, missing = parts(objective)
    network = objective.encoder.sequence
    masked[ACTION][2] = True  # all of one window's actions are hidden ...
    whole = network(values, masked)
    away = {**masked, ACTION: masked[ACTION].clone()}
    away[ACTION][2] = False
    missing[ACTION][2] = True  # ... or are not there
    same = network(values, {name: away[name] | missing[name] for name in KEYS})
    assert all(torch.equal(whole[name], same[name]) for name in KEYS)
    without = network(
        {VIEW: values[VIEW], STATE: values[STATE]}, {**masked, ACTION: torch.ones_like(masked[ACTION])}
    )  # a store without the key at all
    for name in KEYS:
        torch.testing.assert_close(without[name][2], whole[name][2])


@torch.no_grad()
def test_a_batch_of_mixed_data_has_the_loss_of_its_kinds():
    """By the numbers of tokens that count, as the mean over a batch is defined."""
    objective = make().eval()
    values, masked, missing = parts(objective, rows=6)
    missing[ACTION][:3] = missing[STATE][:3] = True  # three videos, three recordings of a robot
    total = objective.masked_loss(values, masked, missing, values)[0]
    sums, counts = dict.fromkeys(KEYS, 0.0), dict.fromkeys(KEYS, 0)
    for rows in (slice(0, 3), slice(3, 6)):
        cut = [{name: tensor[rows] for name, tensor in part.items()} for part in (values, masked, missing)]
        _, metrics = objective.masked_loss(*cut, cut[0])
        for name, kind in zip(KEYS, ("images", "state", "action"), strict=True):
            count = int((cut[1][name] & ~cut[2][name]).sum())
            sums[name] += float(metrics[f"error_{kind}"]) * count
            counts[name] += count
    expected = np.mean([sums[name] / counts[name] for name in KEYS])
    assert float(total) == pytest.approx(expected, rel=1e-4)


def test_it_learns_one_batch_below_what_the_mean_gives():
    objective, batch = make(objective={"mask_ratio": (0.3, 0.5)}), tensors(random_batch(rows=4))
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=3e-3)
    draws = generator()
    for _ in range(250):
        loss, _ = objective(batch, draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(objective(batch, generator(1))[0].detach()) < 0.3  # values have a variance of 1


@torch.no_grad()
def test_the_same_loss_from_its_tensors_compiled_and_nearly_so_in_bf16():
    objective, batch = make(), tensors(random_batch())
    expected = objective(batch, generator())[0]
    again = make(width=32)
    for part in again.parameters():
        part.zero_()
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again(batch, generator())[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(objective(batch, generator())[0]) == pytest.approx(float(expected), rel=0.05)
    compile_parts(again, "eager")
    torch.testing.assert_close(again(batch, generator())[0], expected, rtol=1e-4, atol=1e-5)


def test_windows_of_one_step_and_without_actions_train():
    for options in ({"context": 1}, {"action_dim": 0}, {"state_dim": 0}, {"cameras": ["front", "side"]}):
        objective = make(**options)
        steps, sizes = objective.encoder.context, objective.encoder.sequence.sizes
        batch = {name: torch.randn(3, steps, size) for name, size in sizes.items()}
        batch |= {f"{name}_is_pad": torch.zeros(3, steps, dtype=torch.bool) for name in sizes}
        loss, metrics = objective(batch, generator())
        loss.backward()
        assert bool(loss.isfinite())
        assert ("error_action" in metrics) == bool(sizes[ACTION])


def test_normalisation_is_by_the_data_and_dead_dimensions_stay_as_they_are():
    network = encoder().sequence
    statistics = {
        VIEW: (torch.zeros(8), torch.ones(8)),
        STATE: (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 0.0])),
        ACTION: (torch.zeros(2), torch.ones(2)),
    }
    network.fit(statistics)
    assert network.normalize(STATE, torch.tensor([3.0, 3.0, 3.5])).tolist() == [1.0, 2.0, 0.5]
    with pytest.raises(UsageError, match=r"statistics of observation.state: expected mean .* of 3 values, got none"):
        network.fit({name: value for name, value in statistics.items() if name != STATE})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": (0.9, 0.7)}, r"mask_ratio must be two numbers within \(0, 1\), the lower first"),
        ({"mask_ratio": (0.7, 1.0)}, "mask_ratio"),
        ({"masking": "tokens"}, "unknown masking 'tokens': did you mean token"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        RPT(encoder(), **settings)


def test_networks_that_make_no_sense():
    for options, message in (
        ({"cameras": []}, "cameras: expected different names, at least one"),
        ({"cameras": ["a", "a"]}, "different names"),
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"latent_dim": 9}, "gives 8 values per frame, not 9"),
    ):
        with pytest.raises(UsageError, match=message):
            encoder(**options)
