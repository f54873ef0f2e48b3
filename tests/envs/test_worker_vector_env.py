"""Slots spread over processes: Gymnasium's semantics to the letter from any number of workers; failures are told."""

import os
import signal
import time
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from embodied.core.errors import UsageError, UserError
from embodied.envs.vector import AUTORESETS
from embodied.envs.worker_vector_env import WorkerVectorEnv

SLOTS = 5


class Walk(gymnasium.Env):
    """A random walk whose episodes end at random, with infos of every kind, some of them now and then."""

    observation_space = Dict(
        place=Box(-np.inf, np.inf, (2,), np.float32), part=Dict(frame=Box(0, 255, (3, 2, 3), np.uint8), die=Discrete(6))
    )
    action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2) + (options or {}).get("offset", 0.0)
        return self.observation(), {"begun": True} if self.np_random.random() < 0.5 else {}

    def observation(self):
        frame = self.np_random.integers(0, 256, (3, 2, 3), dtype=np.uint8)
        return {"place": self.place.astype(np.float32), "part": {"frame": frame, "die": self.np_random.integers(6)}}

    def step(self, action):
        self.place = self.place + action
        draw = self.np_random.random()
        info = {"draw": draw, "lucky": draw > 0.5, "nested": {"place": self.place, "word": f"{draw:.3f}"}}
        if draw < 0.3:
            info = {"rare": 7} if draw < 0.2 else {}
        return self.observation(), draw, draw > 0.85, bool(draw < 0.1), info


def walks(autoreset, workers, envs=SLOTS):
    return WorkerVectorEnv(
        Walk, num_envs=envs, gl_devices=[None] * workers, task="walking", autoreset=AUTORESETS[autoreset]
    )


def frozen(value):
    """A copy that says what there is to compare, dtypes included."""
    if isinstance(value, dict):
        return {name: frozen(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [frozen(part) for part in value]
    if isinstance(value, np.ndarray):
        return (
            value.dtype.str,
            value.shape,
            [frozen(part) if isinstance(part, dict) else part for part in value.tolist()],
        )
    return value.tolist() if isinstance(value, np.generic) else value


def history(environment):
    """All that 60 steps give, with resets of all and of some slots in between."""
    rng = np.random.default_rng(0)
    seen = [frozen(environment.reset(seed=3))]
    seen.append(frozen(environment.reset(seed=[9, None, 8, 7, None], options={"offset": 2.0})))
    for step in range(60):
        result = environment.step(rng.uniform(-1, 1, (SLOTS, 2)).astype(np.float32))
        seen.append(frozen(result))
        over = result[2] | result[3]
        if environment.metadata["autoreset_mode"] is not AutoresetMode.DISABLED:
            over &= step % 20 == 0
        if over.any():
            seeds = [int(rng.integers(100)) if one else None for one in over]
            seen.append(frozen(environment.reset(seed=seeds, options={"reset_mask": over, "offset": 1.0})))
    return seen


@pytest.mark.parametrize("autoreset", sorted(AUTORESETS))
def test_all_is_as_gymnasium_has_it_whatever_the_workers(autoreset):
    wanted = history(SyncVectorEnv([Walk] * SLOTS, autoreset_mode=AUTORESETS[autoreset]))
    assert sum(len(step) == 5 and any(step[2][2]) for step in wanted) > 5  # episodes do end
    for workers in (0, 1, 2, 3):
        with closing(walks(autoreset, workers)) as environment:
            assert history(environment) == wanted, f"{workers} workers"


@pytest.mark.parametrize("workers", [0, 2])
def test_spaces_metadata_and_bad_arguments(workers):
    alike = SyncVectorEnv([Walk] * 3, autoreset_mode=AUTORESETS["same_step"])
    with closing(walks("same_step", workers, envs=3)) as environment:
        for name in ("num_envs", "single_observation_space", "single_action_space", "metadata", "render_mode"):
            assert getattr(environment, name) == getattr(alike, name)
        assert environment.observation_space == alike.observation_space
        assert environment.action_space == alike.action_space
        environment.reset(seed=0)
        for wrong in (np.zeros((3, 1)), np.zeros(2), np.zeros((2, 2))):
            with pytest.raises(UsageError, match=r"actions: expected shape \[3, 2\], got \["):
                environment.step(wrong)
        with pytest.raises(ValueError, match="expected 3 seeds, one per slot, got 2"):
            environment.reset(seed=[1, 2])
        for mask in (np.zeros(3, bool), np.ones(3), np.ones(2, bool), [True] * 3):
            with pytest.raises(ValueError, match="expected an array of 3 bools, one of them True"):
                environment.reset(options={"reset_mask": mask})
        environment.step(np.zeros((3, 2)))  # all of which it survives


@pytest.mark.parametrize("workers", [0, 2])
def test_attributes_and_calls_come_by_slot(workers):
    with closing(walks("disabled", workers, envs=3)) as environment:
        environment.reset(seed=[4, 5, 6])
        assert environment.get_attr("np_random_seed") == (4, 5, 6)
        environment.set_attr("step", [1, 2, 3])
        assert environment.get_attr("step") == (1, 2, 3)
        environment.set_attr("step", "all")
        assert environment.call("step") == ("all",) * 3
        assert [sorted(answer) for answer in environment.call("observation")] == [["part", "place"]] * 3
        with pytest.raises(ValueError, match="expected 3 values, got 2"):
            environment.set_attr("step", [1, 2])
        environment.set_attr("step", [len, len, len])
        assert environment.call("step", "four") == (4, 4, 4)


def test_what_was_returned_is_not_written_over_but_for_observations():
    with closing(walks("same_step", 2)) as environment:
        environment.reset(seed=0)
        first = environment.step(np.zeros((SLOTS, 2)))
        kept = frozen(first[1:])
        for _ in range(20):
            assert environment.step(np.ones((SLOTS, 2)))[0] is first[0]
        assert frozen(first[1:]) == kept


class Counter(gymnasium.Env):
    """Counts its steps, and does what an action bids it."""

    observation_space = Box(0, np.inf, (1,), np.float32)
    action_space = Box(-10, 10, (1,), np.float32)

    def __init__(self, broken=False):
        if broken:
            raise UserError("no such simulator: install it")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if action == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == MISTAKE:
            raise UsageError("action: too large")
        if action == BUG:
            raise Unsendable(lambda: "cannot be pickled")
        if action == SLOW:
            time.sleep(60)
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, False, self.steps == 2, {}

    def unsendable(self):
        return lambda: self


class Unsendable(Exception):
    pass


GO, KILL, MISTAKE, BUG, SLOW = range(5)


def counters(envs=2, workers=2, make=Counter):
    return WorkerVectorEnv(
        make, num_envs=envs, gl_devices=[None] * workers, task="counting", autoreset=AUTORESETS["disabled"]
    )


def bid(*actions):
    return np.array(actions, np.float32)[:, None]


def processes(environment):
    return [group.worker.process for group in environment.groups]


def all_ended(environment):
    return environment.closed and not any(process.is_alive() for process in processes(environment))


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (MISTAKE, UsageError, "^action: too large$"),
        (BUG, RuntimeError, r"^environment 3 \(counting\) failed:\nTraceback(.|\n)*Unsendable"),
        (KILL, UserError, r"^worker 1, environments 1, 3 \(counting\) was ended by SIGKILL: most often memory ran out"),
    ],
    ids=["mistake", "bug", "killed"],
)
def test_what_ends_a_worker_is_told_at_once_and_ends_all(action, error, message):
    environment = counters(envs=4)
    environment.reset()
    start = time.monotonic()
    with pytest.raises(error, match=message):
        environment.step(bid(GO, GO, GO, action))
    assert time.monotonic() - start < 10
    assert all_ended(environment)
    with pytest.raises(ClosedEnvironmentError):
        environment.step(bid(GO, GO, GO, GO))


def test_an_answer_that_cannot_be_sent():
    environment = counters()
    with pytest.raises(RuntimeError, match=r"^environment 0 \(counting\) failed:\nTraceback(.|\n)*pickle"):
        environment.call("unsendable")
    assert all_ended(environment)


def test_a_worker_that_is_killed_between_steps():
    environment = counters()
    environment.reset()
    os.kill(processes(environment)[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^environment 0 \(counting\) was ended by SIGKILL"):
        environment.step(bid(GO, GO))
    assert all_ended(environment)


def test_closing_in_the_middle_of_a_step_does_not_wait_for_it():
    environment = counters()
    environment.reset()
    environment.step_async(bid(GO, SLOW))
    with pytest.raises(AlreadyPendingCallError):
        environment.reset()
    start = time.monotonic()
    environment.close()
    assert time.monotonic() - start < 10
    assert all_ended(environment)


def test_a_step_in_two_halves():
    with closing(counters(envs=3)) as environment:
        environment.reset()
        with pytest.raises(NoAsyncCallError):
            environment.step_wait()
        environment.step_async(bid(GO, GO, GO))
        assert environment.step_wait()[0].tolist() == [[1], [1], [1]]


def test_an_error_here_closes_the_environment_too():
    environment = counters(workers=0)
    environment.reset()
    with pytest.raises(UsageError, match="action: too large"):
        environment.step(bid(GO, MISTAKE))
    assert environment.closed


def test_an_environment_that_works_here_but_not_in_the_workers():
    with pytest.raises(UserError, match=r"^no such simulator: install it$"):
        counters(make=OnlyHere(os.getpid()))


def test_an_environment_that_is_another_one_in_the_workers():
    with pytest.raises(RuntimeError, match=r"^environment 0 \(counting\) failed:\n(.|\n)*differ in their spaces"):
        counters(make=OtherElsewhere(os.getpid()))


class OnlyHere:
    def __init__(self, pid):
        self.pid = pid

    def __call__(self):
        return Counter(broken=os.getpid() != self.pid)


class OtherElsewhere(OnlyHere):
    def __call__(self):
        return Counter() if os.getpid() == self.pid else Walk()


def test_every_worker_gets_its_gpu():
    environment = WorkerVectorEnv(
        Counter, num_envs=5, gl_devices=[3, 7], task="counting", autoreset=AUTORESETS["disabled"]
    )
    with closing(environment):
        environment.set_attr("device", [DeviceOf()] * 5)
        assert environment.call("device") == ("3", "7", "3", "7", "3")


class DeviceOf:
    def __call__(self):
        return os.environ.get("MUJOCO_EGL_DEVICE_ID")


class Camera(Counter):
    """Shows whether it was asked to look."""

    looking = True

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + 10 * self.looking, *rest


@pytest.mark.parametrize("workers", [0, 2])
def test_each_slot_looks_when_told_to(workers):
    environment = WorkerVectorEnv(
        Camera, num_envs=3, gl_devices=[None] * workers, task="looking", autoreset=AUTORESETS["disabled"]
    )
    with closing(environment):
        environment.reset(seed=0)
        actions = np.zeros((3, 1), np.float32)
        assert environment.step(actions)[0][:, 0].tolist() == [11, 11, 11]
        environment.look(np.array([True, False, True]))
        for step in (2, 3):
            assert environment.step(actions)[0][:, 0].tolist() == [10 + step, step, 10 + step]
