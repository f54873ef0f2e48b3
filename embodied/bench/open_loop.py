"""How near a policy comes to recorded actions: what it would have executed, along episodes it was not trained on.

Nothing moves: whatever the policy answers, the next observation is the recorded one. So errors here do not add up as
they do on a robot, and a small error is no success rate: it tells bad policies from possible ones.

Legend: N episodes side by side, F frames of an episode, A action, E actions executed before the next plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from embodied.bench.cloning import encode
from embodied.bench.experiment import Experiment
from embodied.bench.imitation_data import read_episodes
from embodied.bench.plots import plot_actions
from embodied.core.protocols import ACTION, FEATURES, STATE, Reporter
from embodied.core.run_folder import RunFolder
from embodied.datasets.loading.picked_rows import PickedRows
from embodied.policies.action_space import CONSTANT
from embodied.policies.artifact import load_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.chunk_execution import episode_keys
from embodied.policies.planning import act_on
from embodied.training.checkpoints import checkpoint_path, checkpoint_steps

OPEN_LOOP_PLOT = "plots/open_loop.png"
SIDE_BY_SIDE = 16  # episodes in a batch: bounds memory
MEAN, LAST, HOLD = "mean action", "last action again", "present state held"


class _SeesFeatures:
    """A policy whose frames went through its encoder already, which `act_on` takes for the policy itself."""

    def __init__(self, policy: BCPolicy) -> None:
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def see(self, observation: Mapping[str, Tensor]) -> Tensor:
        """As `BCPolicy.see`."""
        return observation[FEATURES]

    def noise_keys(self, observation: Mapping[str, Tensor]) -> Tensor:
        """As `BCPolicy.noise_keys`, from features in place of frames."""
        return episode_keys(*(observation[name] for name in (FEATURES, STATE) if name in observation))


@dataclass(frozen=True)
class HeldOut:
    """An episode that nothing was trained on.

    Attributes:
        number: in its store.
        observed: by name rows [F, ...], of several cameras' features several, which belong side by side.
        action: what was done, float32 [F, A].
        task: the instruction.
    """

    number: int
    observed: Mapping[str, Sequence[np.ndarray | PickedRows]]
    action: np.ndarray
    task: str


def open_loop_plot(experiment: Experiment) -> str:
    """Where the plot of one episode lies in the run folder."""
    name = experiment.embodiment
    return OPEN_LOOP_PLOT if name is None else f"plots/open_loop_{name}.png"


def held_out_episodes(experiment: Experiment, reporter: Reporter) -> list[HeldOut]:
    """The episodes that the experiment is judged on; of frames the cached features where the encoder is frozen."""
    assert experiment.recorded is not None
    store, numbers = experiment.episode_store, experiment.recorded.held_out
    parts = encode(experiment, reporter, numbers) if experiment.looks else []
    infos, start, found = store.episodes, 0, []
    state_too = STATE in store.keys
    for number in numbers:
        stop = start + infos[number].length
        rows = np.arange(start, stop)
        observed: dict[str, Sequence[np.ndarray | PickedRows]] = {}
        if parts and experiment.trainable:
            pairs = zip(experiment.input_keys, parts, strict=True)
            observed = {key: [PickedRows(part, rows)] for key, part in pairs}
        elif parts:
            observed = {FEATURES: [PickedRows(part, rows) for part in parts]}
        else:
            observed = {key: [read_episodes(store, key, [number])] for key in experiment.input_keys}
        if state_too:
            observed[STATE] = [read_episodes(store, STATE, [number])]
        found.append(HeldOut(number, observed, read_episodes(store, ACTION, [number]), infos[number].task))
        start = stop
    return found


@torch.inference_mode()
def replay(policy: BCPolicy, episodes: Sequence[HeldOut], *, device: torch.device) -> list[np.ndarray]:
    """What the policy would have executed at every frame of each episode, float32 [F, A], within its bounds."""
    acting = cast(BCPolicy, _SeesFeatures(policy)) if FEATURES in episodes[0].observed else policy
    carry = policy.initial(len(episodes), instructions=[episode.task for episode in episodes])
    executed = []
    for step in range(max(len(episode.action) for episode in episodes)):
        observation = {
            name: torch.from_numpy(np.concatenate([_moment(each, name, step) for each in episodes])).to(device)
            for name in episodes[0].observed
        }
        carry, plan = act_on(acting, carry, observation)
        executed.append(policy.executed(plan[:, 0]).float().cpu().numpy())
    return [np.stack(executed)[: len(each.action), row] for row, each in enumerate(episodes)]


def _moment(episode: HeldOut, name: str, step: int) -> np.ndarray:
    """What was observed, [1, ...]; when the episode is over, what was last."""
    row = np.array([min(step, len(episode.action) - 1)])
    return np.concatenate([rows[row] for rows in episode.observed[name]], axis=-1)


def replay_all(path: Path, experiment: Experiment, episodes: Sequence[HeldOut]) -> list[np.ndarray]:
    """`replay` of a policy file, a few episodes at a time."""
    policy, _ = load_policy(
        path, device=experiment.device, load=experiment.session.encoder, embodiment=experiment.embodiment
    )
    batches = (episodes[start : start + SIDE_BY_SIDE] for start in range(0, len(episodes), SIDE_BY_SIDE))
    return [each for batch in batches for each in replay(cast(BCPolicy, policy), batch, device=experiment.device)]


def trivial(experiment: Experiment, episodes: Sequence[HeldOut], mean: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What predictors that learn nothing say at every frame, by their name, float32 [F, A] each.

    They look when the policy does: with E actions executed per plan, at every E-th frame.

    Args:
        mean: of the actions that were trained on, [A].
    """
    made = experiment.assembly
    every = 1 if made.recurrent or made.ensemble is not None else made.execute
    found: dict[str, list[np.ndarray]] = {
        name: [] for name in (MEAN, LAST, *([HOLD] if acts_on_state(experiment) else []))
    }
    for episode in episodes:
        looked = np.arange(len(episode.action)) // every * every
        found[MEAN].append(np.broadcast_to(mean, episode.action.shape))
        found[LAST].append(np.where(looked[:, None] > 0, episode.action[np.maximum(looked - 1, 0)], mean))
        if HOLD in found:
            found[HOLD].append(episode.observed[STATE][0][looked])
    return found


def acts_on_state(experiment: Experiment) -> bool:
    """Whether actions are targets of the state: as many values, by the same names where both have some."""
    keys = experiment.episode_store.keys
    if STATE not in keys or keys[STATE].shape != keys[ACTION].shape:
        return False
    names = keys[STATE].names, keys[ACTION].names
    return not all(names) or names[0] == names[1]


def turning(experiment: Experiment) -> Sequence[int]:
    """Numbers of the actions that are radians of joints without an end."""
    return (experiment.policy.get("action_frame") or {}).get("turning", ())


def errors(
    predicted: Sequence[np.ndarray],
    episodes: Sequence[HeldOut],
    deviation: np.ndarray,
    *,
    turning: Sequence[int] = (),
) -> dict[str, Any]:
    """Mean absolute errors over all frames, JSON-able.

    Args:
        predicted: per episode [F, A].
        deviation: standard deviation of the actions that were trained on, [A].
        turning: numbers of the actions that are radians without an end, where the shorter way round counts.

    Returns:
        `by_axis` [A], in the actions' own units; `overall`: their mean; `in_deviations`: the same with each axis
        divided by its deviation, over axes that move; `by_episode`: `in_deviations` of each.
    """
    apart = [np.abs(ours - each.action) for ours, each in zip(predicted, episodes, strict=True)]
    for each in apart:
        each[:, list(turning)] = np.abs(np.remainder(each[:, list(turning)] + np.pi, 2 * np.pi) - np.pi)
    by_axis = np.concatenate(apart).mean(axis=0, dtype=np.float64)
    return {
        "overall": float(by_axis.mean()),
        "in_deviations": _in_deviations(by_axis, deviation),
        "by_axis": by_axis.tolist(),
        "by_episode": [_in_deviations(each.mean(axis=0, dtype=np.float64), deviation) for each in apart],
    }


def _in_deviations(by_axis: np.ndarray, deviation: np.ndarray) -> float:
    moving = deviation > CONSTANT
    if not moving.any():
        moving, deviation = np.ones_like(moving), np.ones_like(deviation)
    return float((by_axis[moving] / deviation[moving]).mean())


def action_statistics(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the actions that were trained on, [A] each."""
    action = read_episodes(experiment.episode_store, ACTION, experiment.trained_episodes)
    return action.mean(axis=0, dtype=np.float64).astype(np.float32), action.std(axis=0, dtype=np.float64)


def select_open_loop(experiment: Experiment, run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Errors of every checkpoint, and the best of them, the later of equals."""
    episodes = held_out_episodes(experiment, reporter)
    _, deviation = action_statistics(experiment)
    steps = checkpoint_steps(experiment.training.steps, experiment.training.checkpoints)
    tried = []
    for step in reporter.track(steps, total=len(steps), description="select"):
        predicted = replay_all(checkpoint_path(run.checkpoints, step), experiment, episodes)
        found = errors(predicted, episodes, deviation, turning=turning(experiment))
        tried.append({"step": step, **{name: found[name] for name in ("overall", "in_deviations", "by_axis")}})
    best = min(reversed(tried), key=lambda row: row["in_deviations"])
    return {**best, "episodes": [each.number for each in episodes], "checkpoints": tried}


def evaluate_open_loop(experiment: Experiment, run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Errors of the final policy and of trivial predictors, with a plot of one episode."""
    episodes = held_out_episodes(experiment, reporter)
    mean, deviation = action_statistics(experiment)
    predicted = replay_all(experiment.final_policy(run), experiment, episodes)
    spec, fps = experiment.episode_store.keys[ACTION], experiment.episode_store.fps
    endless = turning(experiment)
    names = list(spec.names) or [f"action {number}" for number in range(spec.shape[0])]
    shown = episodes[0]
    plot_actions(
        run.path / open_loop_plot(experiment), recorded=shown.action, predicted=predicted[0], names=names, fps=fps,
        title=f"Episode {shown.number}, which was not trained on: open loop",
    )  # fmt: skip
    return {
        "episodes": [each.number for each in episodes],
        "frames": sum(len(each.action) for each in episodes),
        "shown": shown.number,
        "names": names,
        "deviation": deviation.tolist(),
        "policy": errors(predicted, episodes, deviation, turning=endless),
        "trivial": {
            name: errors(said, episodes, deviation, turning=endless)
            for name, said in trivial(experiment, episodes, mean).items()
        },
    }
