"""VQ-BeT: two phases behind one loss, codes that stay frozen, offsets that are trained for the right codes."""

import logging

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.policies.heads.networks.gpt import GPT
from embodied.policies.heads.networks.residual_vq import ResidualVQ
from embodied.policies.heads.vq_bet import VQBeTHead

from .head_samples import VQ_BET, fit_two_modes, make_batch, make_head


def make_vq_bet(**options):
    torch.manual_seed(0)
    return VQBeTHead(feature_dim=3, history=4, horizon=4, action_dim=2, **{**VQ_BET, **options})


def of_codes(head):
    parts = ("encoder.", "decoder.", "quantizer.")
    return {name: tensor.clone() for name, tensor in head.state_dict().items() if name.startswith(parts)}


def test_codes_are_trained_first_and_never_again():
    head = make_vq_bet(codebook_steps=5)
    start = of_codes(head)
    fit_two_modes(head, steps=5)
    trained = of_codes(head)
    assert not head.learns_codes
    assert all(not torch.equal(trained[name], start[name]) for name in start)
    query = head.query.clone()
    fit_two_modes(head, steps=5)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in of_codes(head).items())
    assert not torch.equal(head.query, query)


def test_weight_decay_and_momentum_do_not_move_frozen_codes():
    head, (features, actions, _) = make_vq_bet(codebook_steps=3), make_batch()
    real = torch.ones(8, 4, dtype=torch.bool)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.1)
    states = []
    for _ in range(6):
        loss, _ = head.loss(features, actions, real)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        states.append(of_codes(head))
    assert all(torch.equal(states[2][name], states[5][name]) for name in states[2])


def test_phase_is_in_the_state_dict_and_evaluation_does_not_advance_it():
    head, (features, actions, pad_mask) = make_vq_bet(codebook_steps=2), make_batch()
    head.eval().loss(features, actions, pad_mask)
    assert head.steps.item() == 0 and not head.quantizer.started
    head.train().loss(features, actions, pad_mask)
    other = make_vq_bet(codebook_steps=2)
    other.load_state_dict(head.state_dict())
    assert other.steps.item() == 1 and other.learns_codes
    other.loss(features, actions, pad_mask)
    assert not other.learns_codes
    assert "code_accuracy" in other.loss(features, actions, pad_mask)[1]


def test_a_sample_before_the_gpt_is_trained_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        make_head("vq_bet-codes").sample(make_batch()[0])
    assert "its codes for 0 of 20000 steps and its GPT not at all" in caplog.text


@pytest.mark.parametrize("offset_codes", ["demonstrated", "sampled"])
def test_whose_offsets_are_trained(offset_codes):
    """The codes drawn are 0, those demonstrated 3: only the offsets of the one asked for get a gradient."""
    head, (features, actions, _) = make_vq_bet(codebook_steps=0, offset_codes=offset_codes, codes=4), make_batch()
    with torch.no_grad():
        head.code_layer.weight.zero_()
        head.code_layer.bias.view(2, 4)[:, 0] = 100.0
        head.quantizer.codebooks.fill_(1e3)
        head.quantizer.codebooks[:, 3] = 0.0
    loss, _ = head.eval().loss(features, actions, torch.ones(8, 4, dtype=torch.bool))
    loss.backward()
    moved = head.offset_layer.bias.grad.view(2, 4, 8).abs().sum(dim=(0, 2)) > 0
    assert moved.tolist() == ([False, False, False, True] if offset_codes == "demonstrated" else [True] + 3 * [False])


def test_residual_quantisation_by_hand():
    vq = ResidualVQ(quantizers=2, codes=2, width=1)
    vq.codebooks.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [2.0]]]))
    quantized, codes, commitment = vq(torch.tensor([[11.0], [-0.5]]))
    assert codes.tolist() == [[1, 1], [0, 0]]
    assert quantized.tolist() == [[12.0], [-1.0]]
    assert commitment.tolist() == [1.0 + 1.0, 0.25 + 0.25]
    assert vq.lookup(codes).tolist() == quantized.tolist()


def test_codes_start_at_vectors_of_the_first_batch_and_only_real_ones():
    vq = ResidualVQ(quantizers=1, codes=8, width=1, decay=1.0)
    vectors = torch.arange(10.0)[:, None]
    vq(vectors, learn=vectors[:, 0] < 5, generator=torch.Generator().manual_seed(0))
    assert vq.started and vq.codebooks.max() < 4.1
    start = vq.codebooks.clone()
    vq(vectors, learn=vectors[:, 0] > 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(vq.codebooks.round(decimals=2), start.round(decimals=2))


def test_codes_follow_their_vectors():
    vq = ResidualVQ(quantizers=1, codes=2, width=1)
    vq.started.fill_(True)
    vq.codebooks.copy_(torch.tensor([[[-1.0], [1.0]]]))
    vq.sums.copy_(vq.codebooks)
    vq.counts.fill_(1.0)
    vectors = torch.tensor([[-3.0], [-3.0], [3.0], [3.0]])
    for _ in range(60):
        vq(vectors, learn=torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(vq.codebooks.flatten(), torch.tensor([-3.0, 3.0]), atol=1e-3, rtol=0)


def test_gpt_does_not_look_ahead():
    gpt = GPT(tokens=4, width=8, depth=2, heads=2, dropout=0.0)
    tokens = torch.randn(1, 4, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(gpt(tokens)[0, 1].sum(), tokens)
    assert gradient[0, 2:].abs().max() == 0 and gradient[0, 0].abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code_weights": ()}, "code_weights must name at least one quantiser"),
        ({"offset_codes": "drawn"}, "unknown offset_codes 'drawn'"),
        ({"heads": 3}, "width must be a multiple of heads=3, got 16"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UsageError, match=message):
        make_vq_bet(**options)
