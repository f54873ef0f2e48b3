"""Options of the vision transformer: tokens, positions, masks, depth, memory, compilation."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.models.block import Block, drop_branches
from embodied.models.positions import RelativeBias, resize_positions, rotary_angles, rotate
from embodied.models.presets import VITS, vit_size
from embodied.models.vit import VisionTransformer

EVERYTHING = {
    "class_tokens": 2,
    "registers": 3,
    "positions": "rope",
    "layer_scale": 0.1,
    "drop_path": 0.2,
    "qk_norm": True,
    "mlp": "swiglu",
    "mlp_ratio": 8 / 3,
    "relative_bias": "shared",
}
VARIANTS = {
    "default": {},
    "no_class": {"class_tokens": 0},
    "learned": {"positions": "learned", "registers": 2},
    "none": {"positions": "none", "mlp": "gelu_tanh"},
    "rope": {"positions": "rope", "registers": 2},
    "relative": {"relative_bias": "block", "positions": "none"},
    "relative_no_class": {"relative_bias": "shared", "positions": "none", "class_tokens": 0},
    "pre_norm": {"pre_norm": True, "final_norm": "class", "mlp": "quick_gelu"},
    "everything": EVERYTHING,
}


def make(**options):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}
    vit = VisionTransformer(**{**sizes, **options}).eval()
    with torch.no_grad():  # biases, scales and tables are not as they start
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return vit


def images(batch=2, size=(16, 16)):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_dropping_patches_drops_their_positions_alike(name):
    vit = make(**VARIANTS[name])
    whole, out = vit(images())
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(seed)) for seed in range(2)])
    shuffled, again = vit(images(), order)
    torch.testing.assert_close(shuffled, whole.gather(1, order[..., None].expand_as(whole)))
    torch.testing.assert_close(again["pooled"], out["pooled"])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_dropped_patch_is_not_seen(name):
    vit = make(**VARIANTS[name])
    pictures = images(batch=1).requires_grad_(True)
    keep = torch.tensor([[0, 5, 11]])
    tokens, out = vit(pictures, keep)
    (tokens.pow(2).sum() + out["pooled"].sum()).backward()
    seen = pictures.grad.abs().sum(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).sum((2, 4)).flatten() > 0
    assert seen.nonzero().flatten().tolist() == keep[0].tolist()


@pytest.mark.parametrize("name", ["default", "learned", "everything"])
def test_compiles_as_one_graph(name):
    vit = make(**VARIANTS[name])
    compiled = torch.compile(vit, fullgraph=True, backend="eager")
    tokens, out = compiled(images(), layers=True)
    expected, expected_out = vit(images(), layers=True)
    torch.testing.assert_close(tokens, expected)
    assert set(out) == set(expected_out)
    keep = torch.tensor([[1, 2], [3, 4]])
    torch.testing.assert_close(compiled(images(), keep)[0], vit(images(), keep)[0])
    torch._dynamo.reset()


def test_training_compiles_as_one_graph():
    vit = make(**EVERYTHING, checkpointing=True).train()
    compiled = torch.compile(vit, fullgraph=True, backend="aot_eager")
    compiled(images())[1]["pooled"].sum().backward()
    assert vit.embed.weight.grad.abs().sum() > 0
    torch._dynamo.reset()


def test_leading_tokens_are_named():
    tokens, out = make(class_tokens=2, registers=3)(images())
    assert tokens.shape == (2, 16, 24)
    assert out["class_tokens"].shape == (2, 2, 24)
    assert out["registers"].shape == (2, 3, 24)
    torch.testing.assert_close(out["cls"], out["class_tokens"].mean(dim=1))
    assert not torch.allclose(out["class_tokens"][:, 0], out["class_tokens"][:, 1])


@pytest.mark.parametrize("name", ["default", "learned", "rope", "relative", "everything"])
@pytest.mark.parametrize("size", [(24, 24), (8, 20)])
def test_any_resolution_at_run_time(name, size):
    tokens, _ = make(**VARIANTS[name])(images(size=size))
    assert tokens.shape == (2, size[0] * size[1] // 16, 24)


def test_a_grid_that_is_not_square():
    vit = make(image_size=(8, 16), positions="learned")
    assert vit.grid == (2, 4)
    assert vit(images(size=(8, 16)))[0].shape == (2, 8, 24)
    with pytest.raises(ValueError, match=r"multiple of patch_size=4, got \(8, 10\)"):
        vit(images(size=(8, 10)))


def test_resizing_leaves_class_rows_and_a_constant_table():
    table = torch.cat([torch.randn(2, 5), torch.ones(12, 5)])
    resized = resize_positions(table, (3, 4), (5, 2))
    assert resized.shape == (12, 5)
    assert torch.equal(resized[:2], table[:2])
    torch.testing.assert_close(resized[2:], torch.ones(10, 5))
    assert resize_positions(table, (3, 4), (3, 4)) is table


def test_rows_and_columns_are_not_swapped_in_resizing():
    rows = torch.arange(3.0).repeat_interleave(4)[:, None]  # the value is the row
    resized = resize_positions(rows, (3, 4), (3, 8)).unflatten(0, (3, 8))[..., 0]
    torch.testing.assert_close(resized, torch.arange(3.0)[:, None].expand(3, 8))


def test_rotation_depends_on_distance_alone():
    rotation = rotary_angles(4, 4, 8)
    vector = torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(1, 1, 16, 8)
    turned = rotate(vector, rotation)[0, 0].unflatten(0, (4, 4))
    products = [(turned[row, column] @ turned[row + 1, column + 2]).item() for row in range(3) for column in range(2)]
    assert products == pytest.approx([products[0]] * 6, rel=1e-4)
    torch.testing.assert_close(turned.norm(dim=-1), vector[0, 0].norm(dim=-1).unflatten(0, (4, 4)))
    assert not torch.allclose(turned[0, 0], turned[0, 1])
    assert not torch.allclose(turned[0, 0], turned[1, 0])


def test_relative_bias_depends_on_the_offset_alone():
    relative = RelativeBias(2, (2, 3), leading=1)
    torch.nn.init.normal_(relative.table)
    bias = relative(2, 3)
    assert bias.shape == (2, 7, 7)
    table = relative.table[:15].T.reshape(2, 3, 5)  # heads, offsets of rows -1..1, of columns -2..2
    for first in range(6):
        for second in range(6):
            down, right = first // 3 - second // 3, first % 3 - second % 3
            assert torch.equal(bias[:, 1 + first, 1 + second], table[:, down + 1, right + 2])
    assert torch.equal(bias[:, 0, 3], relative.table[15])
    assert torch.equal(bias[:, 3, 0], relative.table[16])
    assert torch.equal(bias[:, 0, 0], relative.table[17])


def test_mask_tokens_come_before_positions():
    vit = make(positions="learned")
    token_mask = torch.zeros(2, 16, dtype=torch.bool)
    token_mask[:, 3] = True
    mask_token = torch.randn(24)
    embeddings = vit.embed_patches(images())
    embeddings[:, 3] = mask_token
    expected = vit(images(), embeddings=embeddings)[0]
    torch.testing.assert_close(vit(images(), token_mask=token_mask, mask_token=mask_token)[0], expected)
    everywhere = torch.ones(2, 16, dtype=torch.bool)
    blind = vit(images(), token_mask=everywhere, mask_token=mask_token)[0]
    torch.testing.assert_close(blind[0], blind[1])  # no pixel is left
    assert not torch.allclose(blind[0, 0], blind[0, 1])  # but positions are
    with pytest.raises(ValueError, match="needs mask_token"):
        vit(images(), token_mask=token_mask)


@pytest.mark.parametrize("name", ["default", "rope", "relative"])
def test_attention_mask_by_gradient(name):
    vit = make(**{**VARIANTS[name], "registers": 0, "class_tokens": 0})
    causal = torch.ones(16, 16, dtype=torch.bool).tril()[None, None]
    pictures = images(batch=1).requires_grad_(True)
    tokens, _ = vit(pictures, attention_mask=causal)
    (gradient,) = torch.autograd.grad(tokens[0, 6].pow(2).sum(), pictures)
    seen = gradient.abs().sum(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).sum((2, 4)).flatten() > 0
    assert seen.tolist() == [True] * 7 + [False] * 9


def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        vit = make(**{**EVERYTHING, "drop_path": 0.5}, checkpointing=checkpointing).train()
        torch.manual_seed(3)  # of the dropped branches
        vit(images())[1]["pooled"].pow(2).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in vit.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_branches_are_dropped_in_training_only_and_scaled():
    torch.manual_seed(0)
    values = drop_branches(torch.ones(4000, 2, 3), 0.25)
    assert values.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert torch.equal(values, values[:, :1, :1].expand_as(values))
    assert values.mean().item() == pytest.approx(1, abs=0.05)
    vit = make(drop_path=0.6, depth=4)
    assert [block.drop_path for block in vit.blocks] == pytest.approx([0, 0.2, 0.4, 0.6])
    torch.testing.assert_close(vit(images())[0], make(depth=4)(images())[0])
    assert not torch.allclose(vit.train()(images())[0], vit.eval()(images())[0])


def test_layer_scale_of_zero_is_the_identity():
    block = Block(8, 2, layer_scale=0.0)
    tokens = torch.randn(1, 3, 8)
    assert torch.equal(block(tokens), tokens)


def test_no_biases():
    block = Block(8, 2, bias=False)
    assert [name for name, _ in block.named_parameters() if name.endswith("bias")] == ["norm1.bias", "norm2.bias"]


def test_queries_and_keys_are_normalised():
    block = Block(8, 2, qk_norm=True)
    tokens = torch.randn(1, 3, 8)
    before = block(tokens)
    with torch.no_grad():
        block.qkv.weight[:16] *= 100  # queries and keys; the eps of the norms is all that sees it
        block.qkv.bias[:16] *= 100
    torch.testing.assert_close(block(tokens), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "fourier"}, "positions must be one of sincos, learned, rope, clip_rope, none, got 'fourier'"),
        ({"mlp": "tanh"}, "mlp must be one of gelu"),
        ({"positions": "rope", "heads": 12}, "must be a multiple of 4 for rotary positions, got 2"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"relative_bias": "some"}, "relative_bias must be shared, block or None, got 'some'"),
        ({"final_norm": "last"}, "final_norm must be true, false, class or pooled, got 'last'"),
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"depth": 1.5}, r"depth must be a whole number of at least 1, got 1\.5"),
        ({"registers": -1}, "registers must be a whole number of at least 0, got -1"),
        ({"mlp_ratio": "wide"}, "mlp_ratio must be a positive number, got 'wide'"),
        ({"layer_scale": "small"}, "layer_scale must be a number or None, got 'small'"),
        ({"qk_norm": "yes"}, "qk_norm must be true or false, got 'yes'"),
        ({"positions": "clip_rope", "heads": 12}, "even and at least 6 for rotary positions of clips, got 2"),
    ],
)
def test_wrong_options_say_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_published_sizes():
    assert vit_size("vit_s")["heads"] == 6
    assert vit_size("mvp_vit_s")["heads"] == 12
    vit = VisionTransformer(image_size=224, **vit_size("vit_b"))
    assert sum(parameter.numel() for parameter in vit.parameters()) == 85_647_360  # ViT-B/16 less its position table
    for size in VITS.values():
        assert size["width"] % size["heads"] == 0
    with pytest.raises(UsageError, match="unknown size 'vit_x'"):
        vit_size("vit_x")
