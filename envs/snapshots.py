"""Where an environment is in its episode, kept so that it can be set back there: for planning with the simulator.

MuJoCo's state is kept with its warm starts and with what was computed of it (places of bodies and sites, sensors),
since libraries read and even write that between two steps; contacts are computed anew. Its model is not kept: nothing
may change that but a reset. What else a simulation remembers between two steps (counters, former observations, a
reached goal) lies in attributes of its own objects and of the library's: numbers and words are copied, for the rest is
kept which object it is. `is_exact` says whether that was all.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.task_env import TaskEnv

if TYPE_CHECKING:
    import mujoco

# Packages whose objects may remember something. MuJoCo's own are copied, spaces and renderers remember nothing.
_OWNERS = ("embodied", "metaworld", "dm_control", "gymnasium_robotics", "robosuite")
_VIEWS = ("dm_control.mujoco", "dm_control.mjcf", "robosuite.utils.binding_utils", "embodied.envs.rendering")
_OF_CONTACTS = ("efc_", "iefc_", "contact", "island", "dof_island", "tree_island", "map_", "nefc", "ncon")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
_OF_ENVIRONMENT = (
    "_steps", "_begun", "_placement", "_succeeded", "_over", "_moments", "looking", "spec_of_task", "_spec_seen",
    "task_description", "_appearance",
)  # fmt: skip


class Snapshot:
    """What was taken of an environment; good until its next reset.

    Args:
        env: to be copied.
    """

    def __init__(self, env: TaskEnv) -> None:
        self._env, self._physics = env, _Physics(env.simulation.model, env.simulation.data)
        self._attributes = [(env, name, _Value(getattr(env, name))) for name in _OF_ENVIRONMENT]
        for owner in _owners(env.simulation):
            self._attributes += [(owner, name, _Value(value)) for name, value in vars(owner).items()]

    def restore(self) -> None:
        """Set the environment back."""
        for owner, name, value in self._attributes:
            vars(owner)[name] = value.restored()
        simulation = self._env.simulation  # which has its data only now, where there are several
        self._env._attach()
        self._physics.restore(simulation.model, simulation.data)


class _Physics:
    """The present state of MuJoCo, and all arrays of fixed size that are computed of it."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        import mujoco

        self._state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION.value))
        mujoco.mj_getState(model, data, self._state, mujoco.mjtState.mjSTATE_INTEGRATION.value)
        self._arrays = {name: getattr(data, name).copy() for name in _computed(type(data), data)}

    def restore(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        import mujoco

        mujoco.mj_setState(model, data, self._state, mujoco.mjtState.mjSTATE_INTEGRATION.value)
        mujoco.mj_forward(model, data)
        for name, values in self._arrays.items():
            getattr(data, name)[...] = values


def _computed(kind: type, data: Any) -> list[str]:
    """Names of the data's arrays but those of contacts and constraints, of which every step may have another number."""
    names = [name for name in dir(kind) if not name.startswith(("_", *_OF_CONTACTS))]
    return [name for name in names if isinstance(value := getattr(data, name), np.ndarray) and value.flags.writeable]


class _Value:
    """An attribute's value and what it held; arrays and generators stay the same objects, for others may have them."""

    def __init__(self, value: Any) -> None:
        self._value, self._copied = value, _kept(value)
        if isinstance(value, np.random.Generator):
            self._held: Any = copy.deepcopy(value.bit_generator.state)
        elif isinstance(value, np.random.RandomState):
            self._held = value.get_state()
        else:
            self._held = copy.deepcopy(value) if self._copied else value

    def restored(self) -> Any:
        if isinstance(self._value, np.random.Generator):
            self._value.bit_generator.state = copy.deepcopy(self._held)
        elif isinstance(self._value, np.random.RandomState):
            self._value.set_state(self._held)
        elif isinstance(self._value, np.ndarray):
            if self._value.flags.writeable:
                self._value[...] = self._held
        elif self._copied:
            return copy.deepcopy(self._held)
        return self._value


def is_exact(env: TaskEnv, seed: int, *, steps: int = 4) -> bool:
    """Whether an environment that is set back goes on as it did, to the last bit; it is reset to `seed` for that."""
    space: Any = env.action_space
    actions = np.random.default_rng(0).uniform(space.low, space.high, (3 * steps, *space.shape)).astype(np.float32)
    env.reset(seed=seed)
    _follow(env, actions[:steps])
    snapshot = Snapshot(env)
    first = _follow(env, actions[steps : 2 * steps])
    snapshot.restore()
    _follow(env, actions[2 * steps :])  # elsewhere, in between
    snapshot.restore()
    second = _follow(env, actions[steps : 2 * steps])
    env.reset(seed=seed)
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def _follow(env: TaskEnv, actions: np.ndarray) -> list[np.ndarray]:
    """What every step shows of the simulator's state, its reward and success."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(np.array([*observation[ENVIRONMENT_STATE], reward, info["success"], info["score"]]))
        if terminated or truncated:
            break
    return seen


def _owners(root: Any) -> list[Any]:
    """The objects that a simulation consists of, each once."""
    found: list[Any] = []
    waiting, seen = [root], set()
    while waiting:
        owner = waiting.pop()
        if id(owner) in seen or not hasattr(owner, "__dict__"):
            continue
        seen.add(id(owner))
        found.append(owner)
        waiting.extend(part for value in vars(owner).values() for part in _parts(value))
    return found


def _parts(value: Any) -> Iterator[Any]:
    """The objects with a memory of their own in an attribute."""
    if isinstance(value, dict):
        value = list(value.values())
    for part in value if isinstance(value, list | tuple) else (value,):
        module = type(part).__module__
        fixed = getattr(getattr(type(part), "__dataclass_params__", None), "frozen", False)
        if module.split(".")[0] in _OWNERS and not module.startswith(_VIEWS) and not fixed:
            yield part


def _kept(value: Any) -> bool:
    """Whether a value holds nothing but numbers and words, so that it can be copied."""
    if isinstance(value, np.ndarray):
        return value.dtype != object
    if isinstance(value, (*_PLAIN, np.random.Generator, np.random.RandomState)):
        return True
    if isinstance(value, dict):
        return all(_kept(key) and _kept(each) for key, each in value.items())
    return isinstance(value, list | tuple | set | deque) and all(map(_kept, value))
