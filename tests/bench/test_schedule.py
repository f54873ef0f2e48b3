"""The schedule and its crews: everything ends done or failed, whatever becomes of workers, and none is left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import started
from toy_runners import MakeToyTeamRunner
from toy_schedule import lines, run

from embodied.bench.launchers.local import LocalCrew, devices_of_workers
from embodied.bench.work_list import Item, WorkList
from embodied.envs.worker_processes import usable_cores


def test_everything_ends_done_or_failed_and_nothing_stops_the_rest(tmp_path):
    keys = ["fine1", "error1", "bug1", "error-once1", "killed-once1", "killed1", "fine2"]
    states, failed, tally, watcher = run(tmp_path, [*keys, Item(key="fine3", needs="error1")])
    expected = dict.fromkeys(("fine1", "error-once1", "killed-once1", "fine2"), "done")
    assert states == {**expected, **dict.fromkeys(("error1", "bug1", "killed1", "fine3"), "failed")}
    assert failed["error1"] == failed["fine3"] == "this cannot work"  # one line
    assert failed["bug1"] == "ValueError: seven"
    assert "SIGKILL" in failed["killed1"] and "memory" in failed["killed1"]
    begun = lines(tmp_path, "begun")
    assert (begun.count("error1"), begun.count("killed1"), begun.count("fine1")) == (2, 3, 1)
    assert ("begin", 8, 2) in watcher.told
    assert tally.items == len(begun)


def test_what_a_lost_worker_had_done_is_not_repeated(tmp_path):
    states, _, _, _ = run(tmp_path, ["killed1"], survived=lambda key: key == "killed1")
    assert states == {"killed1": "done"}
    assert lines(tmp_path, "begun") == ["killed1"]


def test_workers_work_side_by_side(tmp_path):
    states, _, tally, _ = run(tmp_path, [f"slow{number}" for number in range(4)])
    assert set(states.values()) == {"done"}
    assert tally.item_seconds >= 4.0
    first, second = lines(tmp_path, "begun")[:2]
    assert {first, second} == {"slow0", "slow1"}
    assert tally.overhead_seconds >= 0


def team(*keys):
    return [Item(key=key, team="one") for key in keys]


def test_a_team_goes_to_one_worker_and_what_killed_it_goes_alone(tmp_path):
    crew = LocalCrew(MakeToyTeamRunner(tmp_path), size=1, batch=3)
    keys = ["fine1", "killed1", "fine2", "error1", "fine3", "fine4"]
    states, failed, _, watcher = run(tmp_path, [*team(*keys), Item(key="fine5")], crew=crew)
    fine = dict.fromkeys(("fine1", "fine2", "fine3", "fine4", "fine5"), "done")
    assert states == {**fine, "killed1": "failed", "error1": "failed"}
    assert failed["error1"] == "this cannot work"
    assert lines(tmp_path, "teams")[0] == "fine1 killed1 fine2"
    assert lines(tmp_path, "begun").count("killed1") == 3
    assert lines(tmp_path, "begun").count("fine2") == 1  # it had not been begun when the worker was lost
    assert [told[:2] for told in watcher.told if told[1] == "fine2"] == [
        ("started", "fine2"),
        ("waiting", "fine2"),
        ("started", "fine2"),
        ("done", "fine2"),
    ]
    assert all("killed1" not in line.split() for line in lines(tmp_path, "teams")[1:])


def test_at_the_end_there_is_something_for_everyone(tmp_path):
    crew = LocalCrew(MakeToyTeamRunner(tmp_path), size=2, batch=8)
    states, _, _, _ = run(tmp_path, team(*(f"slow{number}" for number in range(4))), crew=crew)
    assert set(states.values()) == {"done"}
    assert len(lines(tmp_path, "teams")[0].split()) == 2


def running():
    """Parent of every process that runs, by process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if values[0] != "Z":
            found[int(path.parent.name)] = int(values[1])
    return found


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from toy_schedule import run
if __name__ == "__main__":
    run(Path({folder!r}), [f"slow{{n}}" for n in range(30)])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_sigkill_leave_a_list_to_go_on_with_and_no_process(tmp_path, number):
    script = tmp_path / "script.py"
    shared = [str(Path(__file__).parents[1] / "shared"), str(Path(__file__).parents[2])]
    script.write_text(SCRIPT.format(paths=shared, folder=str(tmp_path)))
    with started([sys.executable, str(script)], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "done").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        workers = {child for child, parent in running().items() if parent == process.pid}
        assert len(workers) >= 2
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
        assert number == signal.SIGKILL or b"KeyboardInterrupt" in told
        deadline = time.monotonic() + 20
        while workers & running().keys():
            assert time.monotonic() < deadline, "a worker is left"
            time.sleep(0.1)
    with WorkList(tmp_path) as work:
        work.add([Item(key=f"slow{n}") for n in range(30)])
        work.take_up_lost()
        states = [status for status, _ in work.states().values()]
    assert states.count("done") >= 1
    assert set(states) == {"done", "waiting"}


def test_workers_are_as_many_as_cores_or_as_asked_for():
    assert devices_of_workers(3, "cpu") == ["cpu"] * 3
    assert 1 <= len(devices_of_workers(None, "cpu")) <= usable_cores()
