"""The robots of the DeepMind Control Suite: their cameras, and what each could measure of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One robot. What is in `observation.state`, in the order of the arguments: see `proprioception.Proprioception`.

    Args:
        robot: what it is.
        cameras: the model's, by their numbers; the first is what pixel-based work looks through.
        joints: with encoders. The inclination of a planar torso is one too, as an inertial unit measures it; where the
            torso is in the world is not.
        touch: force sensors.
        gyro: a sensor of angular velocity.
        up: a body with an inclinometer.
        tip: a body that is the end effector, and the axes of the plane that it moves in.
    """

    robot: str
    cameras: tuple[str, ...]
    joints: tuple[str, ...]
    touch: tuple[str, ...] = ()
    gyro: str = ""
    up: str = ""
    tip: tuple[str, str] | None = None


def _both_sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("right", "left") for name in names)


def _swimmer(links: int) -> Domain:
    joints = tuple(f"joint_{number}" for number in range(links - 1))
    return Domain(robot="swimmer", cameras=("tracking1", "tracking2", "eyes"), joints=joints, gyro="head_gyro")


DOMAINS = {
    "acrobot": Domain(robot="acrobot", cameras=("fixed", "lookat"), joints=("shoulder", "elbow")),
    "ball_in_cup": Domain(robot="cup", cameras=("cam0", "cam1"), joints=("cup_x", "cup_z")),
    "cartpole": Domain(robot="cart-pole", cameras=("fixed", "lookatcart"), joints=("slider", "hinge_1")),
    "cheetah": Domain(
        robot="cheetah",
        cameras=("side", "back"),
        joints=("rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"),
    ),
    "finger": Domain(
        robot="finger",
        cameras=("cam0", "cam1"),
        joints=("proximal", "distal"),
        touch=("touchtop", "touchbottom"),
    ),
    "fish": Domain(
        robot="fish",
        cameras=("tracking_top", "tracking_x", "tracking_y", "fixed_top", "eye"),
        joints=(
            *("tail1", "tail_twist", "tail2"),
            *("finright_roll", "finright_pitch", "finleft_roll", "finleft_pitch"),
        ),
        gyro="gyro",
        up="torso",
    ),
    "hopper": Domain(
        robot="hopper",
        cameras=("cam0", "back"),
        joints=("rooty", "waist", "hip", "knee", "ankle"),
        touch=("touch_toe", "touch_heel"),
    ),
    "humanoid": Domain(
        robot="humanoid",
        cameras=("back", "side", "egocentric"),
        joints=(
            *("abdomen_z", "abdomen_y", "abdomen_x"),
            *_both_sides("hip_x", "hip_z", "hip_y", "knee", "ankle_y", "ankle_x"),
            *_both_sides("shoulder1", "shoulder2", "elbow"),
        ),
        touch=_both_sides("right_foot_touch", "left_foot_touch"),
        gyro="torso_gyro",
        up="torso",
    ),
    "manipulator": Domain(
        robot="planar arm",
        cameras=("fixed", "hand"),
        joints=(
            *("arm_root", "arm_shoulder", "arm_elbow", "arm_wrist"),
            *("finger", "fingertip", "thumb", "thumbtip"),
        ),
        touch=("palm_touch", "finger_touch", "thumb_touch", "fingertip_touch", "thumbtip_touch"),
        tip=("hand", "xz"),
    ),
    "pendulum": Domain(robot="pendulum", cameras=("fixed", "lookat"), joints=("hinge",)),
    "point_mass": Domain(robot="point mass", cameras=("fixed", "cam0"), joints=("root_x", "root_y")),
    "reacher": Domain(
        robot="planar arm", cameras=("fixed", "hand"), joints=("shoulder", "wrist"), tip=("finger", "xy")
    ),
    "swimmer_swimmer6": _swimmer(6),
    "swimmer_swimmer15": _swimmer(15),
    "walker": Domain(robot="walker", cameras=("side", "back"), joints=("rooty", *_both_sides("hip", "knee", "ankle"))),
}

# What the suite's observation lacks of the state although it matters, by robot: names and elements of the torso's
# rotation matrix. The fish sees only one component of where up is, the humanoid its speed in the world's frame but not
# which way it faces.
TORSO_ELEMENTS = {"fish": {"up.x": 6, "up.y": 7, "up.z": 8}, "humanoid": {"heading.x": 0, "heading.y": 3}}


def domain_of(task: str) -> Domain:
    """The robot of a task, such as `walker` of `walker_walk`."""
    found = [domain for name, domain in DOMAINS.items() if f"{task}_".startswith(f"{name}_")]
    assert len(found) == 1, task
    return found[0]
