"""What is written out about the Adroit tasks: words, joints, cameras, success rules."""

from __future__ import annotations

from embodied.envs.simulation import Camera

INSTRUCTIONS = {
    "door": "undo the latch and swing the door open",
    "hammer": "pick up the hammer and drive the nail into the board",
    "pen": "turn the pen in the hand to the orientation of the green one",
    "relocate": "move the blue ball to the green target",
}
CORTEX_TASKS = ("pen", "relocate")
SCRIPTED_TASKS = ("door", "hammer", "relocate")
# CortexBench's is `vil_camera`, R3M's are `view_1` and `view_4`. The library's models have the views only with the pen;
# its view_3 and view_5 show the table from below.
CAMERAS = {
    "vil_camera": Camera(name="vil_camera"),
    "fixed": Camera(name="fixed"),
    **{f"view_{number}": Camera(name=f"view_{number}") for number in (1, 2, 4)},
}
SHARED_CAMERAS = ("vil_camera", "fixed")
HORIZONS = {"door": 200, "hammer": 200, "pen": 100, "relocate": 200}
# An episode is a success once the goal was achieved on more steps than this: `evaluate_success` of the authors'
# mj_envs/hand_manipulation_suite/{door,hammer,pen,relocate}_v0.py (github.com/vikashplus/mj_envs), which CortexBench
# counts by. What "achieved" means is the same there and in gymnasium-robotics.
STEPS_TO_SUCCEED = {"door": 25, "hammer": 25, "pen": 20, "relocate": 25}
_ARMS = {
    "door": ("ARTz", "ARRx", "ARRy", "ARRz"),
    "hammer": ("ARRx", "ARRy"),
    "pen": (),
    "relocate": ("ARTx", "ARTy", "ARTz", "ARRx", "ARRy", "ARRz"),
}
_WRIST = ("WRJ1", "WRJ0")
FINGERS = tuple(
    f"{finger}J{joint}"
    for finger, count in (("FF", 4), ("MF", 4), ("RF", 4), ("LF", 5), ("TH", 5))
    for joint in reversed(range(count))
)


def joints_of(task: str) -> tuple[str, ...]:
    """The robot's joints in the order of the model: the arm, the wrist, the 22 of the fingers."""
    return (*_ARMS[task], *_WRIST, *FINGERS)
