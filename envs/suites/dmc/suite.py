"""The DeepMind Control Suite (https://github.com/google-deepmind/dm_control, Tassa et al. 2018, arXiv 1801.00690)."""

from __future__ import annotations

from typing import Any

from embodied.core.protocols import Expert
from embodied.envs.experts.rl import RLExpert
from embodied.envs.simulation import Simulation, Suite
from embodied.envs.suites.dmc.domains import DOMAINS
from embodied.envs.suites.dmc.tasks import CORTEX_TASKS, INSTRUCTIONS


def make_simulation(task: str, **options: Any) -> Simulation:
    """A task, see `simulation.DMControlSimulation`, whose module is imported first here."""
    from embodied.envs.suites.dmc.simulation import DMControlSimulation

    return DMControlSimulation(task, **options)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task."""
    return RLExpert(simulation.spec)


SUITE = Suite(
    name="dmc",
    help="DeepMind Control Suite: 28 tasks of 14 robots, scored by their return",
    distribution="dm-control",
    instructions=INSTRUCTIONS,
    cameras=("main", *sorted({camera for domain in DOMAINS.values() for camera in domain.cameras})),
    default_task="walker_walk",
    default_camera="main",
    make=make_simulation,
    protocols={"cortex": CORTEX_TASKS},
    experts={"rl": "a network trained by SAC on the privileged state"},
    build_expert=build_expert,
)
