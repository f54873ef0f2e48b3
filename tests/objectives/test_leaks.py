"""What a method must not see has no influence on its prediction, measured by gradient."""

import pytest
import torch
from tiny_objectives import encoder, frames, generator, make

from embodied.models.masks import uniform_mask
from embodied.objectives.masked.droppos import soft_positions, squared_distances
from embodied.objectives.parts.corruptions import count_sketch, projector
from embodied.objectives.parts.losses import spectrum
from embodied.objectives.parts.masks import block_mask, grid_mask, prefix_attention


def images(count=1):
    return encoder().preprocess(frames(count)).requires_grad_(True)


def reached(gradient):
    """bool [B, 16]: patches whose pixels have any."""
    return gradient.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum(dim=(1, 4, 5)).flatten(1) > 0


def hidden_of(name, objective, pixels):
    """The prediction summed over what is hidden, and the mask; the mask's draw is fixed."""
    draw = torch.Generator().manual_seed(0)
    if name == "mae":
        _, prediction, mask = objective.masked_loss(pixels, torch.rand(1, 16, generator=draw))
    elif name == "tbm":
        _, _, prediction, mask = objective.boosted_loss(pixels, pixels, torch.rand(1, 16, generator=draw), draw)
    elif name == "pixio":
        _, prediction, mask = objective.masked_loss(pixels, torch.rand(1, 4, generator=draw))
    elif name == "macrl":
        _, _, prediction, mask = objective.branch(pixels, torch.rand(1, 16, generator=draw), 0.5)
    elif name == "diffmae":
        order, noise = torch.rand(1, 16, generator=draw), torch.randn(1, 16, 192, generator=draw)
        _, prediction, mask = objective.noised_loss(pixels, order, torch.tensor([1000]), noise)
    else:
        mask = block_mask(1, rows=4, columns=4, counts=6, smallest=2, generator=draw, exact=True)
        if name == "beit":
            prediction = objective.masked_loss(pixels, mask, torch.zeros(1, 16, dtype=torch.long))[1]
        else:
            prediction = objective.masked_loss(pixels, mask)[1]
    return (prediction * mask[..., None]).sum(), mask.bool()


@pytest.mark.parametrize("name", ["mae", "pixio", "maskfeat", "beit", "macrl", "tbm"])
def test_predictions_depend_on_visible_patches_and_on_no_other(name):
    objective, pixels = make(name).eval(), images()
    total, mask = hidden_of(name, objective, pixels)
    (gradient,) = torch.autograd.grad(total, pixels)
    assert torch.equal(reached(gradient), ~mask)


class Given:
    """Views that are handed to iBOT as they are: two of two images, and no small ones."""

    local_crops = 0

    def __init__(self, large):
        self.large = large

    def __call__(self, encoder, images, generator):
        return self.large, self.large.new_zeros(0, 3, 16, 16)


def test_ibots_student_sees_no_hidden_patch():
    objective, large = make("ibot"), images(4)
    mask = torch.zeros(4, 16, dtype=torch.bool)
    mask[0, 2:7], mask[3, [0, 9, 15]] = True, True
    objective.dino.crops, objective.draw_mask = Given(large), lambda views, generator: mask
    loss, _ = objective({"images": frames(2)}, generator())
    (gradient,) = torch.autograd.grad(loss, large)  # of the student alone
    assert torch.equal(reached(gradient), ~mask)


def test_mfm_sees_nothing_of_removed_frequencies():
    objective, pixels = make("mfm").eval(), images(2)
    low = torch.tensor([True, False])
    _, prediction, _ = objective.filtered_loss(pixels, low)
    (gradient,) = torch.autograd.grad(prediction.square().sum(), pixels)
    kept = torch.fft.ifftshift(objective.kept_frequencies(pixels, low), dim=(-2, -1))
    for energy, seen in zip(spectrum(gradient).abs().mean(dim=1), kept, strict=True):
        assert energy[~seen].max() < 1e-4 * energy[seen].max()


def test_diffmae_sees_of_hidden_patches_only_what_the_noise_leaves():
    objective, pixels = make("diffmae").eval(), images()
    total, mask = hidden_of("diffmae", objective, pixels)
    (gradient,) = torch.autograd.grad(total, pixels)
    per_patch = gradient.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum(dim=(1, 4, 5)).flatten(1)
    assert (per_patch > 0).all()
    left = objective.kept[-1].sqrt()  # of an image at the last time
    assert left < 0.05
    objective.kept.zero_()  # and with nothing left, nothing is seen
    (gradient,) = torch.autograd.grad(hidden_of("diffmae", objective, pixels)[0], pixels)
    assert torch.equal(reached(gradient), ~mask)


def test_diffmae_from_pure_noise_is_blind_to_what_is_hidden():
    objective, pixels = make("diffmae").eval(), images()
    objective.kept.zero_()
    _, mask = hidden_of("diffmae", objective, pixels)
    other = pixels.detach().clone()
    place = mask.view(1, 1, 4, 1, 4, 1).expand(1, 3, 4, 8, 4, 8).reshape(1, 3, 32, 32)
    other[place] = 5.0
    assert torch.equal(hidden_of("diffmae", objective, pixels)[0], hidden_of("diffmae", objective, other)[0])


def test_aim_looks_at_the_prefix_and_backwards():
    objective, pixels = make("aim").eval(), images()
    for length in (1, 5):
        _, prediction = objective.causal_loss(pixels, torch.tensor([length]))
        for output in (0, 3, 9, 14):
            (gradient,) = torch.autograd.grad(prediction[0, output].sum(), pixels, retain_graph=True)
            expected = torch.arange(16) <= max(output, length - 1)
            assert torch.equal(reached(gradient)[0], expected), (length, output)


def test_aim_trains_on_what_follows_the_prefix():
    objective = make("aim")
    loss, prediction = objective.causal_loss(images(), torch.tensor([5]))
    (gradient,) = torch.autograd.grad(loss, prediction)
    # outputs 4 to 14 predict patches 5 to 15; those within the prefix are not predicted
    assert torch.equal(gradient[0].abs().sum(-1) > 0, torch.arange(15) >= 4)


def test_aim_equals_a_loop_over_prefixes():
    """What output i says is what an encoder says that was given no more than it may see, for a prefix of 1."""
    objective, pixels = make("aim").eval(), images().detach()
    _, prediction = objective.causal_loss(pixels, torch.tensor([1]))
    for output in (0, 6, 14):
        keep = torch.arange(output + 1)[None]
        mask = prefix_attention(torch.tensor([1]), output + 1)
        tokens, _ = objective.encoder.vit(pixels, keep, attention_mask=mask)
        torch.testing.assert_close(objective.head(tokens)[:, -1], prediction[:, output], atol=1e-5, rtol=1e-4)


def test_droppos_knows_no_position_that_it_is_asked_for():
    """Hand the encoder the same patches in another order: what it says of each stays the same."""
    objective, pixels = make("droppos").eval(), images().detach()
    keep_ids, _, _ = uniform_mask(torch.rand(1, 16, generator=torch.Generator().manual_seed(0)), 0.5)
    placed = torch.arange(8)[None] < 4
    _, logits = objective.position_loss(pixels, keep_ids, placed)
    order = torch.tensor([2, 0, 3, 1, 7, 5, 4, 6])
    _, shuffled = objective.position_loss(pixels, keep_ids[:, order], placed[:, order])
    torch.testing.assert_close(shuffled, logits[:, order], atol=1e-5, rtol=1e-4)
    # and the image with two of its unplaced patches exchanged gives the exchanged answers
    first, second = keep_ids[0, 5], keep_ids[0, 6]
    swapped = pixels.clone()
    for here, there in ((first, second), (second, first)):
        to = (
            slice(None),
            slice(None),
            slice(8 * (here // 4), 8 * (here // 4) + 8),
            slice(8 * (here % 4), 8 * (here % 4) + 8),
        )
        at = (
            slice(None),
            slice(None),
            slice(8 * (there // 4), 8 * (there // 4) + 8),
            slice(8 * (there % 4), 8 * (there % 4) + 8),
        )
        swapped[to] = pixels[at]
    _, answers = objective.position_loss(swapped, keep_ids, placed)
    torch.testing.assert_close(answers[0, [5, 6]], logits[0, [6, 5]], atol=1e-5, rtol=1e-4)


def test_droppos_labels():
    distances = squared_distances(3, 4)
    assert distances[0, 11] == 2**2 + 3**2
    soft = soft_positions(distances, torch.tensor(1.5))
    expected = torch.exp(-distances / 1.5**2)
    torch.testing.assert_close(soft, expected / expected.sum(1, keepdim=True))
    assert torch.equal(soft_positions(distances, torch.tensor(0.0)), torch.eye(12))


def test_droppos_without_smoothing_is_the_cross_entropy():
    objective, pixels = make("droppos").eval(), images(2).detach()
    objective.sigma.zero_()
    objective.attention_guide = False
    keep_ids, _, _ = uniform_mask(torch.rand(2, 16, generator=torch.Generator().manual_seed(0)), 0.5)
    placed = torch.arange(8).expand(2, -1) < 4
    loss, logits = objective.position_loss(pixels, keep_ids, placed)
    expected = torch.nn.functional.cross_entropy(logits[~placed], keep_ids[~placed])
    torch.testing.assert_close(loss, expected)


def test_droppos_weighs_patches_by_how_alike_the_class_token_of_the_whole_image_they_are():
    objective, pixels = make("droppos").eval(), images(2).detach()
    keep_ids, _, _ = uniform_mask(torch.rand(2, 16, generator=generator()), 0.5)
    placed = torch.arange(8).expand(2, -1) < 4
    loss, logits = objective.position_loss(pixels, keep_ids, placed)
    tokens, out = objective.encoder(pixels)
    labels, total, weights = soft_positions(objective.distances, objective.sigma), 0.0, 0.0
    for image, kept in enumerate(keep_ids):
        alike = torch.cosine_similarity(out["cls"][image][None], tokens[image][kept])
        share = (alike / 0.1).exp() / (alike / 0.1).exp().sum()  # the paper's 0.1
        for place in range(4, 8):
            error = -(labels[kept[place]] * logits[image, place].log_softmax(-1)).sum()
            total, weights = total + share[place] * error, weights + share[place]
    torch.testing.assert_close(loss, total / weights)


def test_droppos_sharpens_its_labels_while_it_trains():
    objective = make("droppos")
    sigmas = []
    for step in (1, 5, 10):
        objective.after_step(step, 10)
        sigmas.append(objective.sigma.item())
    assert sigmas == pytest.approx([0.9, 0.5, 0.0])


def test_ropim_sees_the_projection_and_nothing_of_its_complement():
    objective, pixels = make("ropim").eval(), images().detach()
    seen = projector(count_sketch(1, 16, 4, torch.Generator().manual_seed(0)))
    vit, recorded = objective.encoder.vit, []
    vit.blocks[0].register_forward_pre_hook(lambda module, args: recorded.append(args[0]))
    objective.projected_loss(pixels, seen)
    embedded = recorded[0][:, 1:] - vit.positions[1:]
    torch.testing.assert_close(seen @ embedded, embedded, atol=1e-5, rtol=1e-4)


def test_pixio_with_squares_of_one_patch_is_mae():
    mae, pixio = make("mae"), make("pixio")
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    pixio.encoder, pixio.grid, pixio.norm_pix, pixio.decoder = mae.encoder, 1, False, mae.decoder
    ours, theirs = pixio.masked_loss(images(2), noise), mae.masked_loss(images(2), noise)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert grid_mask(noise, 0.75, rows=4, columns=4, block=1)[2].sum() == 24
