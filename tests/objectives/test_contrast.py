"""Contrast with a queue: InfoNCE against torch, matches against a loop, queues step by step, DenseCL and MACRL."""

import copy

import pytest
import torch
from tiny_objectives import CONTRAST, encoder, frames, generator, make, train
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.models.patches import patchify
from embodied.objectives.parts.losses import contrast_error
from embodied.objectives.parts.queue import Queue
from embodied.objectives.self_distillation.densecl import DenseCL, matches
from embodied.objectives.self_distillation.macrl import MACRL


def units(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=-1)


def test_infonce_equals_the_cross_entropy_of_torch():
    queries, positives, negatives = units(5, 8), units(5, 8, seed=1), units(11, 8, seed=2)
    logits = torch.cat([(queries * positives).sum(1, keepdim=True), queries @ negatives.T], dim=1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long), reduction="none")
    torch.testing.assert_close(contrast_error(queries, positives, negatives, temperature=0.2), expected)


def test_infonce_of_patches_is_that_of_each():
    queries, positives, negatives = units(3, 4, 8), units(3, 4, 8, seed=1), units(11, 8, seed=2)
    together = contrast_error(queries, positives, negatives, temperature=0.1)
    one = contrast_error(queries[1, 2:3], positives[1, 2:3], negatives, temperature=0.1)
    torch.testing.assert_close(together[1, 2], one[0])


def test_matches_equal_a_loop():
    tokens, others = torch.randn(2, 6, 5, generator=generator()), torch.randn(2, 6, 5, generator=generator(1))
    found = matches(tokens, others)
    for image in range(2):
        for patch in range(6):
            cosines = [float(F.cosine_similarity(tokens[image, patch], other, dim=0)) for other in others[image]]
            assert found[image, patch] == max(range(6), key=cosines.__getitem__)
    # lengths do not matter, only directions
    assert torch.equal(matches(tokens, others * torch.rand(2, 6, 1, generator=generator(2))), found)


def test_the_dense_loss_equals_a_loop():
    objective = make("densecl")
    tokens, seen = torch.randn(2, 16, 32, generator=generator()), torch.randn(2, 16, 32, generator=generator(1))
    keys = objective.teacher_dense_head(seen)
    errors = objective.dense_error(tokens, seen, keys)
    match = matches(tokens, seen)
    query = objective.dense_head(tokens[1, 7])
    logits = torch.cat([(query * keys[1, match[1, 7]]).sum()[None], objective.dense_queue.value @ query]) / 0.2
    torch.testing.assert_close(errors[1, 7], -logits.log_softmax(0)[0])


def test_a_queue_replaces_the_oldest():
    queue = Queue(5, 3).train()
    before = queue.value.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(5))
    first, second = units(2, 3), units(2, 3, seed=1)
    queue.note(first)
    queue.note(second)  # another part of the same batch
    assert torch.equal(queue.value, before)  # within a step it stays
    queue.update()
    assert torch.equal(queue.value, torch.cat([first, second, before[4:]]))
    third = units(2, 3, seed=2)
    queue.note(third)
    queue.update()
    assert torch.equal(queue.value, torch.cat([third[1:], first[1:], second, third[:1]]))
    many = units(12, 3, seed=3)
    queue.note(many)
    queue.update()
    assert {tuple(row) for row in queue.value.tolist()} == {tuple(row) for row in many[-5:].tolist()}


def test_a_queue_keeps_nothing_in_eval_mode():
    queue = Queue(5, 3).eval()
    before = queue.value.clone()
    queue.note(units(2, 3))
    queue.update()
    assert torch.equal(queue.value, before)


def test_queues_hold_keys_of_images_and_means_of_patches():
    objective = make("densecl")
    reference = copy.deepcopy(objective)
    objective({"images": frames(4)}, generator(2))
    objective.after_step(1, 10)
    pixels = reference.encoder.preprocess(frames(4))
    seen, out = reference.teacher(reference.crops(reference.encoder, pixels, generator(2))[0][4:])
    torch.testing.assert_close(objective.queue.value[:4], reference.teacher_head(out["pooled"]))
    mean = reference.teacher_dense_head(seen).mean(dim=1)
    torch.testing.assert_close(objective.dense_queue.value[:4], F.normalize(mean, dim=1))
    assert torch.equal(objective.queue.value[4:], reference.queue.value[4:])


def test_macrl_adds_up_two_reconstructions_and_a_contrast():
    objective = make("macrl")
    loss, metrics = objective({"images": frames(4)}, generator(3))
    draw = generator(3)
    strong, weak = objective.views(objective.encoder.preprocess(frames(4)), draw)
    first, second = torch.rand(2, 4, 16, generator=draw)
    errors, features = [], []
    for view, noise, hidden in ((strong, first, 12), (weak, second, 8)):
        _, feature, prediction, mask = objective.branch(view, noise, hidden / 16)
        assert (mask.sum(dim=1) == hidden).all()
        errors.append((prediction - patchify(view, 8))[mask.bool()].abs().mean())
        features.append(feature)
    kept = second.argsort(dim=1)[:, :8]
    query = objective.head(features[0])
    key = objective.teacher_head(objective.teacher(weak, kept)[1]["cls"])
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ objective.queue.value.T], dim=1) / 0.2
    contrast = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(loss, (errors[0] + errors[1]) / 2 + 0.1 * contrast)
    torch.testing.assert_close(metrics["contrast"], contrast.detach())
    objective.after_step(1, 10)
    torch.testing.assert_close(objective.queue.value[:4], key)


def test_macrl_changes_the_colours_of_one_view_only():
    objective = make("macrl")
    even = frames(64).float().mean(dim=(1, 2), keepdim=True).expand(-1, 32, 32, -1).to(torch.uint8)
    images = encoder().preprocess(even)  # a crop changes nothing
    strong, weak = objective.views(images, generator())
    torch.testing.assert_close(weak, images)
    assert ((strong - images).abs().amax(dim=(1, 2, 3)) > 0.02).float().mean() > 0.6  # most of them


@pytest.mark.parametrize("name", ["densecl", "macrl"])
def test_the_key_encoder_gets_no_gradient_and_follows(name):
    objective = make(name)
    before = copy.deepcopy(objective.teacher)
    objective({"images": frames(4)}, generator())[0].backward()
    assert all(part.grad is None for part in objective.teacher.parameters())
    train(objective, 2)
    moved = [
        not torch.equal(old, new) for old, new in zip(before.parameters(), objective.teacher.parameters(), strict=True)
    ]
    assert any(moved)


def test_a_planted_collapse_shows():
    objective = make("densecl")
    healthy = objective({"images": frames(16)}, generator())[1]["teacher_spread"]
    with torch.no_grad():
        objective.teacher.module.norm.weight.zero_()
        objective.teacher.module.norm.bias.fill_(1.0)
    collapsed = objective({"images": frames(16)}, generator())[1]["teacher_spread"]
    assert collapsed < 1e-3 < 0.05 < healthy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": 0}, "queue must be at least 1, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"dense_weight": 1.0}, r"dense_weight in \(0, 1\)"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        DenseCL(encoder(), **{**CONTRAST, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratios": (0.75, 1.0)}, r"mask_ratios must be in \(0, 1\), got 1.0"),
        ({"contrast_weight": 0.0}, "contrast_weight positive"),
        ({"strength": 1.5}, r"strength in \[0, 1\]"),
    ],
)
def test_wrong_settings_of_macrl(options, message):
    with pytest.raises(UsageError, match=message):
        MACRL(encoder(), **{**CONTRAST, **options})
