"""Toto's network: the sequence, its size, what looks at what, features, and going on."""

import pytest
import torch
from moving_squares import CODES, FRAMES, clips, generator
from tiny_toto import network, sharpened
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION
from embodied.models.sequence.toto_generation import Sampling, continue_frames
from embodied.models.sequence.toto_sizes import SIZES, choose_size
from embodied.models.sequence.toto_tokens import FIRST_CODE, IMAGE, VIDEO, TotoTokens

VIEW, PLACES = "observation.images.front", 16


def shown(rows, frames=FRAMES):
    return {VIEW: torch.zeros(rows, frames, dtype=torch.bool), ACTION: torch.zeros(rows, frames, dtype=torch.bool)}


def inputs(rows=3, frames=FRAMES, seed=0):
    batch = clips(rows, frames=frames, seed=seed)
    return {VIEW: batch["codes"], ACTION: batch[ACTION]}


def test_a_sequence_is_the_beginning_and_frame_after_frame():
    tokens = TotoTokens(codes=10, frame_tokens=3, action_dim=0, width=4)
    codes = torch.tensor([[[0, 9, 5], [1, 1, 7]]])
    ids = [VIDEO, 4, 13, 9, 5, 5, 11]
    assert torch.equal(tokens(codes), tokens.table.weight[ids][None])
    images = tokens(codes, images=torch.tensor([True]))
    assert torch.equal(images[0, 0], tokens.table.weight[IMAGE])
    assert torch.equal(images[0, 1:], tokens.table.weight[ids[1:]])
    assert tokens.places(2, codes.device).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tokens.length(16) == 49  # and the paper's 16 frames of 256 codes are its 4096 and the beginning
    assert TotoTokens(codes=10, frame_tokens=256, action_dim=0, width=4).length(16) == 4097


def test_with_actions_a_token_stands_behind_every_frame_but_the_last():
    tokens = TotoTokens(codes=10, frame_tokens=2, action_dim=3, width=4)
    codes, actions = torch.tensor([[[0, 1], [2, 3], [4, 5]]]), torch.randn(1, 3, 3)
    away = torch.tensor([[False, True, False]])
    actions[0, 1] = float("nan")  # what is not known may hold anything
    sequence = tokens(codes, actions, away)
    assert sequence.shape[1] == tokens.length(3) == 9
    torch.testing.assert_close(sequence[0, 3], tokens.act(actions[0, 0]))
    torch.testing.assert_close(sequence[0, 6], tokens.no_action)
    assert torch.equal(sequence[0, tokens.places(3, codes.device)], tokens.table.weight[codes[0] + FIRST_CODE])
    assert torch.equal(tokens(codes)[0, 3], tokens.no_action)  # none is known
    sequence.sum().backward()
    assert all(part.grad.isfinite().all() for part in tokens.parameters())


@pytest.mark.parametrize(("size", "published"), [("base", 120e6), ("large", 280e6), ("1b", 1.1e9)])
def test_sizes_have_about_as_many_weights_as_the_paper_says(size, published):
    """Its numbers are rounded, and its widths unconfirmed; counted by formula, since the largest takes gigabytes."""
    made = SIZES[size]
    block = 4 * made.width**2 + 3 * made.width * made.hidden + 2 * made.width
    count = made.depth * block + made.width + (8192 + FIRST_CODE) * made.width
    assert count == pytest.approx(published, rel=0.05)
    assert made.depth == {"base": 12, "large": 16, "1b": 22}[size]


def test_the_formula_of_weights_is_that_of_the_network():
    made = network(vocabulary=50, width=48, depth=3, heads=4, hidden=None)
    size = choose_size(None, width=48, depth=3, heads=4, hidden=None)
    assert size.hidden == 128
    block = 4 * 48**2 + 3 * 48 * 128 + 2 * 48
    assert sum(part.numel() for part in made.parameters()) == 3 * block + 48 + 54 * 48
    untied = network(vocabulary=50, width=48, depth=3, heads=4, tied=False)
    assert sum(part.numel() for part in untied.parameters()) == 3 * block + 48 + 2 * 54 * 48


@torch.no_grad()
@pytest.mark.parametrize("action_dim", [0, 2])
def test_predictions_look_back_only(action_dim):
    """A code at frame t, place n changes the predictions after it, and bit for bit none before, nor its own."""
    made, values = sharpened(network(action_dim=action_dim)), inputs()
    whole = made(values, shown(3), predict=True)["codes"].flatten(1, 2)
    for place in (0, 5, PLACES, 3 * PLACES - 1, FRAMES * PLACES - 1):
        changed = {**values, VIEW: values[VIEW].flatten(1).clone()}
        changed[VIEW][:, place] = (changed[VIEW][:, place] + 1) % CODES
        changed[VIEW] = changed[VIEW].unflatten(1, (FRAMES, PLACES))
        out = made(changed, shown(3), predict=True)
        assert torch.equal(out["codes"].flatten(1, 2)[:, : place + 1], whole[:, : place + 1])
        changed_ones = (out["codes"].flatten(1, 2) != whole).any(dim=-1)[:, place + 1 :]
        # Few are reached so weakly that rounding hides it.
        assert not changed_ones.numel() or (changed_ones[:, 0].all() and changed_ones.float().mean() > 0.95)
    if action_dim:
        moved = {**values, ACTION: values[ACTION].clone()}
        moved[ACTION][:, 2] += 1
        out = made(moved, shown(3), predict=True)["codes"].flatten(1, 2)
        assert torch.equal(out[:, : 3 * PLACES], whole[:, : 3 * PLACES])
        changed_ones = (out != whole).any(dim=-1)[:, 3 * PLACES :]
        assert changed_ones[:, 0].all() and changed_ones.float().mean() > 0.95


def test_by_gradient_too():
    made, values = network(action_dim=2), inputs(rows=1)
    actions = values[ACTION].clone().requires_grad_()
    seen = []
    made.tokens.table.register_forward_hook(lambda module, arguments, out: seen.append(out))
    out = made({VIEW: values[VIEW], ACTION: actions}, shown(1), predict=True)["codes"]
    frames = next(part for part in seen if part.ndim == 4)  # (B, T, N, D)
    loss = out[0, 3, 4].square().sum()
    of_frames, of_actions = torch.autograd.grad(loss, [frames, actions])
    reached = of_frames[0].abs().sum(dim=-1).flatten() > 0
    assert reached.tolist() == [place < 3 * PLACES + 4 for place in range(FRAMES * PLACES)]
    assert (of_actions[0].abs().sum(dim=-1) > 0).tolist() == [True, True, True, False, False]


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_features_are_of_the_tokens_at_the_chosen_depth(pool):
    made, values = network(depth=4, pool=pool), inputs()
    assert made.read_depth == 2
    out = made(values, shown(3), depths=[0, 2, 4])
    (state,) = made.trunk.at_depths(made.tokens(values[VIEW]), [2])
    tokens = state[:, 1:].unflatten(1, (FRAMES, PLACES))
    tokens = F.rms_norm(tokens, (32,))
    torch.testing.assert_close(out["tokens"], tokens)
    torch.testing.assert_close(out["depth_2"], tokens)
    torch.testing.assert_close(out[ACTION], tokens.mean(dim=2) if pool == "mean" else tokens[:, :, -1])
    whole = made.trunk(made.tokens(values[VIEW]))[:, 1:].unflatten(1, (FRAMES, PLACES))
    torch.testing.assert_close(out["depth_4"], whole)
    assert out["depth_0"].shape == (3, FRAMES, PLACES, 32)


@torch.no_grad()
@pytest.mark.parametrize("garbage", [3.0, float("nan"), -7e9])
def test_frames_before_the_episode_leave_a_younger_window(garbage):
    made, values, hidden = network(action_dim=2), inputs(), shown(3)
    values[VIEW] = values[VIEW].float()
    whole = made(values, hidden)[ACTION]
    late = {name: torch.full_like(value, garbage) for name, value in values.items()}
    for name, value in values.items():
        late[name][:, 2:] = value[:, :3]  # the same frames, two moments later
        hidden[name][:, :2] = True
    found = made(late, hidden)[ACTION]
    torch.testing.assert_close(found[:, 2:], whole[:, :3])
    assert torch.equal(found[:, 0], found[:, 1])  # of the beginning alone
    hidden[VIEW][0, 2:] = True  # one row has no frame at all
    torch.testing.assert_close(made(late, hidden)[ACTION][0], found[0, :1].expand(FRAMES, -1))
    torch.testing.assert_close(made.present_tokens(late, hidden)[1], made(late, hidden)["tokens"][1, -1])


@torch.no_grad()
@pytest.mark.parametrize("action_dim", [0, 2])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(temperature=0.7, top_k=3)])
def test_cached_and_uncached_draw_the_same_frames(action_dim, sampling):
    made = sharpened(network(action_dim=action_dim))
    batch = clips(3)
    found = [
        continue_frames(
            made,
            batch["codes"][:, :2],
            frames=3,
            generator=generator(5),
            sampling=sampling,
            actions=batch[ACTION] if action_dim else None,
            cached=cached,
        )
        for cached in (True, False)
    ]
    assert found[0].shape == (3, 3, PLACES)
    assert torch.equal(*found)
    if sampling.temperature:
        other = continue_frames(made, batch["codes"][:, :2], frames=3, generator=generator(6), sampling=sampling)
        assert not torch.equal(found[0], other)


@torch.no_grad()
def test_greedy_frames_are_the_likeliest_codes_of_the_predictions():
    made = network()
    codes = clips(2)["codes"][:, :2]
    found = continue_frames(made, codes, frames=2, generator=generator(), sampling=Sampling(temperature=0))
    whole = torch.cat([codes, found], dim=1)
    logits = made({VIEW: whole}, {}, predict=True)["codes"][..., FIRST_CODE:]
    assert torch.equal(logits[:, 2:].argmax(dim=-1), found)


def test_only_codes_are_drawn_by_their_share():
    logits = torch.full((20_000, FIRST_CODE + 3), 50.0)  # what is no code is by far the likeliest
    logits[:, FIRST_CODE:] = torch.tensor([0.5, 0.3, 0.2]).log()
    lots = torch.rand(20_000, generator=generator())
    shares = torch.bincount(Sampling().draw(logits, lots), minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.015)
    shares = torch.bincount(Sampling(top_k=2).draw(logits, lots), minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0.0]), rtol=0, atol=0.015)
    shares = torch.bincount(Sampling(temperature=0.5).draw(logits, lots), minlength=3) / 20_000
    sharp = torch.tensor([0.25, 0.09, 0.04]) / 0.38
    torch.testing.assert_close(shares, sharp, rtol=0, atol=0.015)
    assert set(Sampling(temperature=0).draw(logits, lots).tolist()) == {0}
    edge = torch.tensor([1 - 2**-24, 0.0])  # the largest and smallest lots
    assert Sampling(top_k=1).draw(logits[:2], edge).tolist() == [0, 0]
    assert Sampling().draw(logits[:2], edge).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ["a", "b"]}, "expected one camera and a grid of rows and columns"),
        ({"context": 0}, "context must be at least 1"),
        ({"pool": "max"}, "unknown pool 'max': choose one of last, mean"),
        ({"read_depth": 3}, r"read_depth must be in \[0, 2\]"),
        ({"size": "basic"}, "unknown size of Toto 'basic': did you mean base"),
        ({"size": "base"}, r"give either size=base or width, depth, heads \(with size=null\), not both"),
        ({"width": None}, "a Toto without a size needs width, depth and heads"),
        ({"vocabulary": 0}, "codes and frame_tokens must be at least 1"),
    ],
)
def test_networks_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        network(**options)


def test_bad_windows_and_generation():
    made = network()
    with pytest.raises(UsageError, match="a window of 6 frames is longer than the 5"):
        made({VIEW: torch.zeros(1, 6, PLACES)}, shown(1, frames=6))
    with pytest.raises(UsageError, match=r"observation.images.front: expected 16 values per step, got 4"):
        made.normalize(VIEW, torch.zeros(1, 1, 4))
    codes = clips(1)["codes"]
    for given, frames in ((0, 1), (2, 0), (3, 3)):
        with pytest.raises(UsageError, match="expected at least one frame given and one to come, 5 at most"):
            continue_frames(made, codes[:, :given], frames=frames, generator=generator())
    for options, message in (({"temperature": -1.0}, "temperature must be"), ({"top_k": 0}, "top_k must be")):
        with pytest.raises(UsageError, match=message):
            Sampling(**options)
