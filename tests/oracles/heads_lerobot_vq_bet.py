"""What the parts of lerobot's VQ-BeT compute: tests/policies/fixtures/heads_lerobot_vq_bet.npz.

    python -m venv oracle
    oracle/bin/pip install torch==2.9.1 torchvision==0.24.1 'lerobot==0.4.4' diffusers==0.35.2
    oracle/bin/python tests/oracles/heads_lerobot_vq_bet.py tests/policies/fixtures

Weights and inputs come from `heads_numbers`: a tensor of lerobot's gets the numbers of the tensor of ours that it
corresponds to.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from heads_numbers import fill, renamed, save, tensor
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTHead
from lerobot.policies.vqbet.vqbet_utils import GPT

HEAD_NAMES = [
    (r"^vqvae_model\.", ""),
    (r"^map_to_cbet_preds_bin\.0", "code_layer"),
    (r"^map_to_cbet_preds_offset\.0", "offset_layer"),
]
GPT_NAMES = [
    (r"^transformer\.wpe\.weight", "positions"),
    (r"^transformer\.h\.", "blocks."),
    (r"^transformer\.ln_f\.", "norm."),
    (r"^lm_head\.", "last."),
    (r"\.ln_", ".norm"),
    (r"\.attn\.c_attn\.", ".qkv."),
    (r"\.attn\.c_proj\.", ".project."),
    (r"^transformer\.wte\.", "wte."),
]
ACTION = PolicyFeature(type=FeatureType.ACTION, shape=(2,))
CONFIG = VQBeTConfig(
    input_features={},
    output_features={"action": ACTION},
    action_chunk_size=4,
    vqvae_n_embed=6,
    vqvae_embedding_dim=8,
    vqvae_enc_hidden_dim=12,
    gpt_block_size=5,
    gpt_input_dim=16,
    gpt_hidden_dim=16,
    gpt_output_dim=16,
    gpt_n_layer=2,
    gpt_n_head=2,
    dropout=0.0,
    offset_loss_weight=100.0,
    bet_softmax_temperature=1e-6,  # the likeliest code, always
    device="cpu",
)


def vq_bet(golden: dict[str, Any]) -> None:
    head = VQBeTHead(CONFIG)
    fill(dict(head.named_parameters()), renamed(head, HEAD_NAMES))
    books = tensor("codebooks", 2, 6, 8)
    for layer, book in zip(head.vqvae_model.vq_layer.layers, books, strict=True):
        layer._codebook.embed.copy_(book[None])
        layer._codebook.embed_avg.copy_(book[None])
        layer._codebook.cluster_size.fill_(1.0)
    actions = tensor("vq actions", 7, 4, 2)
    outputs = tensor("vq outputs", 7, 16)
    head.eval()
    with torch.no_grad():
        predicted = head(outputs[:, None])
        loss = head.loss_fn(predicted, actions[:, None])
        golden["vq_target"] = head.vqvae_model.get_code(actions)[1]
    golden["vq_logits"], golden["vq_codes"] = predicted["cbet_logits"], predicted["sampled_centers"]
    golden["vq_chunk"] = predicted["predicted_action"].reshape(7, 4, 2)
    golden["vq_loss"], golden["vq_offset"] = loss["loss"], loss["offset_loss"]
    head.train()
    loss, (error, commitment, codes, _) = head.vqvae_model.vqvae_forward(actions)
    loss.backward()
    golden["vq_code_loss"], golden["vq_reconstruction"], golden["vq_commitment"] = loss, error, commitment
    golden["vq_train_codes"] = codes
    golden["vq_encoder_gradient"] = head.vqvae_model.encoder[0].weight.grad
    golden["vq_codebooks"] = torch.cat([layer._codebook.embed for layer in head.vqvae_model.vq_layer.layers])


def gpt(golden: dict[str, Any]) -> None:
    model = GPT(CONFIG).eval()
    fill(dict(model.named_parameters()), renamed(model, GPT_NAMES))
    with torch.no_grad():
        model.transformer.wte.weight.copy_(torch.eye(16))  # ours takes tokens that are embedded already
        model.transformer.wte.bias.zero_()
        golden["gpt"] = model(tensor("gpt tokens", 2, 5, 16))


def main(folder: str) -> None:
    golden: dict[str, Any] = {}
    vq_bet(golden)
    gpt(golden)
    save(f"{folder}/heads_lerobot_vq_bet.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
