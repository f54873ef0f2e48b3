"""TokenUnify: what each task sees, asks and counts and its odds."""

import pytest
import torch
from tiny_objectives import encoder, frames, generator, make

from embodied.core.errors import UsageError
from embodied.models.patches import patchify
from embodied.objectives.masked.tokenunify import ALL, NEXT, RANDOM, TokenUnify


def images(count):
    return encoder().preprocess(frames(count)).requires_grad_(True)


def some_hidden(count):
    hidden = torch.zeros(count, 16, dtype=torch.bool)
    hidden[:, [1, 4, 5, 9, 15]] = True
    return hidden


def reached(gradient):
    """bool [16]: patches of one image whose pixels have any."""
    return gradient[0].unfold(1, 8, 8).unfold(2, 8, 8).abs().sum(dim=(0, 3, 4)).flatten() > 0


def predict(objective, pixels, task, length):
    count = len(pixels)
    lengths = torch.full((count,), length)
    return objective.mixed_loss(pixels, torch.full((count,), task), some_hidden(count), lengths)


def test_random_patches_are_predicted_from_the_visible_ones():
    objective, pixels = make("tokenunify").eval(), images(1)
    _, prediction, asked = predict(objective, pixels, RANDOM, 3)
    assert torch.equal(asked, some_hidden(1))
    for patch in (4, 15):
        (gradient,) = torch.autograd.grad(prediction[0, patch].sum(), pixels, retain_graph=True)
        assert torch.equal(reached(gradient), ~some_hidden(1)[0])


@pytest.mark.parametrize("length", [1, 6, 15])
def test_the_next_patch_is_predicted_from_those_before_it(length):
    objective, pixels = make("tokenunify").eval(), images(1)
    _, prediction, asked = predict(objective, pixels, NEXT, length)
    assert torch.equal(asked[0], torch.arange(16) >= length)
    for patch in range(length, 16, 4):
        (gradient,) = torch.autograd.grad(prediction[0, patch].sum(), pixels, retain_graph=True)
        assert torch.equal(reached(gradient), torch.arange(16) < patch)


@pytest.mark.parametrize("length", [1, 6, 15])
def test_all_next_patches_are_predicted_from_the_prefix_alone(length):
    objective, pixels = make("tokenunify").eval(), images(1)
    _, prediction, asked = predict(objective, pixels, ALL, length)
    assert torch.equal(asked[0], torch.arange(16) >= length)
    for patch in range(length, 16, 4):
        (gradient,) = torch.autograd.grad(prediction[0, patch].sum(), pixels, retain_graph=True)
        assert torch.equal(reached(gradient), torch.arange(16) < length)
    assert length == 15 or not torch.equal(prediction[0, 14], prediction[0, 15])  # it is told which patch is meant


def test_the_loss_is_the_mean_over_images_of_the_mean_over_asked_patches():
    objective, pixels = make("tokenunify").eval(), images(3).detach()
    tasks, lengths = torch.tensor([RANDOM, NEXT, ALL]), torch.tensor([2, 5, 11])
    loss, prediction, asked = objective.mixed_loss(pixels, tasks, some_hidden(3), lengths)
    assert asked.sum(dim=1).tolist() == [5, 11, 5]
    patches = patchify(pixels, 8)
    parts = [(prediction[k][asked[k]] - patches[k][asked[k]]).pow(2).mean() for k in range(3)]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_images_of_one_batch_do_not_matter_to_each_other():
    objective, pixels = make("tokenunify").eval(), images(3).detach()
    tasks, lengths = torch.tensor([RANDOM, NEXT, ALL]), torch.tensor([2, 5, 11])
    _, together, _ = objective.mixed_loss(pixels, tasks, some_hidden(3), lengths)
    for one in range(3):
        _, alone, _ = predict(objective, pixels[one : one + 1], int(tasks[one]), int(lengths[one]))
        torch.testing.assert_close(alone[0], together[one], atol=1e-5, rtol=1e-4)


def test_at_the_end_of_the_prefix_next_and_all_see_the_same():
    """The first patch after the prefix differs by the task's own token only."""
    objective, pixels = make("tokenunify").eval(), images(2).detach()
    with torch.no_grad():
        objective.task_tokens.zero_()
    following = [predict(objective, pixels, task, 6)[1][:, 6] for task in (NEXT, ALL)]
    torch.testing.assert_close(*following)


def test_odds():
    objective = TokenUnify(encoder(class_tokens=0), odds=(0.0, 3.0, 1.0), head_width=16, head_depth=1)
    seen, whole = [], objective.mixed_loss

    def record(pixels, tasks, *rest):
        seen.append(tasks)
        return whole(pixels, tasks, *rest)

    objective.mixed_loss = record
    with torch.no_grad():
        objective({"images": frames(1000)}, generator())
    shares = torch.bincount(seen[0], minlength=3) / 1000
    assert shares[RANDOM] == 0
    assert shares[NEXT].item() == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (0, {"odds": (1.0, 1.0)}, "odds must be three numbers"),
        (0, {"odds": (0.0, 0.0, 0.0)}, "not all 0"),
        (0, {"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\)"),
        (1, {}, "an encoder of patches alone"),
    ],
)
def test_wrong_settings(tokens, options, message):
    with pytest.raises(UsageError, match=message):
        TokenUnify(encoder(class_tokens=tokens), **options)
