"""VQ-GAN's networks: sizes, gradients to every weight, and settings that make no sense."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.encoders.artifact import build_encoder, fingerprint
from embodied.encoders.pyramid import PyramidEncoder
from embodied.models.patch_decoder import PatchDecoder
from embodied.models.pyramid import PyramidDown, PyramidUp, widths_of


@pytest.mark.parametrize(("factor", "stem"), [(4, 1), (8, 1), (8, 2), (8, 8), (16, 4)])
def test_down_and_up_again(factor, stem):
    torch.manual_seed(0)
    down = PyramidDown(factor=factor, width=32, depth=1, stem=stem)
    up = PyramidUp(inputs=32, factor=factor, width=32, depth=1, stem=stem)
    images = torch.randn(2, 3, 32, 48)
    maps = down(images)
    assert maps.shape == (2, 32, 32 // factor, 48 // factor)
    drawn = up(maps)
    assert drawn.shape == images.shape
    drawn.pow(2).mean().backward()
    for part in (*down.named_parameters(), *up.named_parameters()):
        # A convolution's bias before a norm over its channel group may have a gradient of nearly nothing, but has one.
        assert part[1].grad is not None and part[1].grad.isfinite().all(), part[0]


def test_levels_have_half_the_channels_of_the_coarser_one_but_a_quarter_at_least():
    assert widths_of(8, 128, 1) == [32, 32, 64, 128]
    assert widths_of(8, 128, 2) == [32, 64, 128]
    assert widths_of(8, 128, 8) == [128]


def test_a_place_depends_most_on_what_is_near_it():
    """On what is far away only through norms and attention."""
    torch.manual_seed(0)
    down = PyramidDown(factor=4, width=32, depth=1).eval()
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 4:8, 8:12] += 3.0
    moved = (down(changed) - down(images)).abs().sum(dim=1)[0]  # (16, 16), the change is in row 1, column 2
    near, far = moved[:4, :5].mean(), moved[8:, 8:].mean()
    assert near > 5 * far


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 12}, "factor of a convolutional tokenizer must be a power of 2, got 12"),
        ({"stem": 16}, "stem must be at most the down-sampling factor 8, got 16"),
        ({"width": 48}, "width of a convolutional tokenizer must be a multiple of 32, got 48"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        PyramidDown(**{"factor": 8, "width": 32, "depth": 1, **settings})


def test_the_encoder_keeps_the_contract():
    torch.manual_seed(0)
    encoder = PyramidEncoder(image_size=32, patch_size=8, width=32, stem=2)
    tokens, out = encoder(encoder.preprocess(torch.zeros(2, 20, 40, 3, dtype=torch.uint8)))
    assert tokens.shape == (2, 16, 32) and out["pooled"].shape == (2, 32) and encoder.grid == (4, 4)
    rebuilt = build_encoder(encoder.config())
    rebuilt.load_state_dict(encoder.state_dict())
    assert fingerprint(rebuilt) == fingerprint(encoder)
    with pytest.raises(UsageError, match="image_size must be a multiple of patch_size=8, got 36"):
        PyramidEncoder(image_size=36, patch_size=8)


def test_the_patch_decoder_puts_patches_where_they_belong():
    decoder = PatchDecoder(inputs=2, patch_size=4, grid=(2, 3), width=16, depth=1, heads=2)
    assert decoder(torch.zeros(5, 6, 2)).shape == (5, 3, 8, 12)
    with torch.no_grad():  # blocks that add nothing, and a head that shows the second value
        for block in decoder.blocks:
            block.project.weight.zero_()
            block.mlp[2].weight.zero_()
        decoder.embed.weight.zero_()
        decoder.embed.weight[0, 1] = 1000.0
        decoder.head.weight.zero_()
        decoder.head.weight[:, 0] = 1.0
    vectors = torch.zeros(1, 6, 2)
    vectors[0, 4, 1] = 1.0  # second row, second column
    bright = decoder(vectors)[0, 0] > 1.5
    assert bright[4:, 4:8].all() and bright.sum() == 16
