"""What the ten tasks of Meta-World's MT10 are called: instructions to train on, and others to be tried with.

Written by hand for this project. The two sets of a task share no sentence, and held-out ones say the same in other
words: other verbs, other names of things, other order; `tests/envs/test_language_tasks.py` holds that.
"""

from __future__ import annotations

from collections.abc import Mapping

from embodied.core.errors import UsageError, unknown_name

MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
PLAIN = "plain"
KINDS = {
    PLAIN: "the one sentence of the task",
    "train": "drawn for each episode from those to train on",
    "heldout": "drawn from those that are kept from training",
    "all": "drawn from both",
}
TRAIN: Mapping[str, tuple[str, ...]] = {
    "reach-v3": (
        "reach the goal",
        "move the hand to the goal",
        "bring the gripper to the marked point",
        "go to the target position",
        "reach out and stop at the target",
        "move the arm until the hand is at the goal",
    ),
    "push-v3": (
        "push the puck to the goal",
        "slide the puck to the target",
        "push the puck over the table until it lies on the goal",
        "move the puck to the marked spot by pushing it",
        "shove the puck onto the target",
        "push the round piece to the goal",
    ),
    "pick-place-v3": (
        "pick up the puck and place it at the goal",
        "grasp the puck and carry it to the goal",
        "lift the puck and bring it to the target",
        "pick the puck up and hold it at the marked point",
        "take the puck from the table and move it to the goal in the air",
        "grab the round piece and put it where the goal is",
    ),
    "door-open-v3": (
        "open the door",
        "pull the door open",
        "open the door by its handle",
        "take the door handle and pull",
        "swing the door open",
        "open up the door of the safe",
    ),
    "drawer-open-v3": (
        "open the drawer",
        "pull the drawer open",
        "pull out the drawer",
        "open the drawer by its handle",
        "slide the drawer out",
        "take the drawer handle and pull it towards you",
    ),
    "drawer-close-v3": (
        "close the drawer",
        "push the drawer shut",
        "push the drawer in",
        "shut the drawer",
        "slide the drawer back in",
        "push the open drawer until it is closed",
    ),
    "button-press-topdown-v3": (
        "press the button from above",
        "press the button down",
        "push down the button on top of the box",
        "press the red button",
        "move above the button and press it",
        "hit the button from the top",
    ),
    "peg-insert-side-v3": (
        "insert the peg into the hole from the side",
        "put the peg into the hole",
        "pick up the peg and insert it sideways",
        "push the peg into the hole in the box",
        "grasp the peg and slide it into the hole",
        "insert the green stick into the box",
    ),
    "window-open-v3": (
        "open the window",
        "slide the window open",
        "push the window handle to open it",
        "open the sliding window",
        "move the window to the right",
        "push the window open by its handle",
    ),
    "window-close-v3": (
        "close the window",
        "slide the window shut",
        "push the window handle to close it",
        "shut the sliding window",
        "move the window to the left",
        "push the window closed by its handle",
    ),
}
HELDOUT: Mapping[str, tuple[str, ...]] = {
    "reach-v3": (
        "touch the target with your fingers",
        "the gripper should end up at the goal location",
        "please position the hand at the indicated spot",
    ),
    "push-v3": (
        "the puck belongs on the goal, shove it there without lifting it",
        "nudge the disc along the table to the target",
        "get the disc to the goal but keep it on the table",
    ),
    "pick-place-v3": (
        "the puck should be lifted to the target position",
        "fetch the disc off the table and deliver it to the goal",
        "raise the disc and transport it to the indicated spot",
    ),
    "door-open-v3": (
        "please get this door open",
        "the door is shut, change that",
        "grab the handle and tug the door towards you",
    ),
    "drawer-open-v3": (
        "the drawer is shut, change that",
        "please get the drawer out of the cabinet",
        "draw the compartment out by its grip",
    ),
    "drawer-close-v3": (
        "the drawer has been left open, put it back in place",
        "please make sure that the drawer is closed",
        "press against the front of the compartment until it is all the way in",
    ),
    "button-press-topdown-v3": (
        "from overhead, push the switch down",
        "depress the knob with the gripper coming from the top",
        "lower your hand onto the button until it clicks",
    ),
    "peg-insert-side-v3": (
        "the stick goes in the opening at the side of the block",
        "plug the peg into the socket at the side",
        "fit the rod through the lateral opening",
    ),
    "window-open-v3": (
        "let some air in by sliding the pane aside",
        "the window should not stay closed",
        "unclose the window with a sideways push on its grip",
    ),
    "window-close-v3": (
        "keep the air out by sliding the pane back",
        "the window should not stay open",
        "make sure that the window is shut",
    ),
}


def texts_of(task: str, kind: str) -> tuple[str, ...]:
    """The instructions of a kind for a task.

    Raises:
        UsageError: there is no such kind, or the task has no instructions beside its one sentence.
    """
    if kind not in KINDS:
        raise unknown_name("env.instructions", kind, KINDS)
    if task not in TRAIN:
        raise UsageError(
            f"env.instructions={kind}: {task} has one sentence only, as env.instructions={PLAIN} gives it; tasks with "
            f"several are {', '.join(MT10)}"
        )
    return {"train": TRAIN[task], "heldout": HELDOUT[task], "all": TRAIN[task] + HELDOUT[task]}[kind]


def draw_instruction(task: str, kind: str, seed: int) -> str:
    """The instruction of the episode of that seed; `kind` is not `plain`."""
    from embodied.core.seeding import numpy_generator  # here, for it loads torch

    texts = texts_of(task, kind)
    return texts[int(numpy_generator(seed, "instruction", task).integers(len(texts)))]
