"""Whether recorded actions can be learned as offsets from the recorded state. F frames, A action, P state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.bench.imitation_data import read_episodes
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.store.provenance import provenances
from embodied.policies.action_space import CONSTANT
from embodied.policies.frame_choice import FrameChoice, match_actions
from embodied.real_robot.policy.needs import TARGETS

FOLLOWS = 0.9  # of an action's deviation, that of its offsets at most: displacements beside a state come to 1 or more
"""Measured on the bimanual recordings of docs/controllers.md: 0.35, the median of 22 axes that move."""


def recorded_frame(
    choice: FrameChoice | None, store: EpisodeStore, episodes: Sequence[int], action: np.ndarray
) -> dict[str, Any] | None:
    """Arguments of `RelativeActions` for the policy; None where its head learns actions as they are.

    Values without names go by their number, where there are as many of the state as of actions.

    Args:
        episodes: which, ascending; action: theirs, [F, A].

    Raises:
        UsageError: the actions are not targets of the state.
    """
    if choice is None:
        return None
    if STATE not in store.keys:
        raise UsageError(
            f"{choice.setting}: {store.path} holds no {STATE} for offsets to begin at: import it with map= that names "
            "it, or leave policy.action_frame out"
        )
    names = _names(store)
    robots = list(provenances(store.provenance, "commanded"))
    for robot in robots:
        if robot.get("kind") != TARGETS:
            raise UsageError(
                f"{choice.setting}: {store.path} was recorded from a robot whose commands are {robot.get('kind')}, "
                "relative already: leave policy.action_frame out"
            )
    grippers = {robot.get("gripper") for robot in robots}
    known = [index for index, name in enumerate(names[0]) if name in grippers]
    found = match_actions(choice, action=names[0], state=names[1], gripper=known, where=str(store.path))
    state = read_episodes(store, STATE, episodes)
    _check_follows(choice, action, state, found["state"], store)
    for index in found.get("turning", ()):
        if max(np.abs(action[:, index]).max(), np.abs(state[:, found["state"][index]]).max()) > math.pi + CONSTANT:
            raise UsageError(
                f"policy.action_frame.turning: {names[0][index]} must be recorded in radians within [-pi, pi], got "
                f"{action[:, index].min():.3g} to {action[:, index].max():.3g}: leave it out there"
            )
    return found


def _names(store: EpisodeStore) -> tuple[Sequence[str], Sequence[str]]:
    """Of the values of actions and state."""
    action, state = store.keys[ACTION], store.keys[STATE]
    alike = not action.names and not state.names and action.shape == state.shape
    return (
        action.names or [f"{'value' if alike else 'action'} {index}" for index in range(action.shape[0])],
        state.names or [f"value {index}" for index in range(state.shape[0])],
    )


def _check_follows(
    choice: FrameChoice, action: np.ndarray, state: np.ndarray, source: Sequence[int | None], store: EpisodeStore
) -> None:
    """Actions stay near the values that they are named after, as displacements and other units do not."""
    pairs = [(index, number) for index, number in enumerate(source) if number is not None]
    own = np.array([action[:, index].std(dtype=np.float64) for index, _ in pairs])
    apart = np.array([(action[:, index] - state[:, number]).std(dtype=np.float64) for index, number in pairs])
    moving = own > CONSTANT
    if not moving.any():
        return
    share = float(np.median(apart[moving] / own[moving]))
    if share > FOLLOWS:
        raise UsageError(
            f"{choice.setting}: actions of {store.path} are named as values of {STATE}, but do not follow them: less "
            f"the state they vary {share:.2g} times as much as by themselves (median of the axes that move; targets at "
            f"most {FOLLOWS:g}). Displacements are relative already: leave policy.action_frame out"
        )
