"""HPT's trunk and stems: the published numbers of weights and names, and what is not there."""

import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, image_key
from embodied.models.sequence.hpt import HPTNetwork, HPTStems, sines
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.models.sequence.times import sincos_1d

COUNTS = {"s": 3_176_448, "b": 12_644_352, "l": 50_454_528, "xl": 226_861_056}
VIEW = image_key("front")


def network(**options):
    sizes = {"cameras": ["front"], "latent_dim": 6, "state_dim": 3, "context": 4, "tokens": 5, "hidden": 8, **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HPTNetwork(trunk_options={"size": None, "width": 16, "depth": 2, "heads": 4}, **sizes).eval()


def window(steps=4, rows=2, tokens=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = {
        VIEW: torch.randn(rows, steps, tokens, 6, generator=generator),
        STATE: torch.randn(rows, steps, 3, generator=generator),
    }
    return values, {name: torch.zeros(rows, steps, dtype=torch.bool) for name in values}


@pytest.mark.parametrize("size", COUNTS)
def test_trunks_have_exactly_the_published_number_of_weights(size):
    with torch.device("meta"):
        trunk = HPTTrunk(size=size)
    assert sum(part.numel() for part in trunk.parameters()) == COUNTS[size]
    assert trunk.width == {"s": 128, "b": 256, "l": 512, "xl": 768}[size]


class Reference(nn.Module):
    """The authors' block, of torch's own attention with `add_bias_kv`."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=True, batch_first=True)
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens, away):
        seen = self.norm_1(tokens)
        tokens = tokens + self.attn(seen, seen, seen, need_weights=False, key_padding_mask=away)[0]
        return tokens + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm_2(tokens))))


def test_the_published_layout_loads_and_computes_what_torchs_attention_does():
    """The authors' own `SimpleTransformer` (liruiw/HPT, commit 549433f), run once beside this with random weights of
    HPT-S: no difference for the trunk, with and without a mask; 1.4e-6 for stems whose tokens reach 1.2, whole windows
    and suffixes alike; 2.4e-7 for the feature; 0 for the head's chunk and 6e-8 for its loss (float32).
    """
    torch.manual_seed(0)
    blocks = nn.ModuleList(Reference(32, 4) for _ in range(3))
    for part in blocks.parameters():
        nn.init.normal_(part, std=0.2)
    weights = {f"trunk.blocks.{name}": tensor for name, tensor in blocks.state_dict().items()}
    trunk = HPTTrunk(size=None, width=32, depth=3, heads=4).eval()
    assert trunk.published().keys() == weights.keys()
    trunk.load_published(weights, source="file")
    tokens, keep = torch.randn(2, 6, 32), torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    for mask in (None, keep):
        expected = tokens
        for block in blocks:
            expected = block(expected, None if mask is None else ~mask)
        torch.testing.assert_close(trunk(tokens, keep_mask=mask), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(weights[name], tensor) for name, tensor in trunk.published().items())


def test_files_that_are_no_such_trunk_say_what_is_missing():
    trunk = HPTTrunk(size=None, width=32, depth=2, heads=4)
    weights = trunk.published()
    lacking = {name: part for name, part in weights.items() if name != "trunk.blocks.1.attn.bias_k"}
    with pytest.raises(UserError, match=r"a\.pth is no trunk of 2 blocks.*lacks trunk\.blocks\.1\.attn\.bias_k"):
        trunk.load_published(lacking, source="a.pth")
    with pytest.raises(UserError, match=r"also has trunk\.norm\.weight"):
        trunk.load_published({**weights, "trunk.norm.weight": torch.ones(32)}, source="a.pth")
    other = HPTTrunk(size=None, width=16, depth=2, heads=4).published()
    with pytest.raises(UserError, match=r"expected \[.*encoder\.size"):
        trunk.load_published(other, source="a.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "m"}, "unknown size of HPT's trunk 'm'"),
        ({"size": "s", "width": 64}, "not both"),
        ({"size": None}, "needs width and depth"),
        ({"size": None, "width": 30, "depth": 1}, "multiple of heads=8"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\)"),
    ],
)
def test_bad_shapes(arguments, message):
    with pytest.raises(UsageError, match=message):
        HPTTrunk(**arguments)


def test_positions_of_even_widths_are_those_of_the_paper_and_odd_ones_go_on():
    torch.testing.assert_close(sines(8, 5), sincos_1d(8, 5, interleaved=True))
    table = sines(3, 4)
    torch.testing.assert_close(table[:, 0], torch.arange(4.0).sin())
    torch.testing.assert_close(table[:, 2], (torch.arange(4.0) / 10000 ** (2 / 3)).sin())


def test_a_window_cut_short_is_a_window_of_its_own():
    made = network()
    values, hidden = window()
    short = {name: value[:, 2:] for name, value in values.items()}
    expected = made(short, {name: mask[:, 2:] for name, mask in hidden.items()})[ACTION]
    cut = {name: mask.clone() for name, mask in hidden.items()}
    for name in cut:
        cut[name][:, :2] = True
        values[name][:, :2] = float("nan")  # what is not there may hold anything
    torch.testing.assert_close(made(values, cut)[ACTION], expected)


def test_a_modality_that_is_not_there_leaves_no_trace():
    made = network()
    values, hidden = window()
    hidden[VIEW][:] = True
    first = made(values, hidden)[ACTION]
    assert torch.equal(first, made({STATE: values[STATE]}, hidden)[ACTION])
    values[VIEW] += 1
    assert torch.equal(first, made(values, hidden)[ACTION])
    with_frames = made(values, {name: torch.zeros_like(mask) for name, mask in hidden.items()})[ACTION]
    assert not torch.allclose(first, with_frames)
    hidden[STATE][:] = True
    assert made(values, hidden)[ACTION].isfinite().all()


def test_one_view_of_a_step_may_be_missing():
    made = network(cameras=["front", "side"])
    values, hidden = window()
    values[image_key("side")], hidden[image_key("side")] = values[VIEW] + 1, hidden[VIEW].clone()
    hidden[VIEW][:, 0] = True  # the first step is there by the other view: places do not move
    seen = made(values, hidden)[ACTION]
    values[VIEW][:, 0] = float("nan")
    assert torch.equal(seen, made(values, hidden)[ACTION])
    hidden[image_key("side")][:, 0] = True
    assert not torch.allclose(seen, made(values, hidden)[ACTION])


def test_statistics_that_are_missing_or_do_not_fit():
    stems = HPTStems(cameras=["front"], latent_dim=6, state_dim=3, context=4, width=16)
    pair = (torch.zeros(6), torch.ones(6))
    with pytest.raises(UsageError, match="statistics of state: expected those of 3 values, got none"):
        stems.fit({"image": pair})
    with pytest.raises(UsageError, match=r"expected those of 3 values, got \[6\]"):
        stems.fit({"image": pair, "state": pair})
    stems.fit({"image": pair, "state": (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, 1.0]))})
    assert stems.normalize(STATE, torch.tensor([3.0, 2.5, 3.0])).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(UsageError, match="expected proprioception or cameras"):
        HPTStems(cameras=[], latent_dim=6, state_dim=0, context=4, width=16)


def test_words_make_one_token_of_the_present_and_none_where_nothing_is_said():
    told, plain = network(text_dim=9), network()
    assert told.sizes[INSTRUCTION] == 9 and INSTRUCTION not in plain.sizes and "text_dim" not in plain.config()
    values, hidden = window()
    said = torch.randn(2, 1, 9)
    values, hidden = {**values, INSTRUCTION: said}, {**hidden, INSTRUCTION: torch.zeros(2, 1, dtype=torch.bool)}
    tokens, keep = told.stems(values, hidden)
    assert tokens.shape == (2, 2 * 5 + 1, 16) and keep.all()
    at_every_step = {**values, INSTRUCTION: said.expand(-1, 4, -1)}
    same = told.stems(at_every_step, {**hidden, INSTRUCTION: torch.zeros(2, 4, dtype=torch.bool)})[0]
    torch.testing.assert_close(same, tokens)
    assert not torch.allclose(told({**values, INSTRUCTION: said + 1}, hidden)[ACTION], told(values, hidden)[ACTION])
    silent = {**hidden, INSTRUCTION: torch.tensor([[False], [True]])}
    values[INSTRUCTION][1] = float("nan")  # what is not there may hold anything
    keep = told.stems(values, silent)[1]
    assert keep[:, -1].tolist() == [True, False] and not told(values, silent)[ACTION].isnan().any()
    missing = told({name: value for name, value in values.items() if name != INSTRUCTION}, silent)[ACTION]
    torch.testing.assert_close(missing[1], told(values, silent)[ACTION][1])
    assert told.stems.normalize(INSTRUCTION, said) is said
    told.stems.fit({name: (torch.zeros(size), torch.ones(size)) for name, size in (("image", 6), ("state", 3))})
