"""The released transformer of Diffusion Policy on the weights of ours: fixtures/heads_diffusion_policy.npz.

    git clone https://github.com/real-stanford/diffusion_policy && git -C diffusion_policy checkout 5ba07ac
    PYTHONPATH=diffusion_policy python tests/oracles/heads_diffusion_policy.py tests/policies/fixtures

Any Python with torch will do.
"""

from __future__ import annotations

import sys

import torch
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from heads_numbers import fill, renamed, save, tensor

RULES = [
    (r"^input_emb\.", "actions."),
    (r"^cond_obs_emb\.", "moments."),
    (r"^pos_emb$", "action_positions"),
    (r"^cond_pos_emb$", "memory_positions"),
    (r"^encoder\.", "memory."),
    (r"^ln_f\.", "norm."),
    (r"^head\.", "last."),
]


def main(folder: str) -> None:
    golden = {}
    x, features = tensor("dp noisy", 2, 6, 2), tensor("dp features", 2, 3, 5)
    for causal in (False, True):
        model = TransformerForDiffusion(
            input_dim=2,
            output_dim=2,
            horizon=6,
            n_obs_steps=3,
            cond_dim=5,
            n_layer=2,
            n_head=2,
            n_emb=16,
            causal_attn=causal,
        ).eval()
        del model._dummy_variable  # a parameter of nothing
        fill(dict(model.named_parameters()), renamed(model, RULES))
        with torch.no_grad():
            golden[f"causal_{causal}"] = model(x, torch.tensor([3, 80]), features)
    save(f"{folder}/heads_diffusion_policy.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
