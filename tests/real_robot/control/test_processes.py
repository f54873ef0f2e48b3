"""Real processes that are killed. Bounds are the stated ones plus `BUSY_S`, for a machine that does other things."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_processes

from embodied.real_robot.control.cycle import rest_bound_s
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.status import StatusBoard

BUSY_S = 2.0
START_S = 60.0  # for processes to start


def start(role, folder):
    path = [str(Path(__file__).parents[3]), str(Path(toy_processes.__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.Popen([sys.executable, toy_processes.__file__, role, str(folder)], env=environment)


def until(condition):
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def commands(folder):
    """Times [T], s, positions [T, 2], and gaps before each of them [T]."""
    path = folder / "commands"
    data = path.read_bytes() if path.exists() else b""
    rows = np.frombuffer(data[: len(data) // 32 * 32]).reshape(-1, 4)
    return rows[:, 0] / 1e9, rows[:, 1:3], rows[:, 3]


def stretches(way, gaps):
    """The positions between gaps, each [t, 2]."""
    return np.split(way, np.flatnonzero(np.diff(gaps)) + 1)


@pytest.fixture
def running(tmp_path):
    """Both processes, with the arm swinging."""
    PolicyMailbox.create(tmp_path / "mailbox", toy_processes.robot())
    processes = {role: start(role, tmp_path) for role in ("policy", "commands")}
    try:
        until(lambda: len(commands(tmp_path)[0]) > 50)
        yield tmp_path, processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def test_killing_the_policy_leads_to_rest_within_the_stated_bound_and_a_fault(running):
    folder, processes = running
    os.kill(processes["policy"].pid, signal.SIGKILL)
    killed = time.monotonic()
    board = StatusBoard.open(folder / "board")
    until(lambda: board.read()["mode"] == "fault")
    late = killed + rest_bound_s(toy_processes.robot()) + BUSY_S
    until(lambda: np.sum(commands(folder)[0] > late) > 10)  # however slowly a busy machine writes them
    (folder / "stop").touch()
    assert processes["commands"].wait(START_S) == 0
    times, way, gaps = commands(folder)
    assert np.abs(np.diff(way, axis=0)).max() > 1e-4
    after = way[times > late]
    assert (after == after[0]).all()
    for order, limit in ((1, 1.0), (2, 4.0), (3, 40.0)):
        for stretch in stretches(way, gaps):
            assert (np.abs(np.diff(stretch, n=order, axis=0)) * 100**order <= limit * (1 + 1e-6)).all()


def test_killing_the_command_process_ends_the_commands_and_leaves_the_policy_running(running):
    folder, processes = running
    os.kill(processes["commands"].pid, signal.SIGKILL)
    assert processes["commands"].wait(START_S) == -signal.SIGKILL
    count = len(commands(folder)[0])
    box = PolicyMailbox.open(folder / "mailbox", toy_processes.robot())
    number = box.read_chunk().number
    until(lambda: box.read_chunk().number > number + 5)
    assert processes["policy"].poll() is None and len(commands(folder)[0]) == count


def test_stopping_the_command_process_ends_it_at_rest(running):
    folder, processes = running
    (folder / "stop").touch()
    assert processes["commands"].wait(START_S) == 0
    times, way, gaps = commands(folder)
    assert len(times) > 50
    stopped_by_itself = int((folder / "gaps").read_text()) > gaps[-1]
    moves = np.abs(np.diff(stretches(way, gaps)[-1], axis=0)[-1:])  # one command after a gap is where the robot stands
    assert stopped_by_itself or not moves.size or moves.max() < 1e-5
