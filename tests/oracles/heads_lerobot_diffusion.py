"""What lerobot's diffusion policy, SmolVLA's flow and its spatial softmax compute.

Writes tests/policies/fixtures/heads_lerobot_diffusion.npz:

    python -m venv oracle
    oracle/bin/pip install torch==2.9.1 torchvision==0.24.1 'lerobot[smolvla]==0.4.4' diffusers==0.35.2
    oracle/bin/python tests/oracles/heads_lerobot_diffusion.py tests/policies/fixtures

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
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel, SpatialSoftmax
from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching, create_sinusoidal_pos_embedding

PAD = torch.tensor([[False] * 8, [False] * 5 + [True] * 3])
UNET = [
    (r"^diffusion_step_encoder\.", "time."),
    (r"^down_modules\.", "down."),
    (r"^up_modules\.", "up."),
    (r"^mid_modules\.", "middle.0."),
    (r"^(down|up)\.(\d)\.0\.", r"\1.\2.first."),
    (r"^(down|up)\.(\d)\.1\.", r"\1.\2.second."),
    (r"^(down|up)\.(\d)\.2\.", r"\1.\2.resize."),
    (r"^middle\.0\.0\.", "middle.first."),
    (r"^middle\.0\.1\.", "middle.second."),
    (r"^final_conv\.0\.block\.", "last.0."),
    (r"^final_conv\.1\.", "last.1."),
    (r"conv1\.block\.", "first."),
    (r"conv2\.block\.", "second."),
    (r"cond_encoder\.", "film."),
    (r"residual_conv\.", "residual."),
]


def feature(kind: FeatureType, size: int) -> PolicyFeature:
    return PolicyFeature(type=kind, shape=(size,))


CONFIG = DiffusionConfig(
    input_features={
        "observation.state": feature(FeatureType.STATE, 2),
        "observation.environment_state": feature(FeatureType.ENV, 3),
    },
    output_features={"action": feature(FeatureType.ACTION, 2)},
    n_obs_steps=2,
    horizon=8,
    n_action_steps=4,
    down_dims=(16, 32, 64),
    n_groups=8,
    diffusion_step_embed_dim=16,
    noise_scheduler_type="DDIM",
    num_inference_steps=10,
    do_mask_loss_for_padding=True,
    device="cpu",
)


def diffusion(golden: dict[str, Any]) -> None:
    model = DiffusionModel(CONFIG).eval()
    fill(dict(model.unet.named_parameters()), renamed(model.unet, UNET))
    batch = {
        "observation.state": tensor("diffusion state", 2, 2, 2),
        "observation.environment_state": tensor("diffusion env", 2, 2, 3),
        "action": tensor("diffusion action", 2, 8, 2).clamp(-1, 1),
        "action_is_pad": PAD,
    }
    with torch.no_grad():
        condition = model._prepare_global_conditioning(batch)
        x = tensor("diffusion noise", 2, 8, 2)
        golden["diffusion_output"] = model.unet(x, torch.tensor([3, 80]), global_cond=condition)
        golden["diffusion_sample"] = model.conditional_sample(2, global_cond=condition, noise=x)
        with drawing(randn=x, randint=torch.tensor([3, 80])):
            golden["diffusion_loss_over_all"] = model.compute_loss(batch)


def velocity(x: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    return torch.tanh(1.3 * x.flip(-1) + 0.5 * tau[:, None, None] - 0.2)


def flow(golden: dict[str, Any]) -> None:
    """SmolVLA's sampler and loss around a velocity that is a formula, in place of the language model."""
    prefix = (torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.bool))
    suffix_masks = (torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool))
    expert = SimpleNamespace(forward=lambda inputs_embeds, **_: ((None, inputs_embeds[1]), None))
    model = SimpleNamespace(
        config=SimpleNamespace(num_steps=10, use_cache=False, chunk_size=4, max_action_dim=2),
        embed_prefix=lambda *_, **__: prefix,
        embed_suffix=lambda x, tau: (velocity(x, tau), *suffix_masks),
        vlm_with_expert=expert,
        action_out_proj=lambda outputs: outputs,
        denoise_step=lambda x_t, timestep, **_: velocity(x_t, timestep),
        rtc_processor=None,
        _rtc_enabled=lambda: False,
    )
    noise, actions, tau = tensor("flow noise", 2, 4, 2), tensor("flow action", 2, 4, 2), torch.tensor([0.25, 0.9])
    nothing = (None, None, None, None)
    golden["flow_sample"] = VLAFlowMatching.sample_actions(model, *nothing, torch.zeros(2, 1), noise=noise)
    golden["flow_errors"] = VLAFlowMatching.forward(model, *nothing, None, actions, noise=noise, time=tau)
    golden["flow_embedding"] = create_sinusoidal_pos_embedding(tau, 16, 4e-3, 4.0, tau.device).float()


def keypoints(golden: dict[str, Any]) -> None:
    pool = SpatialSoftmax((5, 4, 6), num_kp=3)
    with torch.no_grad():
        pool.nets.weight.copy_(torch.from_numpy(weight("maps.weight", (3, 5)))[..., None, None])
        pool.nets.bias.copy_(torch.from_numpy(weight("maps.bias", (3,))))
        tokens = tensor("keypoint tokens", 2, 24, 5)
        golden["keypoints"] = pool(tokens.transpose(1, 2).unflatten(2, (4, 6)))


def main(folder: str) -> None:
    golden: dict[str, Any] = {}
    for part in (diffusion, flow, keypoints):
        part(golden)
    save(f"{folder}/heads_lerobot_diffusion.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
