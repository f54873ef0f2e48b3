"""Worker processes: jobs in order, failures, and no process left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest
from processes import started

from embodied.core.errors import UsageError, UserError
from embodied.envs import worker_processes
from embodied.envs.worker_jobs import map_in_workers
from embodied.envs.worker_processes import error_of_death, usable_cores

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
        if sys.argv[1] == "starting":
            print("ready", flush=True)
        environment = make_vector_env(options, num_envs=2, workers=2)
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
@pytest.mark.parametrize("kind", ["rollout", "vector", "starting"])
def test_ctrl_c_ends_all_processes_without_noise(kind, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(SCRIPT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started([sys.executable, str(script), kind], text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        while len(workers := workers_of(process.pid)) < 3:  # multiprocessing's own is one of them
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        errors = process.communicate(timeout=90)[1]
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


def test_cores_of_this_process():
    if hasattr(os, "sched_getaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, [min(cores)])
        try:
            assert usable_cores() == 1
        finally:
            os.sched_setaffinity(0, cores)
        assert usable_cores() == len(cores)


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
