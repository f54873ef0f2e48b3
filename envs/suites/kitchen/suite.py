"""Franka kitchen (Gupta et al. 2019, arXiv 1910.11956): gymnasium-robotics' FrankaKitchen-v1, an object or several."""

from __future__ import annotations

from typing import Any

from embodied.core.protocols import Expert
from embodied.envs.simulation import Simulation, Suite
from embodied.envs.suites.kitchen.tasks import CAMERAS, INSTRUCTIONS, R3M_TASKS


def make_simulation(task: str, **options: Any) -> Simulation:
    """A task, see `simulation.KitchenSimulation`, whose module is imported first here."""
    from embodied.envs.suites.kitchen.simulation import KitchenSimulation

    return KitchenSimulation(task, **options)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task."""
    from embodied.envs.suites.kitchen.scripted import ScriptedExpert
    from embodied.envs.suites.kitchen.simulation import KitchenSimulation

    assert isinstance(simulation, KitchenSimulation), simulation
    return ScriptedExpert(task, simulation)


SUITE = Suite(
    name="kitchen",
    help="Franka kitchen: microwave, kettle, cabinets, light and oven knobs, one at a time or in sequence",
    distribution="gymnasium-robotics",
    instructions=INSTRUCTIONS,
    cameras=tuple(CAMERAS),
    default_task="sdoor_open",
    default_camera="front",
    make=make_simulation,
    options={"randomize": None},
    protocols={"r3m": R3M_TASKS},
    experts={"scripted": "takes the object and moves it along its joint"},
    build_expert=build_expert,
)
