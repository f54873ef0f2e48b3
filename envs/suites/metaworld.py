"""Meta-World v3: 50 tasks of a Sawyer arm (https://github.com/Farama-Foundation/Metaworld, Yu et al. 2019)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE, Expert
from embodied.envs.simulation import Camera, Progress, Simulation, Suite, TaskSpec
from embodied.envs.suites._metaworld_placements import HANDS, POSITIONS, arm_touches, drawn_hand, keep_to
from embodied.envs.suites._metaworld_tasks import TaskSet, TaskSetExpert
from embodied.envs.suites._metaworld_words import MT10, PLAIN, draw_instruction, texts_of

# The library mounts the corner cameras upside down. Its corner2 is far away: corner4 is the same camera moved to the
# table, the view of pixel-based work. `top_cap2` is CortexBench's: its fork of the library adds it to every scene.
CAMERAS = {
    "corner": Camera(name="corner", flip=True),
    "corner2": Camera(name="corner2", flip=True),
    "corner3": Camera(name="corner3", flip=True),
    "corner4": Camera(name="corner2", flip=True, position=(0.75, 0.075, 0.7)),
    "topview": Camera(name="topview"),
    "behindGripper": Camera(name="behindGripper"),
    "gripperPOV": Camera(name="gripperPOV"),
    "top_cap2": Camera(position=(0.0, 0.9, 0.6), target="tablelink"),
}
HORIZON_LIMIT = 500  # the simulator refuses longer episodes
FPS = 80.0  # 5 physics steps of 2.5 ms per action
INSTRUCTIONS = {
    "assembly-v3": "pick up the nut and place it onto the peg",
    "basketball-v3": "put the basketball through the hoop",
    "bin-picking-v3": "move the puck from one bin to the other",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "press the button from above, over the wall",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "press the button behind the wall",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "pick the nut off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "turn the faucet off",
    "faucet-open-v3": "turn the faucet on",
    "hammer-v3": "hammer the nail into the box",
    "hand-insert-v3": "put the hand into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole from the side",
    "peg-unplug-side-v3": "unplug the peg from the side",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "pick-place-v3": "pick up the puck and place it at the goal",
    "pick-place-wall-v3": "pick up the puck and place it at the goal behind the wall",
    "plate-slide-back-side-v3": "slide the plate back out of the cabinet sideways",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet sideways",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "push the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "place the puck on the shelf",
    "soccer-v3": "push the ball into the goal",
    "stick-pull-v3": "pull the thermos with the stick",
    "stick-push-v3": "push the thermos with the stick",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}
CORTEX_TASKS = ("assembly-v3", "bin-picking-v3", "button-press-topdown-v3", "drawer-open-v3", "hammer-v3")
GROUPS = {"mt10": MT10}
# What tasks move at reset; some never move it back.
_MODEL_FIELDS = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_quat", "geom_rgba", "site_rgba")
_STATE = ("hand.x", "hand.y", "hand.z", "gripper")
_ACTION = ("hand.dx", "hand.dy", "hand.dz", "gripper")


class MetaWorldSimulation:
    """One Meta-World task with free placements and the goal in the privileged state.

    State: hand position in metres and gripper opening in [0, 1]. Action: hand displacement (1 is 1 cm) and gripper
    closing. Success is the library's, at the moment. `protocol=cortex` is CortexBench's: 500 steps whatever happens,
    success at the last of them.

    Args:
        task: its name.
        protocol: `cortex` or none.
        instructions: which words say what to do, see `_metaworld_words.KINDS`.
        positions: where objects are placed, see `_metaworld_placements.POSITIONS`.
        hand: where the arm starts, see `_metaworld_placements.HANDS`.
    """

    def __init__(
        self,
        task: str,
        *,
        protocol: str | None = None,
        instructions: str = PLAIN,
        positions: str = "all",
        hand: str = "home",
    ) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.library = simulator = ALL_V3_ENVIRONMENTS[task]()
        simulator._partially_observable = False
        simulator._freeze_rand_vec = False
        simulator.seeded_rand_vec = True
        simulator._set_task_called = True
        simulator.__dict__.pop("sawyer_observation_space", None)  # cached for the partially observable task
        keep_to(simulator, positions, task=task)
        if instructions != PLAIN:
            texts_of(task, instructions)  # refuses what is not there
        self._instructions, self._hand, self._home = instructions, hand, simulator.hand_init_pos.copy()
        self._as_loaded = {name: getattr(simulator.model, name).copy() for name in _MODEL_FIELDS}
        self._observation = np.zeros(39)
        cortex = protocol == "cortex"
        self.spec = TaskSpec(
            suite="metaworld",
            task=task,
            instruction=INSTRUCTIONS[task],
            robot="sawyer",
            cameras=CAMERAS,
            fps=FPS,
            horizon=HORIZON_LIMIT if cortex else 250,
            horizon_limit=HORIZON_LIMIT,
            state=_STATE,
            environment_state=39,
            action=_ACTION,
            action_low=np.full(4, -1, np.float32),
            action_high=np.full(4, 1, np.float32),
            gripper=(3,),
            ends_on_success=not cortex,
        )

    @property
    def model(self) -> Any:
        return self.library.model

    @property
    def data(self) -> Any:
        return self.library.data

    @property
    def hand(self) -> np.ndarray:
        """Where the hand is being held, float64 [3], metres."""
        return np.array(self.data.mocap_pos[0])

    def reset(self, seed: int, *, hand: np.ndarray | None = None) -> None:
        """Start the episode of that seed.

        Args:
            seed: of the placement, and of the words where several are there.
            hand: where the arm shall start, float64 [3], metres; None: as `hand` of the constructor says. Where
                something else is there, it starts from the task's own position.
        """
        if self._instructions != PLAIN:
            told = draw_instruction(self.spec.task, self._instructions, seed)
            self.spec = replace(self.spec, instruction=told)
        if hand is None and self._hand == "varied":
            hand = drawn_hand(self._home, seed)
        self._place(seed, self._home if hand is None else hand)
        if hand is not None and arm_touches(self.model, self.data):
            self._place(seed, self._home)

    def _place(self, seed: int, hand: np.ndarray) -> None:
        import mujoco

        self.library.hand_init_pos = hand.copy()
        # The simulator draws placements from its own generator, and a few tasks from the global one.
        global_state = np.random.get_state()
        np.random.seed(seed % 2**32)
        try:
            self.library.seed(seed)
            for name, values in self._as_loaded.items():
                getattr(self.model, name)[:] = values
            self.data.ctrl[:] = 0
            mujoco.mj_resetData(self.model, self.data)
            self._observation, _ = self.library.reset()
        finally:
            np.random.set_state(global_state)

    def step(self, action: np.ndarray) -> Progress:
        self._observation, reward, _, _, info = self.library.step(action)
        return Progress(float(reward), bool(info["success"]))

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        return self._observation[:4].astype(np.float32), self._observation.astype(np.float32)


class ScriptedExpert:
    """Meta-World's scripted policy, which reads the privileged state; its action is clipped to [-1, 1]."""

    def __init__(self, task: str) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self._policy_class = ENV_POLICY_MAP[task]
        self._policy = self._policy_class()

    def reset(self, seed: int) -> None:
        self._policy = self._policy_class()  # a few policies remember what they did

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
            action = self._policy.get_action(observation[ENVIRONMENT_STATE].astype(np.float64))
        return np.clip(action, -1, 1).astype(np.float32)


def build_expert(kind: str, task: str, simulation: Simulation) -> Expert:
    """The behaviour for a task, or for a set of them."""
    if isinstance(simulation, TaskSet):
        return TaskSetExpert(simulation, ScriptedExpert)
    return ScriptedExpert(task)


def make_simulation(
    task: str,
    *,
    protocol: str | None = None,
    instructions: str = PLAIN,
    positions: str = "all",
    hand: str = "home",
    chain: int = 1,
) -> Simulation:
    """A task, or a set of them: `mt10`, or several names joined with `+`; see `MetaWorldSimulation` and `TaskSet`.

    Raises:
        UsageError: an option makes no sense, or not for this task.
    """
    for name, value, known in (("positions", positions, POSITIONS), ("hand", hand, HANDS)):
        if value not in known:
            raise unknown_name(f"env.{name}", str(value), known)
    tasks = GROUPS.get(task, tuple(task.split("+")))
    for each in tasks if instructions != PLAIN else ():
        texts_of(each, instructions)
    make = partial(MetaWorldSimulation, protocol=protocol, instructions=instructions, positions=positions, hand=hand)
    if protocol is not None and (len(tasks) > 1 or chain != 1):
        raise UsageError(f"env.protocol={protocol} is of single tasks: leave it out for {task} with env.chain={chain}")
    return make(task) if len(tasks) == 1 and chain == 1 else TaskSet(task, tasks, make, chain=chain)


SUITE = Suite(
    name="metaworld",
    help="Meta-World v3: 50 tasks of a Sawyer arm",
    distribution="metaworld",
    instructions=INSTRUCTIONS,
    cameras=tuple(CAMERAS),
    default_task="hammer-v3",
    default_camera="corner4",
    make=make_simulation,
    groups=GROUPS,
    options={"instructions": PLAIN, "positions": "all", "hand": "home", "chain": 1},
    silent_defaults=("instructions", "positions", "hand", "chain"),
    protocols={"cortex": CORTEX_TASKS},
    experts={"scripted": "Meta-World's own policy for the task"},
    build_expert=build_expert,
)
