"""The two robots: a Franka Panda with its gripper, a Kuka iiwa with an Inspire hand.

From robosuite's files come kinematics, inertias, meshes and joint limits; actuators, gains and cameras are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

ARM_JOINTS = 7
HAND = "hand_"  # in front of every name of the hand's file


@dataclass(frozen=True, kw_only=True)
class Robot:
    """A robot and how it is driven. J joints, the arm's first; rad and N m, of sliding fingers m and N.

    Args:
        name: as in task names.
        arm, hand: files below robosuite's assets.
        hand_quat: of the hand at the arm's flange.
        joints: names in the scene, [J].
        stiffness, damping, force: of the position actuators, [J]; force is the largest.
        armature: inertia of the motors as the joints feel it, [J].
        stride: what an action of 1 adds to a joint's target, [J].
        lead: how far a target may be ahead of its joint, [J]: it limits the force on what is in the way.
        grip_body, grip_pos, grip_axes: frame of the `grip` site between the fingers: x and y axes; x is across the
            opening, z the direction of approach.
        camera_pos, camera_axes, camera_fovy: the wrist camera at the flange: x (right) and y (up) axes, degrees.
        fingers: bodies of the one and of the other side of a grasp.
        workspace_x: middle of where things are put, m from the base.
        home: of the arm above the table, hand down, and `home_forward` with the hand level, [7].
        opened: of the finger joints, [J - 7], at the start of an episode.
        colours: RGB of the arm's links in turn; the last is the hand's.
    """

    name: str
    arm: str
    hand: str
    hand_quat: tuple[float, float, float, float]
    joints: tuple[str, ...]
    stiffness: tuple[float, ...]
    damping: tuple[float, ...]
    force: tuple[float, ...]
    armature: tuple[float, ...]
    stride: tuple[float, ...]
    lead: tuple[float, ...]
    grip_body: str
    grip_pos: tuple[float, float, float]
    grip_axes: tuple[float, float, float, float, float, float]
    camera_pos: tuple[float, float, float]
    camera_axes: tuple[float, float, float, float, float, float]
    camera_fovy: float
    fingers: tuple[tuple[str, ...], tuple[str, ...]]
    workspace_x: float
    home: tuple[float, ...]
    home_forward: tuple[float, ...]
    opened: tuple[float, ...]
    colours: tuple[tuple[float, float, float], ...]


FRANKA = Robot(
    name="franka",
    arm="robots/panda/robot.xml",
    hand="grippers/panda_gripper.xml",
    hand_quat=(1, 0, 0, 0),
    joints=(*(f"joint{i}" for i in range(1, 8)), "hand_finger_joint1", "hand_finger_joint2"),
    stiffness=(800, 800, 800, 800, 300, 300, 300, 1000, 1000),
    damping=(80, 80, 80, 80, 30, 30, 30, 40, 40),
    force=(87, 87, 87, 87, 12, 12, 12, 20, 20),
    armature=(0.1,) * 7 + (1.0,) * 2,
    stride=(0.05,) * 7 + (0.006,) * 2,
    lead=(0.15,) * 7 + (0.03,) * 2,
    grip_body="hand_right_gripper",
    grip_pos=(0.0, 0.0, 0.097),
    grip_axes=(1, 0, 0, 0, 1, 0),
    camera_pos=(0.08, 0.0, 0.05),
    camera_axes=(0, 1, 0, 0.94, 0, 0.34),
    camera_fovy=105.0,
    fingers=(("hand_leftfinger", "hand_finger_joint1_tip"), ("hand_rightfinger", "hand_finger_joint2_tip")),
    workspace_x=0.5,
    home=(0, -0.36, 0, -2.17, 0, 1.81, 0.785),
    home_forward=(0, -0.45, 0, -2.42, 0, 2.49, 2.356),
    opened=(0.04, -0.04),
    colours=((0.93, 0.94, 0.95), (0.62, 0.64, 0.67)),
)

_FINGERS = tuple(
    f"r_{finger}_{part}" for finger in ("index", "middle", "ring", "pinky") for part in ("proximal", "distal")
)
_THUMB = ("r_thumb_proximal_1", "r_thumb_proximal_2", "r_thumb_middle", "r_thumb_distal")

KUKA = Robot(
    name="kuka",
    arm="robots/iiwa/robot.xml",
    hand="grippers/inspire_right_hand.xml",
    hand_quat=(0, 1, 0, 0),  # fingers along the flange's z, palm towards its -x
    joints=(*(f"joint_{i}" for i in range(1, 8)), *(f"{HAND}joint_{name}" for name in (*_THUMB, *_FINGERS))),
    stiffness=(800, 800, 800, 800, 300, 300, 300) + (6,) * 12,
    damping=(80, 80, 80, 80, 30, 30, 30) + (0.3,) * 12,
    force=(176, 176, 110, 110, 110, 40, 40) + (3,) * 12,
    armature=(0.1,) * 7 + (0.002,) * 12,
    stride=(0.05,) * 7 + (0.1,) * 12,
    lead=(0.15,) * 7 + (0.4,) * 12,
    grip_body=f"{HAND}right_hand",
    grip_pos=(-0.06, -0.13, -0.01),
    grip_axes=(0.707, -0.707, 0, 0, 0, 1),
    camera_pos=(-0.07, 0.035, 0.02),
    camera_axes=(0, 1, 0, 1, 0, 0),
    camera_fovy=100.0,
    fingers=(tuple(HAND + name for name in _THUMB), tuple(HAND + name for name in _FINGERS)),
    workspace_x=0.62,
    home=(0, 0.07, 0, -1.79, 0, 0.49, 0),
    home_forward=(0, -0.08, 0, -1.82, 0, 0.62, 0),
    opened=(1.3, 0, 0, 0) + (0.2, 0.2) * 4,
    colours=((0.95, 0.45, 0.08), (0.42, 0.43, 0.45), (0.45, 0.47, 0.52)),
)
ROBOTS = {robot.name: robot for robot in (FRANKA, KUKA)}
