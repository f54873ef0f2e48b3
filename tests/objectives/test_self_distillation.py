"""DINO and iBOT: targets, centres, teachers, and that a planted collapse shows."""

import math

import numpy as np
import pytest
import torch
from tiny_objectives import DISTILLED, encoder, frames, generator, make, train
from torch import nn
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.objectives.parts.teacher import Centre, Teacher, entropy, feature_spread, sinkhorn
from embodied.objectives.self_distillation.dino import DINO, view_loss
from embodied.objectives.self_distillation.ibot import IBOT


def scores(rows=24, classes=6, seed=0):
    return torch.randn(rows, classes, generator=generator(seed))


def test_pairs_of_views_equal_a_loop():
    student, targets = scores(4 * 3), scores(2 * 3, seed=1).softmax(-1)
    terms = []
    for teacher in range(2):
        for view in range(4):
            if view != teacher:
                for image in range(3):
                    logs = student[view * 3 + image].log_softmax(0)
                    terms.append(-(targets[teacher * 3 + image] * logs).sum())
    assert len(terms) == 6 * 3
    torch.testing.assert_close(view_loss(student, targets, views=4), torch.stack(terms).mean())


def test_the_centre_is_the_moving_mean_of_whole_steps():
    centre, temperature = Centre(6, momentum=0.9).train(), torch.tensor(0.5)
    parts = [scores(8, seed=seed) for seed in range(3)]
    targets = [centre(part, temperature) for part in parts]
    torch.testing.assert_close(targets[2], (parts[2] / 0.5).softmax(-1))  # within a step it stays
    centre.update()
    torch.testing.assert_close(centre.value, 0.1 * torch.cat(parts).mean(0))
    torch.testing.assert_close(centre(parts[0], temperature), ((parts[0] - centre.value) / 0.5).softmax(-1))


def test_sinkhorn_uses_all_classes_alike():
    outputs = F.normalize(scores(240), dim=1)
    shares = sinkhorn(outputs, 0.3, iterations=100)
    torch.testing.assert_close(shares.sum(1), torch.ones(240))
    torch.testing.assert_close(shares.sum(0), torch.full((6,), 40.0), rtol=1e-3, atol=0.0)


def test_sinkhorn_equals_the_published_steps_in_numpy():
    outputs = F.normalize(scores(12), dim=1)
    matrix = np.exp(outputs.numpy().astype(np.float64) / 0.1).T  # classes x samples
    matrix /= matrix.sum()
    for _ in range(3):
        matrix /= matrix.sum(axis=1, keepdims=True)
        matrix /= 6
        matrix /= matrix.sum(axis=0, keepdims=True)
        matrix /= 12
    np.testing.assert_allclose(sinkhorn(outputs, 0.1), (matrix * 12).T, rtol=1e-4, atol=1e-7)


def test_the_teacher_follows_and_gets_no_gradient():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = Teacher(student).train()
    assert not teacher.module.training
    before = teacher.module[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
        student[1].running_mean.add_(2.0)
    teacher.update(student, 0.75)
    torch.testing.assert_close(teacher.module[0].weight, before + 0.25)
    assert torch.equal(teacher.module[1].running_mean, student[1].running_mean)
    assert not teacher(torch.ones(2, 3)).requires_grad


@pytest.mark.parametrize("name", ["dino", "ibot"])
def test_only_the_student_learns_from_a_step(name):
    objective = make(name)
    objective({"images": frames(4)}, generator())[0].backward()
    dino = objective if name == "dino" else objective.dino
    for part in (dino.teacher, dino.teacher_head):
        assert all(weight.grad is None for weight in part.parameters())
    before = {key: value.clone() for key, value in dino.teacher.state_dict().items()}
    with torch.no_grad():
        for weight in dino.encoder.vit.parameters():
            weight.add_(0.1)
    objective.after_step(1, 100)
    assert any(not torch.equal(value, before[key]) for key, value in dino.teacher.state_dict().items())


def test_schedules():
    dino = DINO(encoder(), **{**DISTILLED, "freeze_last": 0.2, "temperature_warmup": 0.5})
    assert bool(dino.head.frozen)
    temperatures = []
    for step in (1, 2, 5, 10):
        dino.after_step(step, 10)
        temperatures.append(round(dino.temperature.item(), 4))
        assert bool(dino.head.frozen) == (step < 2)
    assert temperatures == [0.046, 0.052, 0.07, 0.07]


def test_frozen_prototypes_get_a_gradient_of_zero():
    dino = DINO(encoder(), **{**DISTILLED, "freeze_last": 0.5})
    dino({"images": frames(4)}, generator())[0].backward()
    assert dino.head.directions.grad.abs().sum() == 0
    assert dino.head.mlp[0].weight.grad.abs().sum() > 0


def test_a_planted_collapse_shows_in_the_metrics():
    dino = make("dino")
    healthy = dino({"images": frames(16)}, generator())[1]
    with torch.no_grad():
        dino.teacher.module.norm.weight.zero_()  # one feature for every image
        dino.teacher.module.norm.bias.fill_(1.0)
        dino.teacher_head.module.directions[1:] = dino.teacher_head.module.directions[:1]  # one answer for every class
    collapsed = dino({"images": frames(16)}, generator())[1]
    assert collapsed["teacher_spread"] < 1e-3 < 0.05 < healthy["teacher_spread"]
    assert collapsed["teacher_entropy"].item() == pytest.approx(math.log(32), rel=1e-4)
    assert healthy["teacher_entropy"] < 0.99 * math.log(32)
    assert entropy(torch.eye(4)) == pytest.approx(0.0, abs=1e-6)
    assert feature_spread(scores(2000, 8)).item() == pytest.approx(1.0, abs=0.03)


def test_half_of_the_views_is_hidden_in_part():
    ibot = IBOT(encoder(), mask_ratio=(0.2, 0.5), exact=True, **DISTILLED)
    counts = ibot.draw_mask(2000, generator()).sum(dim=1)
    assert (counts == 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert counts.max() == 7  # int(0.499.. * 16)
    assert counts[counts > 0].min() == 3


@pytest.mark.parametrize("centring", ["centre", "sinkhorn"])
@pytest.mark.parametrize("shared_head", [True, False])
def test_patch_loss_equals_a_loop(centring, shared_head):
    torch.manual_seed(0)
    ibot = IBOT(encoder(), shared_head=shared_head, **{**DISTILLED, "centring": centring})
    tokens, seen = torch.randn(4, 16, 32, generator=generator()), torch.randn(4, 16, 32, generator=generator(1))
    mask = torch.zeros(4, 16, dtype=torch.bool)
    mask[0, :3], mask[2, 5:6] = True, True
    loss, _ = ibot.patch_loss(tokens, seen, mask)
    head = ibot.dino.head if shared_head else ibot.patch_head
    teacher = ibot.dino.teacher_head if shared_head else ibot.teacher_patch_head
    centred = (teacher(seen) / 0.04).softmax(-1)[mask]
    targets = centred if centring == "centre" else sinkhorn(teacher(seen[mask]), 0.04)
    errors = -(targets * (head(tokens[mask]) / 0.1).log_softmax(-1)).sum(-1)
    expected = (errors[:3].mean() + errors[3]) / 4  # views 1 and 3 have nothing hidden
    torch.testing.assert_close(loss, expected)
    if centring == "centre":  # over all patches, hidden or not
        ibot.patch_centre.update()
        torch.testing.assert_close(ibot.patch_centre.value, 0.1 * teacher(seen).flatten(0, 1).mean(0))


def test_dinov2_is_both_losses_and_koleo_with_a_head_for_patches():
    torch.manual_seed(0)
    options = {**DISTILLED, "centring": "sinkhorn", "koleo_weight": 0.1, "shared_head": False, "exact": True}
    ibot, plain = train(IBOT(encoder(), **options).train(), 2), IBOT(encoder(), **{**options, "koleo_weight": 0.0})
    plain.load_state_dict(ibot.state_dict())
    loss, metrics = ibot({"images": frames(8)}, generator())
    loss.backward()
    assert ibot.patch_head.mlp[0].weight.grad.any() and ibot.dino.head.mlp[0].weight.grad.any()
    without = plain({"images": frames(8)}, generator())[0]
    torch.testing.assert_close(loss, without + 0.1 * 2 * metrics["koleo"])  # of both large views
    torch.testing.assert_close(metrics["class_loss"] + metrics["patch_loss"], loss.detach())


def test_a_batch_with_nothing_hidden_has_no_patch_loss():
    ibot = make("ibot")
    tokens = torch.randn(2, 16, 32, requires_grad=True, generator=generator())
    loss, _ = ibot.patch_loss(tokens, tokens.detach(), torch.zeros(2, 16, dtype=torch.bool))
    assert loss == 0
    loss.backward()
    assert ibot.dino.head.mlp[0].weight.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centring": "center"}, "did you mean centre"),
        ({"momentum": 1.0}, r"momentum and freeze_last must be in \[0, 1\)"),
        ({"strength": 2.0}, r"strength in \[0, 1\]"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        DINO(encoder(), **{**DISTILLED, **options})
    with pytest.raises(UsageError, match="needs an encoder with a class token"):
        DINO(encoder(class_tokens=0))
