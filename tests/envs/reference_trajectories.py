"""What every task of a suite does, as hashes: an upgrade that changes physics is noticed.

    python tests/envs/reference_trajectories.py dmc        # writes tests/envs/reference/dmc.json anew

In a test of the suite: `from reference_trajectories import check_reference`, then `check_reference("dmc", task)` for
every task. Numbers are rounded before they are hashed, for the sake of another processor's last digits.
"""

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from embodied.core.files import write_json
from embodied.envs.gl import select_gl_backend
from embodied.envs.registry import load_suite

FOLDER = Path(__file__).parent / "reference"
ACTIONS, DECIMALS, SEED = 10, 4, 0


def trajectory_hash(suite: str, task: str) -> str:
    """SHA-256 of the privileged state after a reset and after each of ten random actions."""
    select_gl_backend()  # before a simulator is imported
    found = load_suite(suite)
    simulation = found.make(task, protocol=None, **found.options)
    random = np.random.default_rng(SEED)
    simulation.reset(SEED)
    states = [simulation.observe()[1]]
    for _ in range(ACTIONS):
        action = random.uniform(simulation.spec.action_low, simulation.spec.action_high)
        simulation.step(action.astype(np.float32))
        states.append(simulation.observe()[1])
    rounded = np.round(np.stack(states), DECIMALS) + np.float32(0)  # -0 and 0 are one number
    return hashlib.sha256(rounded.astype(np.float32).tobytes()).hexdigest()


def versions(suite: str) -> dict[str, str]:
    """Of what decides trajectories: MuJoCo and the simulator."""
    return {name: version(name) for name in sorted({"mujoco", load_suite(suite).distribution})}


def check_reference(suite: str, task: str) -> None:
    """Fail when the task does not do what it did, or when it was recorded with other versions."""
    again = f"look at what changed, then record it: python tests/envs/reference_trajectories.py {suite}"
    path = FOLDER / f"{suite}.json"
    reference = json.loads(path.read_text())
    then, now = reference["versions"], versions(suite)
    assert then == now, f"the simulator changed: {path.name} was recorded with {then}, here is {now}: {again}"
    assert task in reference["tasks"], f"{task} is not in {path.name}: {again}"
    assert trajectory_hash(suite, task) == reference["tasks"][task], (
        f"{task} of {suite} no longer does what it did with the same versions, {now}: {again}"
    )


def record(suite: str) -> None:
    """Write the suite's file."""
    tasks = {task: trajectory_hash(suite, task) for task in sorted(load_suite(suite).instructions)}
    write_json(FOLDER / f"{suite}.json", {"versions": versions(suite), "tasks": tasks})


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(name)
