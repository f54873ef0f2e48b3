"""GR-1's network: its weights, who sees whom, what is missing, what is asked."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, image_key
from embodied.models.block import Block
from embodied.models.sequence.attention_rules import mask_from_groups
from embodied.models.sequence.cross_attention import Resampler
from embodied.models.sequence.gr1 import FUTURE, GR1Network
from embodied.models.sequence.gr1_action import GR1ActionHead
from embodied.models.sequence.gr1_decoder import FutureDecoder, restored_patches, standardized_patches
from embodied.models.sequence.gr1_stems import StateStem
from embodied.models.sequence.layout import Layout

FRONT, SIDE = image_key("front"), image_key("side")
STEPS, ROWS = 4, 2
CPU = torch.device("cpu")


def network(**options):
    sizes = {"cameras": ["front", "side"], "latent_dim": 8, "state_dim": 3, "action_dim": 2, "text_dim": 5}
    shape = {"width": 32, "depth": 2, "heads": 4, "latents": 3, "resampler_heads": 2, "resampler_head_width": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GR1Network(**{**sizes, **shape, "context": STEPS, **options}).eval()


def window(steps=STEPS, rows=ROWS, seed=0):
    draws = torch.Generator().manual_seed(seed)
    sizes = {FRONT: (6, 8), SIDE: (6, 8), STATE: (3,), INSTRUCTION: (5,)}
    values = {name: torch.randn(rows, steps, *size, generator=draws) for name, size in sizes.items()}
    away = torch.zeros(rows, steps, dtype=torch.bool)
    return values, dict.fromkeys([*values, ACTION], away)


def published():
    """The network and the decoder of the published configuration."""
    sizes = {"cameras": ["static", "gripper"], "latent_dim": 768, "state_dim": 7, "action_dim": 7, "text_dim": 512}
    made = GR1Network(**sizes, size="published", gripper=6, state_gripper=6)
    return made, FutureDecoder(384, image_size=224, patch_size=16, depth=2, heads=16)


def test_the_published_configuration_has_the_published_number_of_weights_and_tokens():
    parts = published()
    assert sum(weight.numel() for part in parts for weight in part.parameters() if weight.requires_grad) == 45_988_039
    layouts = parts[0].layouts
    assert {asked: layout.step_tokens for asked, layout in layouts.items()} == {True: 43, False: 23}
    assert list(layouts[True].tokens.values()) == [1, 1, 9, 1, 9, 1, 1, 10, 10]
    assert list(layouts[True].tokens)[:2] == [INSTRUCTION, STATE]
    assert layouts[True].queries == {ACTION, FUTURE + image_key("static"), FUTURE + image_key("gripper")}
    assert isinstance(parts[0].trunk.blocks[0].mlp[1], torch.nn.ReLU)


def test_the_rule_of_attention_is_causal_without_queries_as_keys():
    layout = Layout({"word": 1, "frame": 2, "act": 1, "obs": 2}, queries=["act", "obs"])
    mask = mask_from_groups(layout.group_ids(3), layout.time_ids(3), "hidden_queries")
    asks = [False, False, False, True, True, True] * 3
    for row, column in product(range(18), range(18)):
        assert bool(mask[row, column]) == (column <= row and not asks[column])


@torch.no_grad()
def test_what_a_query_is_changes_no_other_output():
    made, (values, hidden) = network(), window()
    before = made(values, hidden, future=True)
    for name, changed in ((ACTION, ACTION), (f"future_{SIDE.replace('.', '_')}", FUTURE + SIDE)):
        other = network()
        other.queries[name].normal_()
        after = other(values, hidden, future=True)
        for kind in before:
            assert torch.equal(after[kind], before[kind]) == (kind != changed), (name, kind)
    torch.testing.assert_close(made(values, hidden)[ACTION], before[ACTION])  # nor whether others are there at all


@torch.no_grad()
def test_what_comes_later_changes_nothing():
    made, (values, hidden) = network(), window()
    before = made(values, hidden, future=True)
    for name, step in product(values, range(STEPS)):
        changed = {key: value.clone() for key, value in values.items()}
        changed[name][:, step] += 1
        after = made(changed, hidden, future=True)
        for kind in before:
            assert torch.equal(after[kind][:, :step], before[kind][:, :step]), (name, step, kind)
            assert not torch.equal(after[kind][:, step], before[kind][:, step])


def test_no_gradient_from_what_is_later_or_hidden():
    made, (values, hidden) = network(), window()
    hidden = {name: away.clone() for name, away in hidden.items()}
    hidden[SIDE][0, 1] = hidden[STATE][1, 0] = hidden[INSTRUCTION][1] = True
    for step in range(STEPS):
        inputs = {name: value.clone().requires_grad_() for name, value in values.items()}
        found = made(inputs, hidden, future=True)
        sum(part[:, step].square().sum() for part in found.values()).backward()
        for name, value in inputs.items():
            reached = value.grad.flatten(2).abs().sum(dim=-1) > 0
            expected = ~hidden[name] & (torch.arange(STEPS) <= step)
            assert torch.equal(reached, expected), (name, step)


@torch.no_grad()
@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan"), float("inf")])
def test_what_is_hidden_may_hold_anything(garbage):
    made, (values, hidden) = network(), window()
    hidden = {name: away.clone() for name, away in hidden.items()}
    hidden[FRONT][0, 1] = hidden[STATE][1] = hidden[INSTRUCTION][0, 2] = True
    for away in hidden.values():
        away[1, :2] = True  # two steps that are not there at all
    before = made(values, hidden, future=True)
    changed = {name: torch.where(_like(hidden[name], value), garbage, value) for name, value in values.items()}
    after = made(changed, hidden, future=True)
    for kind, part in before.items():
        assert bool(part.isfinite().all())
        assert torch.equal(after[kind], part)
    without = made({name: value for name, value in values.items() if name != STATE}, hidden, future=True)
    everywhere = made(values, hidden | {STATE: torch.ones_like(hidden[STATE])}, future=True)
    assert all(torch.equal(without[kind], everywhere[kind]) for kind in before)


def _like(away, value):
    return away.reshape(*away.shape, *[1] * (value.ndim - 2))


@torch.no_grad()
def test_a_window_counts_from_its_first_step():
    """So steps before an episode, and a window that has just begun, are the same thing."""
    made, (values, hidden) = network(), window()
    short = made({name: value[:, 2:] for name, value in values.items()}, {n: a[:, 2:] for n, a in hidden.items()})
    padded = {name: away.clone() for name, away in hidden.items()}
    for away in padded.values():
        away[:, :2] = True
    torch.testing.assert_close(made(values, padded)[ACTION][:, 2:], short[ACTION], rtol=1e-5, atol=1e-6)
    grown = made(values, hidden)[ACTION]
    for steps in range(1, STEPS):
        part = made({n: v[:, :steps] for n, v in values.items()}, {n: a[:, :steps] for n, a in hidden.items()})
        torch.testing.assert_close(part[ACTION], grown[:, :steps], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_attention_by_loops():
    """One block with the network's mask, against a softmax over what each token may see."""
    made, (values, hidden) = network(depth=1), window(rows=1)
    hidden = {name: away.clone() for name, away in hidden.items()}
    hidden[FRONT][0, 0] = True
    seen = []
    block = made.trunk.blocks[0]
    assert isinstance(block, Block)
    hook = block.register_forward_pre_hook(
        lambda part, given, more: seen.append((given[0], more["mask"])), with_kwargs=True
    )
    made(values, hidden, future=True)
    hook.remove()
    tokens, mask = seen[0]
    normed = block.norm1(tokens[0])
    query, key, value = block.qkv(normed).unflatten(-1, (3, 4, 8)).unbind(1)
    asks = [
        name in made.layouts[True].queries for name, n in made.layouts[True].tokens.items() for _ in range(n)
    ] * STEPS
    camera = [name.endswith(".front") for name, n in made.layouts[True].tokens.items() for _ in range(n)]
    gone = camera + [False] * (len(asks) - len(camera))
    rows = []
    for row in range(len(asks)):
        others = [c for c in range(row + 1) if not asks[c] and not gone[c]]
        logits = torch.einsum("he,che->hc", query[row], key[others]) / 8**0.5
        rows.append(torch.einsum("hc,che->he", logits.softmax(dim=-1), value[others]).flatten())
    expected = block.project(torch.stack(rows))
    torch.testing.assert_close(block.attend(block.norm1(tokens), None, mask)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_actions_the_feature_is_the_mean_of_the_futures():
    made, (values, hidden) = network(action_dim=0), window()
    found = made(values, hidden)
    both = torch.cat([found[FUTURE + FRONT], found[FUTURE + SIDE]], dim=2)
    assert both.shape == (ROWS, STEPS, 8, 32)
    assert torch.equal(found[ACTION], both.mean(dim=2))
    assert ACTION not in made.queries and made.action_head is None


def test_state_is_the_arm_and_an_open_or_closed_gripper():
    stem = StateStem(3, 8, gripper=1)
    state = torch.tensor([[[0.3, -0.2, 0.9], [0.3, 0.2, 0.9], [0.3, 5.0, 0.9]]])
    token = stem(state)
    assert not torch.equal(token[0, 0], token[0, 1]) and torch.equal(token[0, 1], token[0, 2])
    arm, hand = stem.arm(torch.tensor([0.3, 0.9])), stem.hand(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(token[0, 1], stem.join(torch.cat([arm, hand])))


def test_the_action_head_has_no_activation_between_its_layers_and_gives_units_of_the_data():
    head = GR1ActionHead(8, 3, gripper=1)
    head.scale.fit(ACTION, {ACTION: (torch.tensor([1.0, 5.0, 3.0]), torch.tensor([2.0, 0.5, 4.0]))})
    features = torch.randn(6, 8)
    first, second = head.layers
    weight, bias = second.weight @ first.weight, second.weight @ first.bias + second.bias
    found = head(features)
    torch.testing.assert_close(found.arm, head.arm(F.linear(features, weight, bias)))
    actions = head.actions(found)
    assert set(actions[:, 1].tolist()) <= {4.5, 5.5}
    torch.testing.assert_close(actions[:, [0, 2]], found.arm * torch.tensor([2.0, 4.0]) + torch.tensor([1.0, 3.0]))
    errors = head.errors(found, actions)
    torch.testing.assert_close(errors.arm, torch.zeros(6, 2), atol=1e-6, rtol=0)
    assert bool(head.agrees(found, actions).all())
    torch.testing.assert_close(errors.gripper, F.softplus(-found.gripper.abs()))


def test_patches_are_standardised_with_the_unbiased_variance_and_epsilon_outside_the_root():
    patches = torch.tensor([[[0.0, 2.0, 4.0, 6.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2e-6]]], dtype=torch.float64)
    deviation = (20 / 3) ** 0.5 + 1e-6
    tiny = (((1.5e-6) ** 2 + 3 * (0.5e-6) ** 2) / 3) ** 0.5 + 1e-6
    found = standardized_patches(patches)
    torch.testing.assert_close(found[0, 0], torch.tensor([-3.0, -1.0, 1.0, 3.0]).double() / deviation)
    assert found[0, 1].tolist() == [0.0] * 4
    torch.testing.assert_close(found[0, 2], torch.tensor([-0.5e-6, -0.5e-6, -0.5e-6, 1.5e-6]).double() / tiny)
    torch.testing.assert_close(restored_patches(found, patches), patches)


def test_the_decoder_is_the_same_for_every_step_and_needs_sizes_that_fit():
    decoder = FutureDecoder(32, image_size=16, patch_size=8, depth=1, heads=4)
    queries = torch.randn(2, 3, 4, 32)
    whole = decoder(queries)
    assert whole.shape == (2, 3, 4, 192)
    torch.testing.assert_close(whole[:, 1:2], decoder(queries[:, 1:2]))
    assert not decoder.positions.requires_grad and "positions" not in decoder.state_dict()
    for options, message in (
        ({"patch_size": 7}, "multiple of objective.patch_size"),
        ({"heads": 5}, "decoder_heads=5"),
    ):
        with pytest.raises(UsageError, match=message):
            FutureDecoder(32, **{"image_size": 16, "patch_size": 8, **options})


def test_the_resampler_may_have_a_media_embedding():
    plain = Resampler(8, latents=2, depth=1, heads=2, head_width=4)
    more = Resampler(8, latents=2, depth=1, heads=2, head_width=4, media_embedding=True)
    more.load_state_dict({**plain.state_dict(), "media": torch.full((8,), 0.5)})
    tokens = torch.randn(2, 3, 8)
    torch.testing.assert_close(more(tokens), plain(tokens + 0.5))


def test_dropout_is_for_training_only():
    made, (values, hidden) = network(dropout=0.3), window()
    same = network()
    assert torch.equal(made(values, hidden)[ACTION], same(values, hidden)[ACTION])
    made.train()
    assert not torch.equal(made(values, hidden)[ACTION], made(values, hidden)[ACTION])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "publshed"}, "unknown encoder.size 'publshed': did you mean published"),
        ({"cameras": []}, "cameras: expected different names, at least one"),
        ({"cameras": ["a", "a"]}, "different names"),
        ({"context": 0}, "context must be at least 1"),
        ({"latents": 0}, "whole numbers of at least 1"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"heads": 5}, "multiple of heads=5"),
        ({"gripper": 2}, "encoder.gripper must be null or one of 0 to 1"),
        ({"gripper": True}, "encoder.gripper"),
        ({"state_gripper": -1}, "encoder.state_gripper must be null or one of 0 to 2"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        network(**options)
