"""Settings that make no sense are refused before anything is trained, by a message with what was expected and given."""

import pytest
from tiny_objectives import CONTRAST, DISTILLED, encoder, teacher, tokenizer

from embodied.core.errors import UsageError
from embodied.objectives.distill import Distill
from embodied.objectives.masked.aim import AIM
from embodied.objectives.masked.beit import BEiT
from embodied.objectives.masked.diffmae import DiffMAE
from embodied.objectives.masked.droppos import DropPos
from embodied.objectives.masked.mae import MAE
from embodied.objectives.masked.maskfeat import MaskFeat
from embodied.objectives.masked.mfm import MFM
from embodied.objectives.masked.ropim import ROPIM
from embodied.objectives.masked.tbm import TBM
from embodied.objectives.masked.tokenunify import TokenUnify
from embodied.objectives.masked.vq import VQ
from embodied.objectives.parts.settings import at_least, block_sizes
from embodied.objectives.self_distillation.densecl import DenseCL
from embodied.objectives.self_distillation.dino import DINO
from embodied.objectives.self_distillation.ibot import IBOT
from embodied.objectives.self_distillation.macrl import MACRL
from embodied.objectives.supervised import Supervised

GIVEN = {
    DINO: DISTILLED,
    IBOT: DISTILLED,
    DenseCL: CONTRAST,
    DropPos: {"mask_ratio": 0.5},
    Supervised: {"classes": 3, "loss": "look"},
}
AREAS = "must be two shares of the image's area, 0 < least <= most <= 1, got"


@pytest.mark.parametrize("area", [(1.0, 0.5), (0.0, 1.0), (0.5, 2.0), (0.5,), 0.5])
@pytest.mark.parametrize("kind", [MAE, ROPIM, Supervised, MACRL])
def test_areas_of_crops(kind, area):
    with pytest.raises(UsageError, match="crop_scale must be two"):
        kind(encoder(), **GIVEN.get(kind, {}), crop_scale=area)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MAE, {"mask_ratio": 0.99}, "mask_ratio 0.99 leaves none of 16 patches: lower it"),
        (MAE, {"decoder_width": 0}, "decoder_width and decoder_heads must be whole numbers of at least 1, got 0 and 4"),
        (
            VQ,
            {"decoder_heads": 0},
            "decoder_width and decoder_heads must be whole numbers of at least 1, got 128 and 0",
        ),
        (VQ, {"commitment": -1.0}, "commitment and restart_below must not be negative, got -1.0"),
        (DiffMAE, {"decoder_depth": -1}, "decoder_depth must be a whole number of at least 0, got -1"),
        (DiffMAE, {"mask_ratio": 0.99}, "mask_ratio 0.99 leaves none of 16 patches"),
        (TBM, {"mask_ratio": 0.99}, "mask_ratio 0.99 leaves none of 16 patches"),
        (MACRL, {"mask_ratios": (0.99, 0.5)}, "mask_ratios 0.99 leaves none of 16 patches"),
        (MACRL, {"mask_ratios": (0.5,)}, r"mask_ratios must be two numbers, got \(0.5,\)"),
        (MaskFeat, {"mask_ratio": 0.01}, "mask_ratio 0.01 hides none of 16 patches: raise it"),
        (MaskFeat, {"min_block": 100}, "min_block must be from 1 to the 6 patches that are hidden, got 100"),
        (MaskFeat, {"floor": 0.0}, "floor must be positive, got 0.0"),
        (MFM, {"reduction": "imag"}, "unknown reduction 'imag': did you mean image"),
        (DropPos, {"guide_temperature": 0.0}, "guide_temperature positive, got 1.0 and 0.0"),
        (DINO, {"student_temperature": 0.0}, "student_temperature and teacher_temperatures must be positive"),
        (DINO, {"teacher_temperatures": (0.04,)}, "teacher_temperatures must be two numbers"),
        (DINO, {"prototypes": 1}, "prototypes must be a whole number of at least 2, got 1"),
        (DINO, {"local_scale": (0.4, 0.1)}, f"local_scale {AREAS}"),
        (IBOT, {"mask_ratio": (0.5, 0.1)}, r"mask_ratio an interval in \(0, 1\)"),
        (IBOT, {"patch_weight": -1.0}, "patch_weight positive"),
        (DenseCL, {"outputs": 0}, "hidden and outputs must be whole numbers of at least 1, got 32 and 0"),
        (DenseCL, {"global_scale": (1.0, 0.4)}, f"global_scale {AREAS}"),
        (Supervised, {"hidden": 0}, "hidden and outputs must be whole numbers of at least 1"),
    ],
)
def test_wrong_settings(kind, options, message):
    with pytest.raises(UsageError, match=message):
        kind(encoder(), **{**GIVEN.get(kind, {}), **options})


def test_wrong_settings_of_methods_with_other_needs():
    with pytest.raises(UsageError, match="head_width must be a whole number of at least 1, got 0"):
        AIM(encoder(class_tokens=0), head_width=0)
    with pytest.raises(UsageError, match=r"mask_ratio 0\.99 leaves none of 16 patches"):
        TokenUnify(encoder(class_tokens=0), mask_ratio=0.99)
    with pytest.raises(UsageError, match="hidden must be a whole number of at least 1, got 0"):
        Distill(encoder(), teacher=teacher(), hidden=0)
    with pytest.raises(UsageError, match="min_block must be from 1 to the 6 patches"):
        BEiT(encoder(), tokenizer=tokenizer(), min_block=0)


def test_blocks_are_no_larger_than_what_is_hidden():
    assert block_sizes(0.4, None, patches=196, reference=15) == (78, 15)
    assert block_sizes(0.05, None, patches=196, reference=15) == (9, 9)
    assert at_least(1, one=1, two=2) is None
