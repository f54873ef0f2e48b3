"""LLaMA's transformer: the same numbers as `transformers`, looking back only, the cache."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.models.sequence.llama import Cache, Llama, rotary_1d

WIDTH, DEPTH, HEADS, HIDDEN = 32, 3, 4, 48


def make(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Llama(**{"width": WIDTH, "depth": DEPTH, "heads": HEADS, "hidden": HIDDEN, **options}).eval()


def tokens(rows=2, length=11, seed=1):
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def copied_weights(reference):
    """Ours by the names of `transformers`."""
    theirs, ours = reference.state_dict(), {"norm.weight": reference.state_dict()["norm.weight"]}
    for number in range(DEPTH):
        old, new = f"layers.{number}.", f"blocks.{number}."
        attention = [theirs[f"{old}self_attn.{part}_proj.weight"] for part in "qkv"]
        ours[f"{new}qkv.weight"] = torch.cat(attention)
        ours[f"{new}project.weight"] = theirs[f"{old}self_attn.o_proj.weight"]
        ours[f"{new}norm1.weight"] = theirs[f"{old}input_layernorm.weight"]
        ours[f"{new}norm2.weight"] = theirs[f"{old}post_attention_layernorm.weight"]
        for part in ("gate", "up", "down"):
            ours[f"{new}mlp.{part}.weight"] = theirs[f"{old}mlp.{part}_proj.weight"]
    return ours


@torch.no_grad()
@pytest.mark.parametrize("base", [10_000.0, 50_000.0])
def test_it_is_the_model_of_transformers_on_the_same_weights(base):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        vocab_size=8,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        attn_implementation="eager",
        initializer_range=0.3,  # attention and gates far from uniform
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        reference = transformers.LlamaModel(config).eval()
        for name, part in reference.named_parameters():
            if "norm" in name:
                part.uniform_(0.5, 1.5)
    ours = make(rotary_base=base)
    ours.load_state_dict(copied_weights(reference))
    given = tokens(length=37)
    expected = reference(inputs_embeds=given, output_hidden_states=True)
    states = ours.at_depths(given, range(DEPTH + 1))
    for number in range(DEPTH):  # the last of theirs has passed the last norm
        torch.testing.assert_close(states[number], expected.hidden_states[number], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(given), expected.last_hidden_state, rtol=1e-4, atol=1e-4)


def test_what_comes_later_changes_nothing_and_has_no_gradient():
    model, given = make(), tokens()
    changed = given.clone()
    changed[:, 6:] = 7 * torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        before, after = model(given), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])
    given.requires_grad_()
    model(given)[:, 5].square().sum().backward()
    reached = given.grad.abs().sum(dim=(0, 2)) > 0
    assert reached.tolist() == [True] * 6 + [False] * 5


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[1] * 11, [5, 6], [3, 1, 1, 6], [11]])
def test_read_in_pieces_it_gives_what_it_gives_at_once(cuts):
    model, given = make(), tokens()
    cache, found = Cache(DEPTH, capacity=11), []
    for part in given.split(cuts, dim=1):
        found.append(model(part, cache=cache))
    assert cache.length == 11
    torch.testing.assert_close(torch.cat(found, dim=1), model(given), rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="a cache of 11 tokens cannot hold 12"):
        model(given[:, :1], cache=cache)


def test_rotary_positions_turn_by_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)

    def product(first, second):
        turned = []
        for vector, place in ((query, first), (key, second)):
            cosine, sine = (part[0] for part in rotary_1d(torch.tensor([place]), 8, base=100.0))
            turned.append(vector * cosine + torch.cat([-vector[4:], vector[:4]]) * sine)
        return float(turned[0] @ turned[1])

    assert product(3, 1) == pytest.approx(product(103, 101), abs=1e-4)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-2)


def test_recomputed_blocks_give_the_same_gradients():
    plain, again = make().train(), make(recompute=True).train()
    for model in (plain, again):
        model(tokens()).square().sum().backward()
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_numbers_that_make_no_sense():
    for options in ({"width": 30}, {"depth": 0}, {"heads": 0}, {"hidden": 0}):
        with pytest.raises(UsageError, match="expected depth and hidden of at least 1 and a width that is a multiple"):
            make(**options)
    with pytest.raises(UsageError, match="rotary_base must be above 1"):
        make(rotary_base=1.0)
    with pytest.raises(UsageError, match=r"depths must be in \[0, 3\]"):
        make().at_depths(tokens(), [4])
