"""Controllers on frozen features beside the usual ways, both sides in one run; prints times and ratios.

python benchmarks/controllers.py                  # cloning, chunks, PPO, memory of the rollout buffer: five minutes
python benchmarks/controllers.py cloning          # or chunks, or ppo

Cloning: an epoch from the feature cache, and one that encodes every frame of every step, as robomimic and LeRobot do.
Chunks: episodes of policies that execute several actions of a plan; frames that no plan will see are not rendered.
PPO: features stored in the rollout buffer, and frames stored with the frozen encoder in stable-baselines3's features
extractor; the same environments, encoder, network, hyper-parameters and seeds. One iteration each, after a warm-up.
"""

from __future__ import annotations

import sys
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
import torch
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from embodied.core.files import write_json
from embodied.core.protocols import INPUTS, STATE, image_key
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.encoders.load import load_encoder
from embodied.envs.vector import make_vector_env, reset_slots
from embodied.policies.bc import BCPolicy
from embodied.policies.rl.frozen_features import FrozenFeatures
from embodied.policies.rl.networks import ProjectedFeatures
from embodied.policies.rl.ppo import PPOAgent
from embodied.policies.rl.vec_env import SlotVecEnv
from embodied.training.evaluate import evaluate

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CAMERA, SIDE = "corner4", 128
FRAMES, EPISODE, BATCH = 1024, 128, 256  # of the cloning side
ENVS, ROLLOUT, EPOCHS = 8, 32, 10  # of the PPO side
ENV = {"suite": "metaworld", "task": "hammer-v3", "camera": CAMERA, "image_size": SIDE}


class EncoderInside(BaseFeaturesExtractor):
    """The usual way: the buffer holds frames, every update encodes them again (frozen, so without a backward pass)."""

    def __init__(self, observation_space: gymnasium.spaces.Dict, *, encoder: torch.nn.Module, **arguments: Any) -> None:
        dims = arguments["feature_dim"] + observation_space[STATE].shape[0]
        inner = ProjectedFeatures(gymnasium.spaces.Box(-np.inf, np.inf, (dims,), np.float32), **arguments)
        super().__init__(observation_space, features_dim=inner.features_dim)
        self.inner, self._encoder = inner, [encoder]  # in a list: its weights are no parameters of the agent

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        (encoder,) = self._encoder
        with torch.no_grad():
            # stable-baselines3 hands images over as floats in [0, 1].
            frames = (observations["frames"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            _, out = encoder(encoder.preprocess(frames))
        return self.inner(torch.cat([out["pooled"], observations[STATE]], dim=1))


class Frames(VecEnvWrapper):
    """Frames channels first, and proprioception."""

    def __init__(self, environments: VecEnv) -> None:
        spaces: Any = environments.observation_space
        frames = gymnasium.spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8)
        space = gymnasium.spaces.Dict({"frames": frames, STATE: spaces[STATE]})
        super().__init__(environments, observation_space=space)

    def reset(self) -> dict[str, np.ndarray]:
        return self._shown(self.venv.reset())

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self._shown(info["terminal_observation"])
        return self._shown(observations), rewards, dones, infos

    @staticmethod
    def _shown(observation: Any) -> dict[str, np.ndarray]:
        frames = np.ascontiguousarray(np.moveaxis(observation[image_key(CAMERA)], -1, -3))
        return {"frames": frames, STATE: observation[STATE].copy()}


def cloning() -> dict[str, float]:
    """Seconds per epoch over the same frames, encoder and head; encoding once is told by itself."""
    encoder = load_encoder("default").to(DEVICE)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    arrays = {
        "state": rng.normal(size=(FRAMES, 4)).astype(np.float32),
        "action": rng.uniform(-1, 1, (FRAMES, 4)).astype(np.float32),
        "lengths": [EPISODE] * (FRAMES // EPISODE),
        "history": 1,
    }
    settings = {"camera": CAMERA, "proprioception_dim": 4, "action_dim": 4, "feature_shape": (encoder.width,)}
    policy = BCPolicy(encoder, **settings).to(DEVICE)
    start = perf_counter()
    with torch.inference_mode():
        parts = [policy.encode(part.to(DEVICE)).cpu() for part in torch.from_numpy(frames).split(64)]
    features = torch.cat(parts).numpy()
    once = perf_counter() - start
    cached, raw = Demonstrations(features, **arrays), Demonstrations(frames, **arrays)
    optimizer = torch.optim.Adam(policy.controller.parameters(), lr=1e-3)

    def epoch(data: Demonstrations, *, encodes: bool) -> float:
        started = perf_counter()
        for indices in rng.permutation(FRAMES).reshape(-1, BATCH):
            batch = {name: tensor.to(DEVICE) for name, tensor in data.batch(indices).items()}
            if encodes:
                with torch.no_grad():
                    batch["features"] = policy.encode(batch[INPUTS].flatten(0, 1))[:, None]
            loss, _ = policy.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return perf_counter() - started

    epoch(cached, encodes=False)  # warm-up
    fast = float(np.median([epoch(cached, encodes=False) for _ in range(5)]))
    slow = epoch(raw, encodes=True)
    return {
        "cloning: encode once, s": once,
        "cloning: epoch from the cache, s": fast,
        "cloning: epoch encoding each step, s": slow,
        "cloning: ratio": slow / fast,
    }


def chunks() -> dict[str, float]:
    """Seconds per episode of policies that execute chunks, untrained; the same outcomes are asserted."""
    encoder = load_encoder("default").to(DEVICE)
    sizes = yaml.safe_load((files("embodied.conf") / "policy" / "bc.yaml").read_text())["head_sizes"]
    found: dict[str, float] = {}
    for head in ("flow", "diffusion"):
        policy = BCPolicy(
            encoder,
            camera=CAMERA,
            proprioception_dim=4,
            action_dim=4,
            feature_shape=(encoder.width,),
            head=head,
            head_options=sizes[head],
            action_space={"low": [-1.0] * 4, "high": [1.0] * 4},
        )
        policy.to(DEVICE).eval()
        with closing(make_vector_env({**ENV, "render": "lean+", "horizon": 100}, num_envs=2, workers=0)) as environment:
            sides = {"looks": environment, "always": AlwaysLooking(environment)}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(4):  # the first of each is a warm-up
                outcomes = []
                for name, side in sides.items():
                    started = perf_counter()
                    seeds = [2 * number, 2 * number + 1]
                    run = evaluate(policy, side, reset_slots, seeds, device=DEVICE, reporter=SilentReporter())
                    outcomes.append(run)
                    seconds[name].append((perf_counter() - started) / len(seeds))
                assert outcomes[0] == outcomes[1], outcomes
        sparing, usual = (float(np.median(seconds[name][1:])) for name in sides)
        found |= {
            f"chunks, {head}: rendering what is looked at, s": sparing,
            f"chunks, {head}: rendering every step, s": usual,
            f"chunks, {head}: ratio": usual / sparing,
        }
    return found


class AlwaysLooking:
    """The same environment without a way to say that nobody looks."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.num_envs, self.single_action_space = environment.num_envs, environment.single_action_space

    def reset(self, **arguments: Any) -> Any:
        self._environment.look(np.ones(self.num_envs, np.bool_))
        return self._environment.reset(**arguments)

    def step(self, actions: np.ndarray) -> Any:
        return self._environment.step(actions)


def ppo() -> dict[str, float]:
    """Environment steps per second of one iteration of PPO, rollout and updates, and bytes of the rollout buffer."""
    encoder = load_encoder("default").to(DEVICE)
    agent = PPOAgent(rollout_steps=ROLLOUT, epochs=EPOCHS)
    network = {**agent.network(feature_dim=encoder.width, normalise=True), "share_features_extractor": True}
    rates, sizes = {}, {}
    for side in ("features", "frames"):
        with closing(make_vector_env({**ENV, "images": True}, num_envs=ENVS, autoreset="same_step")) as simulators:
            slots = SlotVecEnv(simulators, seed=0)
            if side == "features":
                observed = FrozenFeatures(slots, encoder, camera=CAMERA, device=DEVICE)
                algorithm = agent.build(observed, network=network, total_steps=10**6, seed=0, device=DEVICE)
            else:
                algorithm = encoder_inside(agent, Frames(slots), network, encoder)
            algorithm.learn(ENVS * ROLLOUT)  # warm-up
            start = perf_counter()
            algorithm.learn(ENVS * ROLLOUT, reset_num_timesteps=False)
            rates[side] = ENVS * ROLLOUT / (perf_counter() - start)
            stored = algorithm.rollout_buffer.observations
            arrays = list(stored.values()) if isinstance(stored, dict) else [stored]
            sizes[side] = sum(array.nbytes for array in arrays)
    return {
        "ppo: steps/s on features": rates["features"],
        "ppo: steps/s with the encoder inside": rates["frames"],
        "ppo: ratio": rates["features"] / rates["frames"],
        "ppo: observations in the buffer, MB, features": sizes["features"] / 1e6,
        "ppo: observations in the buffer, MB, frames": sizes["frames"] / 1e6,
        "ppo: memory ratio": sizes["frames"] / sizes["features"],
    }


def encoder_inside(agent: PPOAgent, environments: VecEnv, network: dict[str, Any], encoder: torch.nn.Module) -> PPO:
    """Stable-baselines3's PPO on frames with the agent's hyper-parameters."""
    extractor = {**network["features_extractor_kwargs"], "encoder": encoder}
    arguments = {**network, "features_extractor_class": EncoderInside, "features_extractor_kwargs": extractor}
    return PPO(
        "MultiInputPolicy",
        environments,
        learning_rate=agent.learning_rate,
        n_steps=agent.rollout_steps,
        batch_size=ENVS * ROLLOUT // agent.minibatches,
        n_epochs=agent.epochs,
        gamma=agent.discount,
        gae_lambda=agent.gae_lambda,
        clip_range=agent.clip,
        clip_range_vf=agent.value_clip,
        ent_coef=agent.entropy,
        vf_coef=agent.value_weight,
        max_grad_norm=agent.max_gradient,
        policy_kwargs=arguments,
        seed=0,
        device=DEVICE,
    )


def main() -> None:
    parts = {"cloning": cloning, "chunks": chunks, "ppo": ppo}
    found: dict[str, Any] = {"device": str(DEVICE), "threads": torch.get_num_threads()}
    for name in sys.argv[1:] or parts:
        measured = parts[name]()
        for what, value in measured.items():
            print(f"{what:<48}{value:>12.4g}", flush=True)
        found |= measured
    write_json(Path(__file__).parent.parent / "docs" / "results" / "controllers.json", found)


if __name__ == "__main__":
    main()
