"""Losses, masks and targets equal to lightly's, whose figures are in goldens/lightly.safetensors (make_lightly.py)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_objectives import DISTILLED, encoder
from torch import nn
from torch.nn import functional as F

from embodied.models.patches import patchify
from embodied.objectives.parts.losses import contrast_error, koleo
from embodied.objectives.parts.masks import grid_mask, prefix_attention
from embodied.objectives.parts.targets import normalize_patches
from embodied.objectives.parts.teacher import Centre, sinkhorn
from embodied.objectives.self_distillation.densecl import matches
from embodied.objectives.self_distillation.dino import view_loss
from embodied.objectives.self_distillation.ibot import IBOT

STUDENT, TEACHER = 0.1, torch.tensor(0.07)


@pytest.fixture(scope="module")
def theirs():
    return load_file(Path(__file__).parent / "goldens" / "lightly.safetensors")


def test_dino_in_two_steps_with_its_centre(theirs):
    centre, views = Centre(8).train(), theirs["dino_student"].shape[1]
    for student, teacher, expected in zip(
        theirs["dino_student"], theirs["dino_teacher"], theirs["dino_losses"], strict=True
    ):
        targets = centre(teacher.flatten(0, 1), TEACHER)
        torch.testing.assert_close(view_loss(student.flatten(0, 1) / STUDENT, targets, views=views), expected)
        centre.update()
    torch.testing.assert_close(centre.value, theirs["dino_centre"])


def test_ibots_patches_with_an_image_that_has_none_hidden(theirs):
    """Of a first step: later ones differ, since their centre is that of hidden patches, iBOT's own that of all."""
    ibot, mask = IBOT(encoder(), **DISTILLED), theirs["ibot_mask"]
    ibot.dino.head, ibot.dino.teacher_head = nn.Identity(), nn.Identity()
    ibot.patch_centre, ibot.dino.temperature = Centre(8), TEACHER
    tokens, seen = torch.zeros(2, *mask.shape, 8)
    tokens[mask], seen[mask] = theirs["ibot_student"], theirs["ibot_teacher"]
    assert not mask.any(dim=1).all()
    torch.testing.assert_close(ibot.patch_loss(tokens, seen, mask)[0], theirs["ibot_loss"])


def test_koleo_and_sinkhorn(theirs):
    torch.testing.assert_close(koleo(theirs["koleo_features"]), theirs["koleo_loss"])
    shares = sinkhorn(theirs["sinkhorn_outputs"], TEACHER)
    torch.testing.assert_close(shares, theirs["sinkhorn_shares"], atol=1e-6, rtol=1e-4)


def test_contrast_with_a_memory_and_matches_of_patches(theirs):
    queries, keys = (F.normalize(theirs[f"contrast_{name}"], dim=1) for name in ("queries", "keys"))
    loss = contrast_error(queries, keys, theirs["contrast_negatives"], temperature=0.2).mean()
    torch.testing.assert_close(loss, theirs["contrast_loss"])
    found = matches(theirs["match_tokens"], theirs["match_others"])
    assert torch.equal(theirs["match_values"].gather(1, found[..., None].expand(-1, -1, 3)), theirs["match_found"])


def test_pixios_squares_and_aims_prefixes(theirs):
    kept, restore_ids, mask = grid_mask(theirs["squares_noise"], 0.75, rows=8, columns=8, block=2)
    assert torch.equal(kept, theirs["squares_kept"])
    assert torch.equal(restore_ids.argsort(dim=1)[:, 16:], theirs["squares_hidden"])
    assert torch.equal(mask, torch.ones(3, 64).scatter(1, theirs["squares_kept"], 0.0))
    assert torch.equal(prefix_attention(theirs["prefix_lengths"], 7), theirs["prefix_seen"])


def test_normalised_patches(theirs):
    torch.testing.assert_close(normalize_patches(patchify(theirs["images"], 4)), theirs["patches"])
