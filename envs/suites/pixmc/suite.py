"""pixmc: eight tasks of a Franka Panda and a Kuka iiwa with a hand, seen from the wrist. Hand-designed, in MuJoCo.

After the benchmark of "Masked Visual Pre-training for Motor Control" (Xiao et al. 2022, arXiv 2203.06173), whose
simulator is no longer to be had. Departures: MuJoCo instead of Isaac Gym, an Inspire hand instead of an Allegro, and
scenes, placements and rewards of our own: numbers are not comparable with the paper's.
"""

from __future__ import annotations

from embodied.core.protocols import Expert
from embodied.envs.simulation import Camera, Simulation, Suite

CAMERAS = {"wrist": Camera(name="wrist"), "front": Camera(name="front")}
INSTRUCTIONS = {
    f"{robot}-{goal}": instruction
    for robot in ("franka", "kuka")
    for goal, instruction in {
        "reach": "reach the green ball",
        "cabinet": "open the drawer of the cabinet",
        "pick": "pick up the red cube",
        "move": "move the red cube to the green disc",
    }.items()
}


def make(task: str, *, protocol: str | None = None) -> Simulation:
    """The simulation of a task; there is no protocol but ours.

    Raises:
        MissingExtraError: robosuite, which has the robots' files, is not installed.
    """
    from embodied.envs.suites.pixmc.simulation import PixMCSimulation

    return PixMCSimulation(task)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task."""
    from embodied.envs.suites.pixmc.experts import ScriptedExpert

    return ScriptedExpert(simulation)


SUITE = Suite(
    name="pixmc",
    distribution="robosuite",
    help="eight tasks of a Franka Panda and a Kuka iiwa with a hand, seen from the wrist",
    instructions=INSTRUCTIONS,
    cameras=tuple(CAMERAS),
    default_task="franka-pick",
    default_camera="wrist",
    make=make,
    experts={"scripted": "inverse kinematics along way points, from the privileged state"},
    build_expert=build_expert,
)
