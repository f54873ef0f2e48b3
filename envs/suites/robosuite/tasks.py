"""What is fixed about each robosuite task: words, lengths, and what of the scene is privileged."""

from __future__ import annotations

from dataclasses import dataclass

ROBOTS = ("Panda", "Sawyer", "IIWA", "UR5e", "Kinova3", "Jaco")
# Without JOINT_VELOCITY, which robosuite 1.5.2 cannot build for any arm, and JOINT_TORQUE, which few learn with.
CONTROLLERS = ("OSC_POSE", "OSC_POSITION", "JOINT_POSITION")
CAMERAS = (
    "agentview",
    "frontview",
    "sideview",
    "birdview",
    "robot0_eye_in_hand",
    "robot0_robotview",
    "robot1_eye_in_hand",
    "robot1_robotview",
    "shouldercamera0",
    "shouldercamera1",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the library.

    Args:
        instruction: what to do, in English.
        horizon: steps of 50 ms. Of robomimic's tasks: as there. Of Wipe, which spreads its reward over the horizon: the
            library's. Of others: at least twice what our scripts mostly take, where there is one.
        bodies: whose pose is privileged state: 3 numbers for the position and 4 for the quaternion, w first.
        sites: whose position is.
        joints: whose position is, as the angle or displacement of one hinge or slide.
        arms: how many robots stand around.
        gripper: whether they have one.
        dense: whether the library knows a dense reward.
    """

    instruction: str
    horizon: int
    bodies: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    arms: int = 1
    gripper: bool = True
    dense: bool = True


GROCERIES = ("Milk", "Bread", "Cereal", "Can")
NUTS = ("SquareNut", "RoundNut")
_FRAME_SITES = ("stand_mount_site", "frame_hang_site", "frame_mount_site", "frame_intersection_site", "frame_tip_site")


def _pick_place(name: str) -> Task:
    return Task(
        instruction=f"pick up the {name.lower()} and place it in its bin", horizon=400, bodies=(f"{name}_main",)
    )


TASKS = {
    "Lift": Task(instruction="lift the red cube", horizon=400, bodies=("cube_main",)),
    "Stack": Task(instruction="stack the red cube on the green cube", horizon=400, bodies=("cubeA_main", "cubeB_main")),
    "Door": Task(
        instruction="turn the handle and open the door",
        horizon=400,
        bodies=("Door_main", "Door_door", "Door_latch"),
        sites=("Door_handle",),
        joints=("Door_hinge", "Door_latch_joint"),
    ),
    "PickPlace": Task(
        instruction="place the milk, the bread, the cereal and the can in their bins",
        horizon=1600,
        bodies=tuple(f"{name}_main" for name in GROCERIES),
    ),
    **{f"PickPlace{name}": _pick_place(name) for name in GROCERIES},
    "NutAssembly": Task(
        instruction="place the square nut on the square peg and the round nut on the round peg",
        horizon=800,
        bodies=tuple(f"{nut}_main" for nut in NUTS),
        sites=tuple(f"{nut}_handle_site" for nut in NUTS),
    ),
    "NutAssemblySquare": Task(
        instruction="place the square nut on the square peg",
        horizon=400,
        bodies=("SquareNut_main",),
        sites=("SquareNut_handle_site",),
    ),
    "NutAssemblyRound": Task(
        instruction="place the round nut on the round peg",
        horizon=400,
        bodies=("RoundNut_main",),
        sites=("RoundNut_handle_site",),
    ),
    "Wipe": Task(instruction="wipe the dirt off the table", horizon=1000, gripper=False),
    "ToolHang": Task(
        instruction="insert the hook into the stand and hang the wrench on the hook",
        horizon=700,
        bodies=("stand_root", "frame_root", "tool_root"),
        sites=(*_FRAME_SITES, "tool_hole1_center"),
        dense=False,
    ),
    "TwoArmLift": Task(
        instruction="lift the pot by its two handles and keep it level",
        horizon=500,
        bodies=("pot_root",),
        sites=("pot_handle0", "pot_handle1"),
        arms=2,
    ),
    "TwoArmPegInHole": Task(
        instruction="put the peg into the hole of the plate",
        horizon=500,
        bodies=("peg_main", "hole_main"),
        arms=2,
        gripper=False,
    ),
    "TwoArmHandover": Task(
        instruction="pick up the hammer with one hand and hand it over to the other",
        horizon=500,
        bodies=("hammer_root",),
        arms=2,
    ),
    "TwoArmTransport": Task(
        instruction="take the hammer out of the covered bin, hand it over into the other bin and throw the cube away",
        horizon=700,
        bodies=(
            "payload_root",
            "trash_main",
            "transport_start_bin_root",
            "transport_target_bin_root",
            "transport_trash_bin_root",
            "transport_start_bin_lid_root",
        ),
        arms=2,
        dense=False,
    ),
}
# The tasks of robomimic (Mandlekar et al. 2021, arXiv 2108.03298), by the names that robosuite has for them.
ROBOMIMIC_TASKS = ("Lift", "PickPlaceCan", "NutAssemblySquare", "ToolHang", "TwoArmTransport")
