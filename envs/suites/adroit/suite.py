"""Adroit: a 24-joint hand with four tasks (Rajeswaran et al. 2018, arXiv 1709.10087), gymnasium-robotics' models."""

from __future__ import annotations

from typing import Any

from embodied.core.protocols import Expert
from embodied.envs.simulation import Simulation, Suite
from embodied.envs.suites.adroit.tasks import CAMERAS, CORTEX_TASKS, INSTRUCTIONS


def make_simulation(task: str, **options: Any) -> Simulation:
    """A task, see `simulation.AdroitSimulation`, whose module is imported first here."""
    from embodied.envs.suites.adroit.simulation import AdroitSimulation

    return AdroitSimulation(task, **options)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task."""
    from embodied.envs.suites.adroit.scripted import RelocateExpert
    from embodied.envs.suites.adroit.simulation import AdroitSimulation

    assert isinstance(simulation, AdroitSimulation), simulation
    return RelocateExpert(task, simulation)


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
    experts={"scripted": "takes the ball and carries it to the target; for relocate only"},
    build_expert=build_expert,
)
