"""MaskViT's network: what may reach what, windows, actions, frames before an episode began, recomputed blocks."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION
from embodied.models.sequence.maskvit import MaskViTNetwork

VIEW = "observation.images.front"
FRAMES, PLACES, VOCABULARY = 4, 16, 7


def network(**options):
    torch.manual_seed(0)
    settings = {"cameras": ["front"], "grid": [4, 4], "vocabulary": VOCABULARY, "action_dim": 2, "context": FRAMES}
    return MaskViTNetwork(**{**settings, "width": 16, "depth": 2, "heads": 2, "temporal_window": 2, **options}).eval()


def inputs(batch=2, frames=FRAMES, seed=0):
    """Values and what is hidden: half of the codes after the first frame, no action."""
    draws = torch.Generator().manual_seed(seed)
    codes = torch.randint(VOCABULARY, (batch, frames, PLACES), generator=draws)
    hidden = torch.rand(batch, frames, PLACES, generator=draws) < 0.5
    hidden[:, 0] = False
    values = {VIEW: codes, ACTION: torch.randn(batch, frames, 2, generator=draws)}
    return values, {VIEW: hidden, ACTION: torch.zeros(batch, frames, dtype=torch.bool)}


@torch.no_grad()
def test_hidden_codes_and_actions_may_hold_anything():
    model, (values, hidden) = network(), inputs()
    hidden[ACTION][0, 1] = hidden[ACTION][1] = True
    expected = model(values, hidden)[VIEW]
    for codes, action in ((-1, 1e9), (10**6, float("nan")), (3, float("inf"))):
        other = {
            VIEW: torch.where(hidden[VIEW], codes, values[VIEW]),
            ACTION: values[ACTION].masked_fill(hidden[ACTION][..., None], action),
        }
        assert torch.equal(model(other, hidden)[VIEW], expected)
    floats = {**values, VIEW: torch.where(hidden[VIEW], float("nan"), values[VIEW].float())}
    assert torch.equal(model(floats, hidden)[VIEW], expected)


def test_gradients_reach_the_vectors_of_shown_codes_only():
    model, (values, hidden) = network(), inputs(batch=1)
    values[VIEW] = torch.where(hidden[VIEW], 6, values[VIEW] % 6)  # the last code only where it is hidden
    model(values, hidden)[VIEW].square().sum().backward()
    reached = model.stem.tables[0].weight.grad.abs().sum(dim=1) > 0
    assert reached.tolist() == [True] * 6 + [False]


def test_an_action_reaches_the_frame_that_it_leads_to_and_the_last_none():
    model, (values, hidden) = network(depth=1), inputs(batch=1)
    model.blocks = torch.nn.ModuleList()  # without attention a token is its own input
    action = values[ACTION].requires_grad_()
    tokens = model(values, hidden)[VIEW]
    for frame in range(FRAMES):
        (gradient,) = torch.autograd.grad(tokens[:, frame].square().sum(), action, retain_graph=True)
        reached = (gradient[0].abs().sum(dim=1) > 0).tolist()
        assert reached == [step == frame - 1 for step in range(FRAMES)], frame


@torch.no_grad()
def test_every_token_sees_every_frame_and_place_after_two_blocks():
    model, (values, hidden) = network(), inputs()
    hidden[VIEW][:] = False
    expected = model(values, hidden)[VIEW]
    changed = {**values, VIEW: values[VIEW].clone()}
    changed[VIEW][:, 0, 0] = (changed[VIEW][:, 0, 0] + 1) % VOCABULARY
    assert bool((model(changed, hidden)[VIEW] != expected).any(dim=-1).all())


@torch.no_grad()
def test_in_small_windows_a_token_sees_its_window_alone():
    model, (values, hidden) = network(spatial_window=2, temporal_window=2, window_frames=2), inputs()
    hidden[VIEW][:] = False
    expected = model(values, hidden)[VIEW]
    changed = {**values, VIEW: values[VIEW].clone()}
    changed[VIEW][:, 0, 0] = (changed[VIEW][:, 0, 0] + 1) % VOCABULARY
    differs = (model(changed, hidden)[VIEW] != expected).any(dim=-1)[0].unflatten(1, (4, 4))
    window = torch.zeros(FRAMES, 4, 4, dtype=torch.bool)
    window[:2, :2, :2] = True
    assert torch.equal(differs, window)


@torch.no_grad()
def test_whole_windows_are_full_attention():
    """One layer on the whole volume, against the plain block on the flattened clip."""
    model, (values, hidden) = network(depth=1, spatial_window=4, temporal_window=4), inputs()
    assert model.blocks[0].windows == ((1, 4, 4), (0, 4, 4))
    seen = []
    model.blocks[0].layers[0].register_forward_hook(lambda module, given, out: seen.append(out))
    tokens = model(values, hidden)[VIEW]
    within = seen[0].unflatten(0, (2, FRAMES)).flatten(1, 2)  # (B, T * N, D): the first layer's, frame by frame
    across = model.norm(model.blocks[0].layers[1](within))
    torch.testing.assert_close(across.unflatten(1, (FRAMES, PLACES)), tokens)


@torch.no_grad()
def test_the_present_is_that_of_a_clip_that_begins_with_what_is_there():
    model, (values, hidden) = network(), inputs()
    hidden[VIEW] = torch.zeros(2, FRAMES, dtype=torch.bool)
    hidden[ACTION][:, -1] = True
    short = {name: value[:, :2] for name, value in values.items()}
    whole = {name: torch.cat([value[:, :2], value[:, :2] * 0], dim=1) for name, value in values.items()}
    rest = torch.tensor([False, False, True, True]).expand(2, -1)
    unknown = torch.tensor([False, True, True, True]).expand(2, -1)
    expected = model(whole, {VIEW: rest, ACTION: unknown})[VIEW][:, 1].mean(dim=1, keepdim=True)
    gone = {VIEW: rest[:, :2], ACTION: unknown[:, :2]}
    assert torch.equal(model.present(short, gone), expected)
    assert torch.equal(model.present_tokens(short, gone).mean(dim=1, keepdim=True), expected)
    # the same behind frames that are not there
    late = {name: torch.cat([torch.full_like(value[:, :2], 9), value[:, :2]], dim=1) for name, value in values.items()}
    early = {VIEW: rest.flip(1), ACTION: torch.tensor([True, True, False, True]).expand(2, -1)}
    assert torch.equal(model.present(late, early), expected)
    # a batch of both, and one with nothing at all
    full = model.present(values, hidden)
    mixed = {name: torch.stack([late[name][0], values[name][1]]) for name in values}
    gone = {name: torch.stack([early[name][0], hidden[name][1]]) for name in early}
    torch.testing.assert_close(model.present(mixed, gone), torch.stack([expected[0], full[1]]))
    nothing = {name: torch.ones(2, FRAMES, dtype=torch.bool) for name in hidden}
    assert bool(model.present(values, nothing).isfinite().all())
    torch.testing.assert_close(model.present({}, nothing), model.present(values, nothing))


def test_recomputed_blocks_give_the_same_numbers():
    model, (values, hidden) = network().train(), inputs()
    gradients = []
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        model.zero_grad()
        model(values, hidden)[VIEW].square().mean().backward()
        gradients.append({name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and "blocks.0.layers.0.qkv.weight" in gradients[0]
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_grids_of_64_to_256_pixels_pass_with_the_default_windows():
    for side in (8, 16, 32):
        model = network(grid=[side, side], temporal_window=4, context=2, depth=1)
        assert model.blocks[0].windows == ((1, min(side, 16), min(side, 16)), (0, 4, 4))
        codes = torch.zeros(1, 2, side * side, dtype=torch.long)
        shown = {VIEW: torch.zeros(1, 2, dtype=torch.bool), ACTION: torch.ones(1, 2, dtype=torch.bool)}
        assert model({VIEW: codes}, shown)[VIEW].shape == (1, 2, side * side, 16)


def test_its_config_rebuilds_it_and_without_actions_it_has_no_weights_for_them():
    model = network(action_dim=0, window_frames=2)
    again = MaskViTNetwork(**model.config())
    again.load_state_dict(model.state_dict())
    assert not [name for name, _ in model.named_parameters() if "action" in name]
    values, hidden = inputs()
    assert torch.equal(again(values, hidden)[VIEW], model(values, hidden)[VIEW])


def test_actions_are_standardised_by_the_data():
    model = network()
    model.fit({ACTION: (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0]))})
    assert model.normalize(ACTION, torch.tensor([3.0, 3.0])).tolist() == [1.0, 1.0]  # a dead one keeps its scale
    codes = torch.arange(PLACES)
    assert model.normalize(VIEW, codes) is codes
    with pytest.raises(UsageError, match=r"statistics of action: expected .* of 2 values, got none"):
        model.fit({})
    with pytest.raises(UsageError, match=r"action: expected 2 values per step, got 3"):
        model.normalize(ACTION, torch.zeros(3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": ["a", "b"]}, "expected one camera"),
        ({"context": 1}, "context of at least 2 frames"),
        ({"heads": 3}, "a multiple of heads=3"),
        ({"temporal_window": 3}, "temporal_window must divide the grid of 4 x 4 codes, got 3"),
        ({"spatial_window": 0}, "spatial_window must divide"),
        ({"window_frames": 3}, "window_frames must divide the 4 frames of a clip, got 3"),
    ],
)
def test_networks_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        network(**settings)


def test_longer_clips_than_it_knows_are_refused():
    values, hidden = inputs(frames=FRAMES + 1)
    with pytest.raises(UsageError, match="a clip of 5 frames is longer than the 4"):
        network()(values, hidden)
