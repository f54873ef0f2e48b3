"""Environments in worker processes: autoresets, failures, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from embodied.core.errors import UsageError, UserError
from embodied.envs import gl, worker_processes
from embodied.envs.gl import spread_over_gpus
from embodied.envs.task_env import TaskEnv
from embodied.envs.vector import AUTORESETS, make_vector_env, reset_slots
from embodied.envs.worker_processes import error_of_death, map_in_workers
from embodied.envs.worker_vector_env import WorkerVectorEnv

OPTIONS = {"task": "reach-v3", "images": False, "horizon": 2}
STATE = "observation.environment_state"
STILL = np.zeros((2, 4), np.float32)


def test_unknown_autoreset_and_no_environments():
    with pytest.raises(UsageError, match="autoreset 'same': did you mean same_step"):
        make_vector_env(OPTIONS, num_envs=2, autoreset="same")
    with pytest.raises(UsageError, match="num_envs must be at least 1, got 0"):
        make_vector_env(OPTIONS, num_envs=0)


@pytest.mark.sim
def test_frames_of_two_processes_are_those_of_one():
    options = {"task": "reach-v3", "image_size": 24, "camera": ["corner4", "topview"]}
    frames = []
    for count in (1, 2):
        with closing(make_vector_env(options, num_envs=count)) as environment:
            first = {name: array[0].copy() for name, array in reset_slots(environment, [3] + [4] * (count - 1)).items()}
            step = environment.step(np.ones((count, 4), np.float32))[0]
            frames.append([first, {name: array[0].copy() for name, array in step.items()}])
    for here, there in zip(*frames, strict=True):
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)


@pytest.mark.sim
@pytest.mark.parametrize("count", [1, 2])
def test_same_step_gives_the_next_episode_and_the_last_observation(count):
    with closing(make_vector_env(OPTIONS, num_envs=count, autoreset="same_step")) as environment:
        environment.reset(seed=[5, 6][:count])
        environment.step(STILL[:count])
        observation, _, _, truncated, infos = environment.step(STILL[:count])
        assert truncated.tolist() == [True] * count
        assert infos["final_info"]["success"].tolist() == [False] * count
        alone = TaskEnv(**OPTIONS)
        alone.reset(seed=5)
        alone.step(STILL[0])
        last = alone.step(STILL[0])[0][STATE]
        assert np.array_equal(infos["final_obs"][0][STATE], last)
        assert np.array_equal(observation[STATE][0], alone.reset()[0][STATE])
        assert not np.array_equal(observation[STATE][0], last)
        assert environment.step(STILL[:count])[3].tolist() == [False] * count


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


class Unsendable(Exception):
    pass


GO, KILL, MISTAKE, BUG, SLOW = range(5)


def counters(autoreset="disabled"):
    names = [f"environment {slot} (counting)" for slot in range(2)]
    return WorkerVectorEnv(Counter, names=names, gl_devices=[None, None], autoreset=AUTORESETS[autoreset])


def bid(*actions):
    return np.array(actions, np.float32)[:, None]


def all_ended(environment):
    return environment.closed and not any(process.is_alive() for process in environment.processes)


def test_next_step_resets_with_the_step_after_the_end():
    with closing(counters(autoreset="next_step")) as environment:
        environment.reset()
        seen = [environment.step(bid(GO, GO)) for _ in range(4)]
        assert [step[3].tolist() for step in seen] == [[False, False], [True, True], [False, False], [False, False]]
        assert [step[1].tolist() for step in seen] == [[1, 1], [1, 1], [0, 0], [1, 1]]
        assert environment.observations.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (MISTAKE, UsageError, "^action: too large$"),
        (BUG, RuntimeError, r"^environment 1 \(counting\) failed:\nTraceback(.|\n)*Unsendable"),
        (KILL, UserError, r"^environment 1 \(counting\) was ended by SIGKILL: most often memory ran out"),
    ],
    ids=["mistake", "bug", "killed"],
)
def test_what_ends_a_worker_is_told_at_once_and_ends_all(action, error, message):
    environment = counters()
    environment.reset()
    start = time.monotonic()
    with pytest.raises(error, match=message):
        environment.step(bid(GO, action))
    assert time.monotonic() - start < 10
    assert all_ended(environment)


def test_a_worker_that_is_killed_between_steps():
    environment = counters()
    environment.reset()
    os.kill(environment.processes[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^environment 0 \(counting\) was ended by SIGKILL"):
        for _ in range(2):  # the first may still get an action into the pipe
            environment.step(bid(GO, GO))
    assert all_ended(environment)


def test_closing_in_the_middle_of_a_step_does_not_wait_for_it():
    environment = counters()
    environment.reset()
    environment.step_async(bid(GO, SLOW))
    start = time.monotonic()
    environment.close()
    assert time.monotonic() - start < 10
    assert all_ended(environment)


def test_an_environment_that_works_here_but_not_in_the_workers():
    with pytest.raises(UserError, match=r"^no such simulator: install it$"):
        WorkerVectorEnv(
            OnlyHere(os.getpid()), names=["one", "two"], gl_devices=[None, None], autoreset=AUTORESETS["disabled"]
        )


class OnlyHere:
    def __init__(self, pid):
        self.pid = pid

    def __call__(self):
        return Counter(broken=os.getpid() != self.pid)


SCRIPT = """
import sys
import numpy as np
from embodied.envs.rollout import collect_episodes
from embodied.envs.vector import make_vector_env, reset_slots

if __name__ == "__main__":
    options = {"task": "reach-v3", "images": False}
    if sys.argv[1] == "rollout":
        for episode in collect_episodes(options, "random", iter(int, 1), num_workers=2):
            print("ready", flush=True)
    else:
        environment = make_vector_env(options, num_envs=2)
        reset_slots(environment, [0, 1])
        print("ready", flush=True)
        while True:
            environment.step(np.zeros((2, 4), np.float32))
"""


def workers_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as handle:
        return [int(child) for child in handle.read().split()]


def end(pid):
    """Whether a process has ended, within a while."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.sim
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["rollout", "vector"])
def test_ctrl_c_ends_all_processes_without_noise(kind, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    workers = workers_of(process.pid)
    assert len(workers) >= 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    errors = process.communicate(timeout=30)[1]
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert all(end(pid) for pid in workers)


class Squares:
    """A job that fails in several ways."""

    def __call__(self, item):
        if item == "bug":
            raise ZeroDivisionError("in the job")
        if item == "mistake":
            raise UsageError("what is wrong")
        if item == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "unsendable":
            return lambda: item
        if item == "device":
            return os.environ.get("MUJOCO_EGL_DEVICE_ID"), os.getpid()
        time.sleep(0.02 * (item % 3))
        return item * item

    def close(self):
        pass


def squares(items, workers=2, devices=None):
    names = [f"worker {worker}" for worker in range(workers)]
    return map_in_workers(Squares, items, names=names, gl_devices=devices or [None] * workers)


def test_results_come_in_order_and_no_more_is_begun_than_needed():
    asked = []

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    results = squares(items())
    assert [next(results) for _ in range(6)] == [0, 1, 4, 9, 16, 25]
    assert len(asked) <= 6 + 4
    results.close()
    assert list(squares(range(3))) == [0, 1, 4]
    assert list(squares([])) == []


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ("bug", RuntimeError, r"^worker \d failed:\nTraceback(.|\n)*ZeroDivisionError: in the job"),
        ("unsendable", RuntimeError, r"^worker \d failed:\nTraceback(.|\n)*pickle"),
        ("mistake", UsageError, "^what is wrong$"),
        ("kill", UserError, r"^worker \d was ended by SIGKILL: most often memory ran out"),
    ],
)
def test_failures_of_jobs(item, error, message):
    with pytest.raises(error, match=message):
        list(squares([1, 2, item, 3]))


def test_workers_get_their_gpu():
    answers = dict(squares(["device"] * 4, devices=[0, 1]))
    assert set(answers) == {"0", "1"}


def test_gpus_in_turns(monkeypatch):
    monkeypatch.setattr(gl, "egl_devices", lambda: (0, 2))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    assert spread_over_gpus(5) == [0, 2, 0, 2, 0]
    assert spread_over_gpus(1) == [None]
    assert spread_over_gpus(3, [2]) == [2, 2, 2]
    with pytest.raises(UsageError, match="no EGL device 1; the GPUs here are: 0, 2"):
        spread_over_gpus(3, [0, 1])
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "2")
    assert spread_over_gpus(2) == [None, None]  # the workers inherit the user's choice


def test_software_has_no_gpus(monkeypatch):
    monkeypatch.setattr(gl, "egl_devices", tuple)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    assert spread_over_gpus(2) == [None, None]
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert spread_over_gpus(2) == [None, None]
    with pytest.raises(UsageError, match="needs MUJOCO_GL=egl, got 'osmesa'"):
        spread_over_gpus(2, [0])


def test_how_processes_end_is_put_in_words():
    class Ended:
        def __init__(self, exitcode):
            self.exitcode = exitcode

        def join(self, timeout):
            assert timeout == worker_processes._PATIENCE

    assert str(error_of_death(Ended(-signal.SIGSEGV), "worker 1")).startswith(
        "worker 1 was ended by SIGSEGV: most often"
    )
    assert "exit code 3" in str(error_of_death(Ended(3), "worker 1"))
