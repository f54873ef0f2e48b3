"""Trains the rl experts: SAC (Haarnoja et al. 2018, arXiv 1812.05905; stable-baselines3's) on the privileged state.

    python benchmarks/train_experts.py train dmc walker_walk FOLDER       # again: goes on where it stopped
    python benchmarks/train_experts.py publish FOLDER... [--note TEXT]    # actors and their card: envs/experts/assets

For any task of any suite; needs stable-baselines3. `train` writes to FOLDER: checkpoint.pt (every round), log.jsonl,
curve.png, and <suite>/<task>.safetensors, the actor of the round whose selection episodes went best, with its
evaluation on fresh seeds. One thread.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from expert_checkpoint import load_training, save_training
from expert_env import Settings, StateEnv, make_env
from expert_goals import HindsightBuffer
from expert_report import draw_curve, publish, summary
from expert_sac import LeanSAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UserError
from embodied.core.files import write_text
from embodied.envs.experts.rl import ASSETS, TRAIN_COMMAND, RLExpert
from embodied.envs.registry import load_suite

SELECTION_SEEDS, EVALUATION_SEEDS = range(1_000_000, 1_000_010), range(2_000_000, 2_000_050)


def make_model(settings: Settings, env: StateEnv) -> LeanSAC:
    model = LeanSAC(
        "MlpPolicy",
        Monitor(env, info_keywords=("score",)),
        learning_rate=settings.learning_rate,
        gamma=settings.discount,
        batch_size=settings.batch,
        buffer_size=settings.memory,
        learning_starts=settings.learning_starts,
        replay_buffer_class=HindsightBuffer if settings.hindsight else None,
        replay_buffer_kwargs={"env": env, "settings": settings} if settings.hindsight else None,
        train_freq=(1, "episode"),  # a checkpoint between episodes needs no simulator state
        gradient_steps=round(settings.gradient_ratio * env.unwrapped.horizon),
        policy_kwargs={"net_arch": [settings.width] * 2, "optimizer_kwargs": {"fused": True}},
        seed=settings.seed,
        device="cpu",
    )
    model.set_logger(Logger(None, []))  # its own would make a folder in /tmp at every round
    return model


def actor_path(settings: Settings, folder: Path) -> Path:
    return folder / settings.suite / f"{settings.task}.safetensors"


def save_actor(path: Path, model: LeanSAC, env: StateEnv, metadata: dict[str, Any]) -> None:
    """The mean of the policy as float16 weights, for `RLExpert`, whose first layer takes the state as it is."""
    actor = model.actor
    layers = [layer for layer in (*actor.latent_pi, actor.mu) if isinstance(layer, torch.nn.Linear)]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    mean, unit = torch.as_tensor(env.mean), torch.as_tensor(env.unit)
    weights[0] = weights[0] / unit
    biases[0] = biases[0] - (weights[0] * mean).sum(1)
    tensors = {f"{number}.weight": weight.half() for number, weight in enumerate(weights)}
    tensors |= {f"{number}.bias": bias.half() for number, bias in enumerate(biases)}
    save_checkpoint(path, tensors, metadata)


def play(settings: Settings, assets: Path, seeds: range, *, every_action: bool = False) -> dict[str, list[Any]]:
    """Episodes of the actor in `assets`: returns, scores and successes, one per seed."""
    env = make_env(settings, every_action=every_action)
    expert = RLExpert(env.spec_of_task, assets=assets)
    found: dict[str, list[Any]] = {"return": [], "score": [], "success": []}
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        expert.reset(seed)
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, info = env.step(expert.act(observation))
            total, over = total + reward, terminated or truncated
        for name, value in (("return", total), ("score", info["score"]), ("success", info["success"])):
            found[name].append(value)
    env.close()
    return found


def train(settings: Settings, folder: Path) -> None:
    """Train, or go on; ends with the actor's evaluation."""
    torch.set_num_threads(1)
    checkpoint = folder / "checkpoint.pt"
    env = StateEnv(settings)
    model = make_model(settings, env)
    state: dict[str, Any] = {"settings": asdict(settings), "episode": 0, "seconds": 0.0, "best": None, "records": []}
    if checkpoint.is_file():
        state = load_training(checkpoint, model)
        if {**state["settings"], "steps": settings.steps} != asdict(settings):  # more steps than before are welcome
            raise UserError(f"{folder} holds a training with the settings {state['settings']}: take another folder")
        env.episode = state["episode"]
    while model.num_timesteps < settings.steps:
        started, first = perf_counter(), env.episode
        model.learn(min(settings.round_steps, settings.steps - model.num_timesteps), reset_num_timesteps=False)
        state["episode"] = env.episode - 1  # the last one has only been started
        state["seconds"] += perf_counter() - started
        finish_round(settings, folder, model, env, state, episodes=max(1, state["episode"] - first))
        save_training(checkpoint, model, extra={**state, "settings": asdict(settings)})
        write_text(folder / "log.jsonl", "".join(f"{json.dumps(record)}\n" for record in state["records"]))
        draw_curve(state["records"], folder / "curve.png", title=f"{settings.task}: SAC on the privileged state")
    evaluate(settings, folder)


def finish_round(
    settings: Settings, folder: Path, model: LeanSAC, env: StateEnv, state: dict[str, Any], *, episodes: int
) -> None:
    """Play the selection episodes and keep the actor if none was better; of equals, to two digits, the last."""
    save_actor(actor_path(settings, folder / "last"), model, env, {})
    found = play(settings, folder / "last", SELECTION_SEEDS)
    training = [episode["score"] for episode in list(model.ep_info_buffer)[-episodes:]]
    record = {
        "steps": model.num_timesteps,
        "scores": found["score"],
        "returns": found["return"],
        "training_score": float(np.mean(training)),
        "minutes": round(state["seconds"] / 60, 1),
    }
    state["records"].append(record)
    quality = [round(float(np.mean(found["score"])), 2), float(np.mean(found["success"]))]
    if state["best"] is None or quality >= state["best"]:
        state["best"] = quality
        save_actor(actor_path(settings, folder), model, env, {"steps": model.num_timesteps})
    print(f"{model.num_timesteps} steps, {record['minutes']} min: {summary(found)}", flush=True)


def evaluate(settings: Settings, folder: Path) -> None:
    """Play fresh episodes with the best actor and write what came of it, and how it was made, into its file."""
    path = actor_path(settings, folder)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    defaults = {item.name: item.default for item in fields(Settings)}
    options = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in asdict(settings).items()
        if name not in ("suite", "task") and value != defaults[name]
    ]
    tensors, metadata = load_checkpoint(path)
    packages = (load_suite(settings.suite).distribution, "mujoco", "stable-baselines3", "torch")
    metadata |= {
        "settings": asdict(settings),
        "command": " ".join([TRAIN_COMMAND.format(suite=settings.suite, task=settings.task), *options]),
        "minutes": records[-1]["minutes"],
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "evaluation": play(settings, folder, EVALUATION_SEEDS),
        "evaluation_each": play(settings, folder, EVALUATION_SEEDS, every_action=True),
    }
    save_checkpoint(path, tensors, metadata)
    print(f"{summary(metadata['evaluation'])}; each action chosen: {summary(metadata['evaluation_each'])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the rl experts.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("suite")
    training.add_argument("task")
    training.add_argument("folder", type=Path)
    for item in fields(Settings):
        if item.name not in ("suite", "task"):
            kind = str if item.name == "protocol" else float if isinstance(item.default, float) else int
            training.add_argument(f"--{item.name.replace('_', '-')}", type=kind, default=item.default)
    publishing = commands.add_parser("publish")
    publishing.add_argument("folders", type=Path, nargs="*")
    publishing.add_argument("--assets", type=Path, default=ASSETS)
    publishing.add_argument("--note", default="", help="for the card")
    arguments = vars(parser.parse_args())
    if arguments.pop("command") == "publish":
        publish(**arguments)
    else:
        train(folder=arguments.pop("folder"), settings=Settings(**arguments))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
