"""Adroit: a 24-joint hand with four tasks (Rajeswaran et al. 2018, arXiv 1709.10087), gymnasium-robotics' models."""

from __future__ import annotations

from typing import Any

from embodied.core.protocols import Expert
from embodied.envs.experts.rl import RLExpert
from embodied.envs.simulation import Simulation, Suite
from embodied.envs.suites.adroit.tasks import CAMERAS, CORTEX_TASKS, INSTRUCTIONS, SCRIPTED_TASKS


def make_simulation(task: str, **options: Any) -> Simulation:
    """A task, see `simulation.AdroitSimulation`, whose module is imported first here."""
    from embodied.envs.suites.adroit.simulation import AdroitSimulation

    return AdroitSimulation(task, **options)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task; `expert` is whichever there is, the script where there are both."""
    if kind == "scripted" or (kind == "expert" and task in SCRIPTED_TASKS):
        from embodied.envs.suites.adroit.scripted import make_script
        from embodied.envs.suites.adroit.simulation import AdroitSimulation

        assert isinstance(simulation, AdroitSimulation), simulation
        return make_script(task, simulation)
    return RLExpert(simulation.spec)


SUITE = Suite(
    name="adroit",
    help="Adroit: a dexterous hand with a pen, a door, a hammer and a ball",
    distribution="gymnasium-robotics",
    instructions=INSTRUCTIONS,
    cameras=tuple(CAMERAS),
    default_task="relocate",
    default_camera="vil_camera",
    make=make_simulation,
    protocols={"cortex": CORTEX_TASKS},
    experts={
        "expert": "for door, hammer and relocate the script, else the network",
        "scripted": "opens the door; drives the nail in; carries the ball to the target",
        "rl": "a network trained by SAC on the privileged state; for pen",
    },
    build_expert=build_expert,
)
