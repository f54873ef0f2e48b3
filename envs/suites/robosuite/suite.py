"""robosuite 1.5: tasks of one and two arms (https://robosuite.ai, Zhu et al. 2020, arXiv 2009.12293)."""

from __future__ import annotations

from embodied.core.protocols import Expert
from embodied.envs.simulation import Simulation, Suite
from embodied.envs.suites.robosuite.simulation import RobosuiteSimulation
from embodied.envs.suites.robosuite.tasks import CAMERAS, ROBOMIMIC_TASKS, TASKS


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task."""
    from embodied.envs.suites.robosuite.scripts import scripted_expert

    assert isinstance(simulation, RobosuiteSimulation), simulation
    return scripted_expert(task, simulation)


SUITE = Suite(
    name="robosuite",
    help="robosuite 1.5: manipulation with a Panda or another arm, or two of them",
    distribution="robosuite",
    instructions={name: task.instruction for name, task in TASKS.items()},
    cameras=CAMERAS,
    default_task="Lift",
    default_camera="agentview",
    make=RobosuiteSimulation,
    options={"robot": "Panda", "controller": "OSC_POSE"},
    protocols={"robomimic": ROBOMIMIC_TASKS},
    experts={"scripted": "our way points from the privileged state, for one Panda or two"},
    build_expert=build_expert,
)
