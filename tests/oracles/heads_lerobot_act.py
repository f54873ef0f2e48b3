"""What lerobot's ACT and its temporal ensemble compute: tests/policies/fixtures/heads_lerobot_act.npz.

    python -m venv oracle
    oracle/bin/pip install torch==2.9.1 torchvision==0.24.1 'lerobot==0.4.4' diffusers==0.35.2
    oracle/bin/python tests/oracles/heads_lerobot_act.py tests/policies/fixtures

Weights and inputs come from `heads_numbers`: a tensor of lerobot's gets the numbers of the tensor of ours that it
corresponds to. What it draws at random is given.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from heads_numbers import drawing, fill, renamed, save, tensor, weight
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACT, ACTPolicy, ACTTemporalEnsembler

PAD = torch.tensor([[False] * 8, [False] * 5 + [True] * 3])
LAYER = {"self_attn": "attention", "multihead_attn": "cross", "linear1": "mlp.0", "linear2": "mlp.3"}
NAMES = [
    (r"^vae_encoder_cls_embed\.weight", "vae_class"),
    (r"^vae_encoder_robot_state_input_proj\.", "vae_condition."),
    (r"^vae_encoder_action_input_proj\.", "vae_actions."),
    (r"^vae_encoder_latent_output_proj\.", "vae_latent."),
    (r"^encoder_(robot|env)_state_input_proj\.", "moments."),
    (r"^encoder_latent_input_proj\.", "latent."),
    (r"^encoder_1d_feature_pos_embed\.weight", "memory_positions"),
    (r"^decoder_pos_embed\.weight", "queries"),
    (r"^action_head\.", "last."),
    (r"^vae_encoder\.layers\.", "vae_layers."),
    (r"^(encoder|decoder)\.layers\.", r"\1."),
    (r"^decoder\.norm\.", "norm."),
    *((rf"\.{theirs}\.", f".{ours}.") for theirs, ours in LAYER.items()),
]


def feature(kind: FeatureType, size: int) -> PolicyFeature:
    return PolicyFeature(type=kind, shape=(size,))


CONFIG = ACTConfig(
    input_features={
        "observation.state": feature(FeatureType.STATE, 3),
        "observation.environment_state": feature(FeatureType.ENV, 3),
    },
    output_features={"action": feature(FeatureType.ACTION, 2)},
    chunk_size=8,
    n_action_steps=8,
    dim_model=16,
    n_heads=2,
    dim_feedforward=24,
    n_encoder_layers=2,
    n_vae_encoder_layers=2,
    latent_dim=4,
    dropout=0.0,
    device="cpu",
)


def act(golden: dict[str, Any]) -> None:
    model = ACT(CONFIG).train()
    fill(dict(model.named_parameters()), renamed(model, NAMES))
    with torch.no_grad():
        model.vae_encoder_cls_embed.weight.copy_(torch.from_numpy(weight("vae_class", (1, 1, 16))[0]))
        model.decoder_pos_embed.weight.copy_(torch.from_numpy(weight("queries", (1, 8, 16))[0]))
        # Ours: latent, then the moments with the present one last; theirs: latent, state (the present), env.
        positions = torch.from_numpy(weight("memory_positions", (1, 3, 16))[0])
        model.encoder_1d_feature_pos_embed.weight.copy_(positions[[0, 2, 1]])
    moments = tensor("act features", 2, 2, 3)
    batch = {
        "observation.environment_state": moments[:, 0],
        "observation.state": moments[:, 1],
        "action": tensor("act action", 2, 8, 2),
        "action_is_pad": PAD,
    }
    noise = tensor("act noise", 2, 4)
    policy = SimpleNamespace(config=SimpleNamespace(image_features=None, use_vae=True, kl_weight=10.0), model=model)
    with torch.no_grad():
        with drawing(randn_like=noise):
            golden["act_train_chunk"], (golden["act_mean"], golden["act_log_variance"]) = model(batch)
            loss, metrics = ACTPolicy.forward(policy, batch)
        golden["act_loss_over_all"] = loss
        golden["act_l1_over_all"], golden["act_kl"] = metrics["l1_loss"], metrics["kld_loss"]
        golden["act_test_chunk"] = model.eval()(batch)[0]
    ensembler, chunks = ACTTemporalEnsembler(0.01, 5), tensor("ensemble chunks", 12, 2, 5, 3)
    golden["ensembled"] = torch.stack([ensembler.update(chunk) for chunk in chunks])


def main(folder: str) -> None:
    golden: dict[str, Any] = {}
    act(golden)
    save(f"{folder}/heads_lerobot_act.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
