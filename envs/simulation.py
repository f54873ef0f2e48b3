"""The contract between a suite and the one environment class (`task_env.TaskEnv`).

A suite is one module in `envs/suites/` with a `SUITE`; what it makes of a task is a `Simulation`: physics, rewards and
success, and nothing about pictures, history, horizons or Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from embodied.core.errors import unknown_name

if TYPE_CHECKING:
    import mujoco

    from embodied.core.protocols import Expert


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A view of the scene.

    Args:
        name: of a camera in the model; empty for a camera that the model has not, which needs position and target.
        flip: turn the picture by 180 degrees, for a camera that is mounted upside down.
        position: metres; moves a camera of the model in the frame of its parent, or places another in the world.
        target: a body of the model that a camera outside the model looks at, upright.
        fovy: vertical field of view in degrees of a camera outside the model; None: the model's.
    """

    name: str = ""
    flip: bool = False
    position: tuple[float, float, float] | None = None
    target: str = ""
    fovy: float | None = None


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What is fixed about one task.

    Args:
        suite, task: names.
        instruction: what to do, in English, for language-conditioned policies.
        robot: which one.
        cameras: the views that may be asked for, by their names in observations.
        fps: actions per second of simulated time.
        horizon: steps after which an episode is truncated, by default; `horizon_limit` at most.
        state: names of the elements of `observation.state`: what a real robot knows of itself. May be empty.
        environment_state: names of the elements of `observation.environment_state`, or their number.
        action: names of the elements of an action.
        action_low, action_high: float32 [A].
        gripper: elements of the action that open and close; noise on them would drop what is held.
        ends_on_success: whether an episode is over when the task is done.
    """

    suite: str
    task: str
    instruction: str
    robot: str
    cameras: Mapping[str, Camera]
    fps: float
    horizon: int
    horizon_limit: int
    state: tuple[str, ...]
    environment_state: tuple[str, ...] | int
    action: tuple[str, ...]
    action_low: np.ndarray
    action_high: np.ndarray
    gripper: tuple[int, ...] = ()
    ends_on_success: bool = True


class Progress(NamedTuple):
    """What came of an action.

    reward: of the suite. success: whether the task is done now, by the suite's rule. score: in [0, 1], what benchmarks
    of this suite report of an episode that ends here; None where that is the success. failed: the episode cannot go on.
    """

    reward: float
    success: bool
    score: float | None = None
    failed: bool = False


class Simulation(Protocol):
    """One task, simulated. Same seed, same trajectory, in any process and after any other episodes.

    `model` and `data` are MuJoCo's and may be others after a reset; whoever keeps them asks again. So may `spec`: of
    several tasks in one simulation it is that of the present one, and another object whenever another task begins, in
    the middle of an episode too.
    """

    spec: TaskSpec

    @property
    def model(self) -> mujoco.MjModel: ...

    @property
    def data(self) -> mujoco.MjData: ...

    def reset(self, seed: int) -> None:
        """Start the episode of that seed; afterwards `data` is ready to be rendered."""
        ...

    def step(self, action: np.ndarray) -> Progress:
        """Take one action float32 [A] inside the bounds; afterwards `data` is ready to be rendered."""
        ...

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """`observation.state` float32 [P] and `observation.environment_state` float32 [S]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A family of tasks. Making one of these imports no simulator: lists of names are written out.

    Args:
        name: as in `env=<name>`.
        help: one line.
        distribution: whose version decides trajectories, as pip names it.
        instructions: of every task, by its name.
        cameras: every view of the suite; a task may have fewer.
        default_task, default_camera: what is taken when nothing is said.
        make: a task's simulation: `make(task, protocol=..., **options)`.
        options: further arguments of `make` with their defaults.
        groups: names of sets of tasks that may be asked for together, besides names joined with `+`; empty where `make`
            takes single tasks only.
        silent_defaults: options that, at their defaults, stand in no record of a store or benchmark, so that those from
            before there were such options keep their names.
        protocols: names of benchmark protocols beside the default one, such as `cortex`; each with the tasks it has.
        experts: behaviours beside `random` that fill a store, with one line each.
        build_expert: `build_expert(kind, task, simulation)` for a kind of `experts`.
    """

    name: str
    help: str
    distribution: str
    instructions: Mapping[str, str]
    cameras: Sequence[str]
    default_task: str
    default_camera: str
    make: Callable[..., Simulation]
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    silent_defaults: Sequence[str] = ()
    protocols: Mapping[str, Sequence[str]] = field(default_factory=dict)
    experts: Mapping[str, str] = field(default_factory=dict)
    build_expert: Callable[[str, str, Simulation], Expert] | None = None

    def make_expert(self, kind: str, task: str, simulation: Simulation) -> Expert:
        """The behaviour of that name for a task.

        Raises:
            UsageError: the suite has none of that name, or none for the task.
        """
        if kind not in self.experts or self.build_expert is None:
            raise unknown_name("collect.expert", kind, self.experts)
        return self.build_expert(kind, task, simulation)
