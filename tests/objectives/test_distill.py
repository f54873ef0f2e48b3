"""Distillation: losses against closed forms, grids of other sizes, a teacher that stays as it is."""

import numpy as np
import pytest
import torch
from tiny_objectives import encoder, frames, generator, make, teacher, train
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.objectives.distill import Distill, cosine_error, resize_tokens, unit_squared_error


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def test_losses_equal_numpy():
    ours, theirs = vectors(5, 7), vectors(5, 7, seed=1)
    a, b = (part / part.norm(dim=1, keepdim=True) for part in (ours.double(), theirs.double()))
    cosines = np.einsum("be,be->b", a.numpy(), b.numpy())
    np.testing.assert_allclose(cosine_error(ours, theirs), 1 - cosines, atol=1e-6)
    np.testing.assert_allclose(unit_squared_error(ours, theirs), ((2 - 2 * cosines) / 7).mean(), rtol=1e-5)


def test_the_loss_is_that_of_the_projected_features():
    objective, images = make("distill").eval(), frames(4)
    loss, metrics = objective({"images": images}, generator())
    cropped = objective._crop(images, generator())  # the generator decides the crop
    tokens, out = objective.encoder(objective.encoder.preprocess(cropped))
    seen, theirs = objective.teacher(objective.teacher.preprocess(cropped))
    patches = 1 - torch.cosine_similarity(objective.project_patches(tokens), resize_tokens(seen, (6, 6), (4, 4)), dim=2)
    classes = 1 - torch.cosine_similarity(objective.project_class(out["cls"]), theirs["cls"])
    units = (nn.functional.normalize(part) for part in (objective.project_feature(out["cls"]), theirs["cls"]))
    expected = patches.mean() / 2 + classes.mean() / 2 + 10 * nn.functional.mse_loss(*units)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["patch_loss"], patches.mean().detach())


def test_a_grid_of_another_size():
    corners = torch.tensor([0.0, 4.0, 8.0, 12.0]).view(1, 4, 1)
    line = torch.tensor([0.0, 1.0, 3.0, 4.0])  # a quarter and three quarters of the way between the centres
    torch.testing.assert_close(resize_tokens(corners, (2, 2), (4, 4))[0, :4, 0], line)
    torch.testing.assert_close(resize_tokens(corners, (2, 2), (4, 2))[0, ::2, 0], 2 * line)
    assert resize_tokens(corners, (2, 2), (1, 1)).item() == 6.0
    assert resize_tokens(corners, (2, 2), (2, 2)) is corners


def test_the_teacher_stays_as_it_is():
    objective = make("distill")
    before = fingerprint(objective.teacher)
    train(objective, 3)
    assert fingerprint(objective.teacher) == before
    assert not any(part.training for part in objective.train().teacher.modules())
    assert not any(part.requires_grad for part in objective.teacher.parameters())


def test_neither_the_artifact_nor_a_checkpoint_holds_the_teacher(tmp_path):
    objective = make("distill")
    assert not any(name.startswith("teacher.") for name in objective.state_dict())
    save_encoder(objective.encoder, tmp_path / "encoder", card="")
    assert fingerprint(load_artifact(tmp_path / "encoder")) == fingerprint(objective.encoder)


def test_a_run_goes_on_with_its_own_teacher_only():
    state = make("distill").state_dict()
    make("distill").load_state_dict(state)
    torch.manual_seed(5)
    other = Distill(encoder(), teacher=teacher(), feature_weight=10.0, hidden=32)
    with pytest.raises(UserError, match="this training had another teacher"):
        other.load_state_dict(state)


def test_clip_kd_alone_needs_no_projector_where_widths_agree():
    objective = Distill(encoder(), teacher=encoder(), cosine_weight=0.0, feature_weight=2000.0)
    assert {name.partition(".")[0] for name, _ in objective.named_parameters()} == {"encoder", "teacher"}
    loss, metrics = objective({"images": frames(4)}, generator())
    torch.testing.assert_close(loss.detach(), 2000 * metrics["feature_loss"])


@pytest.mark.parametrize("spec", ["random@1+3", "pixels", "folder"])
def test_any_encoder_of_pictures_teaches(tmp_path, spec):
    """Several layers side by side, an encoder without class token whose pooled output is wider, and an artifact."""
    save_encoder(teacher(), tmp_path / "folder", card="")
    objective = Distill(encoder(class_tokens=0), teacher=tmp_path / "folder" if spec == "folder" else spec)
    objective({"images": frames(2)}, generator())[0].backward()
    assert objective.encoder.vit.embed.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "objective.teacher: give an encoder to learn from"),
        ({"teacher": "proprioception"}, "must be a frozen encoder of pictures, got proprioception"),
        ({"teacher": "state"}, "must be a frozen encoder of pictures, got state"),
        ({"teacher": "scratch"}, "must be a frozen encoder of pictures, got scratch"),
        ({"teacher": "defualt"}, "did you mean default"),
        ({"teacher": "random", "cosine_weight": 0.0}, "one of them positive, got 0.0 and 0.0"),
        ({"teacher": "random", "feature_weight": -1.0}, "must not be negative"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        Distill(encoder(), **options)
