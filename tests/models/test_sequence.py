"""The sequence toolkit: every rule of attention against loops, layouts and their inverse, stems, times, readouts."""

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError
from embodied.models.sequence.attention_rules import RULES, mask_from_groups
from embodied.models.sequence.cross_attention import CrossAttention
from embodied.models.sequence.layout import Layout
from embodied.models.sequence.readouts import AttentionReadout, pool_tokens
from embodied.models.sequence.stems import CodeStem, FrozenTokenStem, LatentStem, LinearStem
from embodied.models.sequence.times import TimeEmbedding, sincos_1d
from embodied.models.sequence.trunk import Trunk

# What the table in `mask_from_groups` says, a pair of tokens at a time: may row (group, time, place) see column?
SEES = {
    "full": lambda row, column: True,
    "causal": lambda row, column: column[2] <= row[2],
    "hidden_queries": lambda row, column: column[2] <= row[2] and column[0] >= 0,
    "frame_causal": lambda row, column: column[1] <= row[1],
    "prefix": lambda row, column: column[0] <= row[0],
    "spatial": lambda row, column: column[1] == row[1],
    "temporal": lambda row, column: column[0] == row[0] and column[1] <= row[1],
}
LAYOUT = Layout({"words": 2, "image": 3, "ask": 1}, queries=["ask"])


def ids(steps=3):
    return LAYOUT.group_ids(steps), LAYOUT.time_ids(steps)


def trunk(**options):
    torch.manual_seed(0)
    return Trunk(**{"width": 16, "depth": 2, "heads": 2, **options}).eval()


@pytest.mark.parametrize("rule", RULES)
def test_a_mask_is_what_a_loop_over_pairs_says(rule):
    groups, times = ids()
    mask = mask_from_groups(groups, times, rule)
    tokens = list(zip(groups.tolist(), times.tolist(), range(len(groups)), strict=True))
    assert mask.tolist() == [[SEES[rule](row, column) for column in tokens] for row in tokens]


@pytest.mark.parametrize("rule", RULES)
def test_in_a_layer_what_is_hidden_has_no_gradient_and_what_is_seen_has(rule):
    groups, times = ids(2)
    mask = mask_from_groups(groups, times, rule)
    layer = Trunk(width=16, depth=1, heads=2)
    tokens = torch.randn(1, len(groups), 16, requires_grad=True)
    out = layer(tokens, mask=mask)
    for row in range(len(groups)):
        (gradient,) = torch.autograd.grad(out[0, row].square().sum(), tokens, retain_graph=True)
        reached = gradient[0].abs().sum(dim=1) > 0
        expected = mask[row].clone()
        expected[row] = True  # its own value comes by the residual connection
        assert torch.equal(reached, expected)


def test_a_query_changes_no_other_token_in_any_depth():
    groups, times = ids()
    mask = mask_from_groups(groups, times, "hidden_queries")
    tokens = torch.randn(2, len(groups), 16)
    other = tokens.clone()
    other[:, groups < 0] = 7.0
    first, second = trunk()(tokens, mask=mask), trunk()(other, mask=mask)
    assert torch.equal(first[:, groups >= 0], second[:, groups >= 0])
    assert not torch.equal(first[:, groups < 0], second[:, groups < 0])


def test_the_future_changes_nothing_before_it_in_any_depth():
    groups, times = ids()
    mask = mask_from_groups(groups, times, "frame_causal")
    tokens = torch.randn(2, len(groups), 16)
    other = torch.where((times == 2)[:, None], torch.zeros(()), tokens)
    first, second = trunk()(tokens, mask=mask), trunk()(other, mask=mask)
    assert torch.equal(first[:, times < 2], second[:, times < 2])


def test_rules_that_make_no_sense_are_refused():
    groups, times = ids()
    with pytest.raises(UsageError, match="unknown rule of attention 'causual': did you mean causal"):
        mask_from_groups(groups, times, "causual")
    with pytest.raises(UsageError, match="one number per token"):
        mask_from_groups(groups, times[:-1], "full")
    with pytest.raises(UsageError, match="token 0 would see nothing"):
        mask_from_groups(torch.tensor([-1, 0]), torch.tensor([0, 0]), "hidden_queries")


def test_a_layout_stands_step_by_step_and_splits_again():
    parts = {
        name: torch.randn(2, 3, count, 4) for name, count in {"ask": 1, "words": 2, "image": 3}.items()
    }  # not in the layout's order
    sequence = LAYOUT.interleave(parts)
    assert sequence.shape == (2, 18, 4)
    step = torch.cat([parts["words"][:, 1], parts["image"][:, 1], parts["ask"][:, 1]], dim=1)
    assert torch.equal(sequence[:, 6:12], step)
    assert all(torch.equal(part, parts[name]) for name, part in LAYOUT.split(sequence).items())
    assert LAYOUT.group_ids(1).tolist() == [0, 0, 1, 1, 1, -3]
    assert LAYOUT.time_ids(2).tolist() == [0] * 6 + [1] * 6


def test_parts_that_do_not_fit_a_layout_are_refused():
    with pytest.raises(UsageError, match=r"expected those of \['ask', 'image', 'words'\]"):
        LAYOUT.interleave({"words": torch.zeros(1, 1, 2, 4)})
    with pytest.raises(UsageError, match=r'tokens\["a"\]: expected \[B, T, 2, D\] with one T for all'):
        Layout({"a": 2}).interleave({"a": torch.zeros(1, 1, 3, 4)})
    with pytest.raises(UsageError, match="multiple of 6 tokens, got 7"):
        LAYOUT.split(torch.zeros(1, 7, 4))
    for tokens, queries in (({}, ()), ({"a": 0}, ()), ({"a": 1}, ("b",))):
        with pytest.raises(UsageError):
            Layout(tokens, queries=queries)


@pytest.mark.parametrize("kind", ["learned", "sincos"])
def test_all_tokens_of_a_step_share_one_time_and_the_last_step_is_the_present(kind):
    times = TimeEmbedding(5, 8, kind=kind)
    whole, short = times(torch.zeros(1, 5, 3, 8)), times(torch.zeros(1, 2, 3, 8))
    assert torch.equal(whole[0], times.table[:, None].expand(5, 3, 8))
    assert torch.equal(short, whole[:, 3:])
    assert isinstance(times.table, nn.Parameter) == (kind == "learned")
    with pytest.raises(UsageError, match="a window of 6 steps is longer than the 5"):
        times(torch.zeros(1, 6, 3, 8))


def test_sines_and_cosines_against_a_loop():
    table, interleaved = sincos_1d(6, 4), sincos_1d(6, 4, interleaved=True)
    for step in range(4):
        for pair in range(3):
            angle = torch.tensor(step / 10000 ** (2 * pair / 6))
            torch.testing.assert_close(table[step, [pair, pair + 3]], torch.stack([angle.sin(), angle.cos()]))
            torch.testing.assert_close(interleaved[step, [2 * pair, 2 * pair + 1]], table[step, [pair, pair + 3]])


def test_stems_give_tokens_per_step_that_depend_on_their_own_step_only():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 3, 5, generator=generator)
    sets = torch.randn(2, 3, 7, 5, generator=generator)
    codes = torch.randint(0, 12, (2, 3, 4), generator=generator)
    for stem, values, tokens in (
        (LinearStem(5, 8), vectors, 1),
        (FrozenTokenStem(5, 8), sets, 7),
        (FrozenTokenStem(5, 8, pool="mean"), sets, 1),
        (LatentStem(5, 8, latents=2, hidden=[6]), sets, 2),
        (LatentStem(5, 8, latents=2, reading="resampler"), sets, 2),
        (CodeStem(12, 8), codes, 4),
        (CodeStem([3, 4], 8), codes, 4),
    ):
        out = stem.eval()(values)
        assert out.shape == (2, 3, tokens, 8)
        other = values.clone()
        other[:, 2] = (other[:, 2] + 1) % 12
        changed = stem(other)
        assert torch.equal(changed[:, :2], out[:, :2])
        assert not torch.allclose(changed[:, 2], out[:, 2])


def test_latents_of_a_whole_window_read_all_of_it_and_know_the_order_by_positions_only():
    sets = torch.randn(2, 3, 4, 6)
    swapped = sets[:, [1, 0, 2]]
    for positions in (False, True):
        stem = LatentStem(6, 8, latents=5, positions=positions, whole_window=True).eval()
        out = stem(sets)
        assert out.shape == (2, 1, 5, 8)
        assert torch.allclose(stem(swapped), out, atol=1e-6) != positions


def test_no_gradient_reaches_what_made_frozen_tokens():
    tokens = torch.randn(1, 2, 3, 5, requires_grad=True)
    assert not torch.is_grad_enabled() or FrozenTokenStem(5, 8)(tokens.requires_grad_()).requires_grad
    FrozenTokenStem(5, 8)(tokens).sum().backward()
    assert tokens.grad is None


def test_codes_are_taken_apart_into_factors():
    stem = CodeStem([3, 4], 8)
    first, second = stem.tables
    expected = torch.stack([first.weight[code // 4] + second.weight[code % 4] for code in range(12)])
    torch.testing.assert_close(stem(torch.arange(12)[None, None])[0, 0], expected)


def test_cross_attention_is_torchs_where_the_widths_agree_and_sees_kept_tokens_only():
    torch.manual_seed(0)
    ours = CrossAttention(8, 8, heads=2, head_width=4)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.project.state_dict())
    queries, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    keep = torch.tensor([[True, True, False, True, False]] * 2)
    expected = theirs(queries, tokens, tokens, key_padding_mask=~keep)[0]
    torch.testing.assert_close(ours(queries, tokens, keep_mask=keep), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("places", "count"), [(40, 3), (40, 1), (2, 3)])
def test_the_same_queries_for_all_read_the_same_without_keys_and_values(places, count):
    torch.manual_seed(0)
    attention = CrossAttention(6, 4, heads=2, head_width=16)
    queries, tokens = torch.randn(count, 6, requires_grad=True), torch.randn(3, places, 4, requires_grad=True)
    keep = (torch.arange(places) % 3 < 2).repeat(3, 1)
    keep[0] = True
    learned = [queries, tokens, *attention.parameters()]
    outputs = [
        attention.same(queries, tokens, keep_mask=keep),
        attention(queries.expand(3, -1, -1), tokens, keep_mask=keep),
    ]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    found, expected = (torch.autograd.grad(output.square().sum(), learned) for output in outputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(attention.same(queries, tokens), attention(queries.expand(3, -1, -1), tokens))


def test_a_trunk_is_torchs_encoder_with_the_same_weights():
    ours = trunk(mlp_ratio=2.0, eps=1e-5)
    layer = nn.TransformerEncoderLayer(
        16, 2, dim_feedforward=32, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    theirs = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False).eval()
    with torch.no_grad():
        for block, other in zip(ours.blocks, theirs.layers, strict=True):
            other.self_attn.in_proj_weight.copy_(block.qkv.weight)
            other.self_attn.in_proj_bias.copy_(block.qkv.bias)
            other.self_attn.out_proj.load_state_dict(block.project.state_dict())
            other.linear1.load_state_dict(block.mlp[0].state_dict())
            other.linear2.load_state_dict(block.mlp[2].state_dict())
            other.norm1.load_state_dict(block.norm1.state_dict())
            other.norm2.load_state_dict(block.norm2.state_dict())
        theirs.norm.load_state_dict(ours.norm.state_dict())
    groups, times = ids()
    mask = mask_from_groups(groups, times, "frame_causal")
    tokens = torch.randn(2, len(groups), 16)
    torch.testing.assert_close(ours(tokens, mask=mask), theirs(tokens, mask=~mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_last_token_alone_comes_out_as_among_all(depth):
    made = trunk(depth=depth)
    tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    learned = [tokens, *made.parameters()]
    outputs = [made.last(tokens), made(tokens)[:, -1:]]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    found, expected = (torch.autograd.grad(output.square().sum(), learned) for output in outputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        before = tokens.detach().clone()
        torch.testing.assert_close(made.last(tokens), outputs[1].detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(tokens, before)  # nothing is written into what it was given


def test_readouts_count_what_is_kept():
    tokens = torch.tensor([[[1.0], [5.0], [3.0], [100.0]]])
    keep = torch.tensor([[True, True, True, False]])
    values = {kind: pool_tokens(tokens, kind, keep_mask=keep).item() for kind in ("mean", "max", "last")}
    assert values == {"mean": 3.0, "max": 5.0, "last": 3.0}
    assert pool_tokens(tokens, "last").item() == 100.0
    with pytest.raises(UsageError, match="unknown readout 'first'"):
        pool_tokens(tokens, "first")
    readout = AttentionReadout(8, queries=2)
    many = torch.randn(1, 4, 8)
    other = many.clone()
    other[:, 3] = 9.0
    assert readout(many).shape == (1, 2, 8)
    assert torch.equal(readout(many, keep_mask=keep), readout(other, keep_mask=keep))
