"""Writes lightly.safetensors with lightly 1.6 (pip install lightly timm, beside torchvision), which nothing else needs.

Losses of one process, masks and targets, each with its inputs: what DINO, iBOT, KoLeo, Sinkhorn, InfoNCE, DenseCL's
matches, Pixio's squares, AIM's prefix attention and MAE's normalised patches are held to.
"""

from pathlib import Path

import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.loss.ibot_loss import IBOTPatchLoss
from lightly.loss.koleo_loss import KoLeoLoss
from lightly.loss.ntx_ent_loss import NTXentLoss
from lightly.loss.swav_loss import sinkhorn
from lightly.models import utils
from lightly.models.modules.masked_causal_vision_transformer import MaskedCausalAttention
from safetensors.torch import save_file

CLASSES, STUDENT, TEACHER = 8, 0.1, 0.07


def self_distillation():
    """Two steps of DINO's loss, so that the second has a centre; iBOT's with an image that has nothing hidden."""
    student, teacher = torch.randn(2, 5, 3, CLASSES), torch.randn(2, 2, 3, CLASSES)  # (steps, views, images, classes)
    dino = DINOLoss(output_dim=CLASSES, teacher_temp=TEACHER, student_temp=STUDENT)
    losses = torch.stack([dino(list(teacher[step]), list(student[step])) for step in range(2)])
    mask = torch.rand(4, 3, 5) < 0.4
    mask[2] = False
    hidden = int(mask.sum())
    student_patches, teacher_patches = torch.randn(hidden, CLASSES), torch.randn(hidden, CLASSES)
    ibot = IBOTPatchLoss(output_dim=CLASSES, teacher_temp=TEACHER, student_temp=STUDENT)
    features, outputs = torch.randn(16, 6), torch.randn(12, 6)
    return {
        **{"dino_student": student, "dino_teacher": teacher, "dino_losses": losses, "dino_centre": dino.center[0, 0]},
        **{"ibot_mask": mask.flatten(1), "ibot_student": student_patches, "ibot_teacher": teacher_patches},
        "ibot_loss": ibot(teacher_patches, student_patches, mask),
        **{"koleo_features": features, "koleo_loss": KoLeoLoss()(features)},
        **{"sinkhorn_outputs": outputs, "sinkhorn_shares": sinkhorn(outputs, iterations=3, epsilon=TEACHER)},
    }


def contrast():
    queries, keys = torch.randn(5, 8), torch.randn(5, 8)
    loss = NTXentLoss(temperature=0.2, memory_bank_size=(11, 8))
    tokens, others, values = torch.randn(2, 6, 5), torch.randn(2, 6, 5), torch.randn(2, 6, 3)
    return {
        **{"contrast_queries": queries, "contrast_keys": keys, "contrast_loss": loss(queries, keys)},
        "contrast_negatives": loss.memory_bank.bank.clone(),
        **{"match_tokens": tokens, "match_others": others, "match_values": values},
        "match_found": utils.select_most_similar(tokens, others, values),
    }


def masks():
    torch.manual_seed(1)
    kept, hidden = utils.random_grid_token_mask((3, 64), mask_ratio=0.75, grid_size=2, num_prefix_tokens=0)
    torch.manual_seed(1)
    noise = torch.rand(3, 16)  # what it drew
    lengths = torch.tensor([1, 4, 6])
    beyond = torch.arange(7) >= lengths[:, None]
    return {
        **{"squares_noise": noise, "squares_kept": kept, "squares_hidden": hidden},
        **{"prefix_lengths": lengths},
        "prefix_seen": MaskedCausalAttention._get_attention_mask(None, torch.zeros(3, 7, 1), beyond),
    }


def main():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 12, 12)
    patches = utils.normalize_mean_var(utils.patchify(images, 4))
    tensors = {**self_distillation(), **contrast(), **masks(), "images": images, "patches": patches}
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        Path(__file__).with_name("lightly.safetensors"),
    )


if __name__ == "__main__":
    main()
