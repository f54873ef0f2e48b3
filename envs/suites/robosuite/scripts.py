"""Which tasks of robosuite have a script, and for which robot."""

from __future__ import annotations

from collections.abc import Callable

from embodied.core.errors import UsageError
from embodied.envs.suites.robosuite.scripted import ScriptedExpert, Steps
from embodied.envs.suites.robosuite.scripted_blocks import lift, stack
from embodied.envs.suites.robosuite.scripted_door import open_door
from embodied.envs.suites.robosuite.scripted_groceries import place_groceries, place_grocery
from embodied.envs.suites.robosuite.scripted_handover import hand_over
from embodied.envs.suites.robosuite.scripted_hang import hang_tool
from embodied.envs.suites.robosuite.scripted_nuts import thread_nut, thread_nuts
from embodied.envs.suites.robosuite.scripted_pair import insert_peg, lift_pot
from embodied.envs.suites.robosuite.scripted_transport import transport
from embodied.envs.suites.robosuite.scripted_wipe import wipe
from embodied.envs.suites.robosuite.simulation import RobosuiteSimulation
from embodied.envs.suites.robosuite.tasks import GROCERIES

SCRIPTS: dict[str, Callable[..., Steps]] = {
    "Lift": lift,
    "Stack": stack,
    "Door": open_door,
    "PickPlace": place_groceries,
    **{f"PickPlace{name}": place_grocery(name) for name in GROCERIES},
    "NutAssembly": thread_nuts,
    "NutAssemblySquare": thread_nut("SquareNut"),
    "NutAssemblyRound": thread_nut("RoundNut"),
    "Wipe": wipe,
    "ToolHang": hang_tool,
    "TwoArmLift": lift_pot,
    "TwoArmPegInHole": insert_peg,
    "TwoArmHandover": hand_over,
    "TwoArmTransport": transport,
}


def scripted_expert(task: str, simulation: RobosuiteSimulation) -> ScriptedExpert:
    """The script of a task.

    Raises:
        UsageError: the simulation has another robot or controller than the scripts know.
    """
    robot, controller = simulation.spec.robot, simulation.controller
    if (robot, controller) != ("Panda", "OSC_POSE"):
        raise UsageError(
            f"robosuite's scripts move a Panda with controller=OSC_POSE, not a {robot} with {controller}: choose that, "
            "or collect.expert=random"
        )
    return ScriptedExpert(simulation, SCRIPTS[task])
