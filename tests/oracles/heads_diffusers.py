"""Reverse processes as `diffusers` runs them: tests/policies/fixtures/heads_diffusers.npz.

    python -m venv oracle && oracle/bin/pip install torch==2.9.1 diffusers==0.35.2
    oracle/bin/python tests/oracles/heads_diffusers.py tests/policies/fixtures

The network is a formula, see `network`; noise comes from `heads_numbers`, put in the place of diffusers' generator.
"""

from __future__ import annotations

import sys

import diffusers.schedulers.scheduling_ddpm as ddpm_module
import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import EMAModel
from heads_numbers import save, tensor

SHAPE = (2, 4, 2)  # batch, chunk, action
CASES = {  # sampler, steps, prediction
    "ddpm_100_epsilon": ("ddpm", 100, "epsilon"),
    "ddpm_10_sample": ("ddpm", 10, "sample"),
    "ddim_10_epsilon": ("ddim", 10, "epsilon"),
    "ddim_7_sample": ("ddim", 7, "sample"),
}


def network(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.tanh(1.3 * x.flip(-1) + 0.01 * t - 0.2)


def trajectory(sampler: str, steps: int, prediction: str) -> np.ndarray:
    kind = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
    scheduler = kind(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True, prediction_type=prediction
    )
    scheduler.set_timesteps(steps)
    noise = iter(tensor("noise", steps, *SHAPE))
    ddpm_module.randn_tensor = lambda *_, **__: next(noise)
    x = next(noise)
    states = [x]
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, int(t)), t, x).prev_sample
        states.append(x)
    return torch.stack(states).numpy()


def main(folder: str) -> None:
    golden = {name: trajectory(*case) for name, case in CASES.items()}
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    golden["alpha_bars"] = scheduler.alphas_cumprod.numpy()
    actions, noise = tensor("actions", 4, 4, 2), tensor("added", 4, 4, 2)
    golden["noisy"] = scheduler.add_noise(actions, noise, torch.tensor([0, 13, 57, 99])).numpy()
    ema = EMAModel(torch.nn.Linear(1, 1).parameters(), use_ema_warmup=True, inv_gamma=1.0, power=0.75, decay=0.9999)
    golden["ema_updates"] = np.array([0, 1, 2, 3, 10, 1000, 300_000])
    golden["ema_decays"] = np.array([ema.get_decay(int(step)) for step in golden["ema_updates"]])
    save(f"{folder}/heads_diffusers.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
