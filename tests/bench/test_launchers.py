"""Ray and Slurm on the same list: two nodes of which one is killed, jobs of several items, jobs that are lost."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from toy_runners import MakeToyRunner
from toy_schedule import lines, run

from embodied.bench.launchers.ray_cluster import RayCrew
from embodied.bench.launchers.slurm import SlurmCrew
from embodied.core.errors import UsageError


def parents():
    """Parent of every process, by process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def descendants(process):
    """All processes below one, and itself, the deepest first."""
    tree = parents()
    found, edge = [process], [process]
    while edge:
        edge = [child for child, parent in tree.items() if parent in edge]
        found += edge
    return found[::-1]


def kill(processes):
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Address of a Ray cluster, and the processes of its two nodes, started by `ray start` on loopback."""
    pytest.importorskip("ray")
    home = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: there are sockets in it
    shared = [str(Path(__file__).parents[1] / "shared"), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(shared))
    monkeypatch.setenv("HOME", str(home))  # Ray leaves a token there
    monkeypatch.setenv("RAY_TMPDIR", str(home))  # and the address of the cluster for others to find
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_initial_delay_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    size = ["--object-store-memory=80000000", "--node-ip-address=127.0.0.1"]
    places = [["--head", f"--port={port}", "--include-dashboard=false"], [f"--address={address}"]]
    processes = []
    with open(tmp_path / "ray.log", "wb") as log:
        try:
            for place in places:
                processes.append(subprocess.Popen([*start, *size, *place], stdout=log, stderr=log))
                deadline = time.monotonic() + 90
                while (tmp_path / "ray.log").read_bytes().count(b"--block") < len(processes):
                    assert processes[-1].poll() is None, (tmp_path / "ray.log").read_text()
                    assert time.monotonic() < deadline, (tmp_path / "ray.log").read_text()
                    time.sleep(0.1)
            yield address, processes
        finally:
            for process in processes:
                kill(descendants(process.pid))
                process.wait()
            shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
def test_a_ray_node_is_killed_and_nothing_is_lost(tmp_path, nodes):
    address, (_, second) = nodes
    crew = RayCrew(MakeToyRunner(tmp_path), size=None, options={"address": address})
    assert crew.size == 2
    killed = []
    wait = crew.wait

    def wait_and_kill(timeout_s):
        reports = wait(timeout_s)
        if not killed and len({report.worker for report in reports} | seen) == 2:
            killed.extend(descendants(second.pid))
            kill(killed)
        seen.update(report.worker for report in reports)
        return reports

    seen: set[int] = set()
    crew.wait = wait_and_kill
    keys = [*(f"slow{number}" for number in range(8)), "error1"]
    states, failed, _, _ = run(tmp_path, keys, crew=crew)
    assert killed, "both nodes should have worked"
    assert states == {**dict.fromkeys(keys, "done"), "error1": "failed"}
    assert failed == {"error1": "this cannot work"}
    assert set(lines(tmp_path, "done")) == set(keys) - {"error1"}


def test_options_of_ray_are_named(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="unknown launcher option of ray 'adress': did you mean address"):
        RayCrew(MakeToyRunner(tmp_path), size=1, options={"adress": "x"})


def slurm_crew(tmp_path, **options):
    pytest.importorskip("submitit")
    return SlurmCrew(MakeToyRunner(tmp_path), size=2, folder=tmp_path / "slurm", options=options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's debug jobs leave logs open
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_slurm_jobs_of_several_items(tmp_path, monkeypatch, cluster):
    shared = [str(Path(__file__).parents[1] / "shared"), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(shared))
    keys = ["fine1", "error1", "error-once1", "fine2", "fine3"]
    states, failed, _, _ = run(
        tmp_path, keys, crew=slurm_crew(tmp_path, cluster=cluster, cells_per_job=2, timeout_min=5)
    )
    assert states == {**dict.fromkeys(keys, "done"), "error1": "failed"}
    assert failed == {"error1": "this cannot work"}


@pytest.mark.slow
def test_a_slurm_job_that_is_killed_is_done_again(tmp_path, monkeypatch):
    shared = [str(Path(__file__).parents[1] / "shared"), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(shared))
    crew = slurm_crew(tmp_path, cluster="local", cells_per_job=1, timeout_min=5)
    states, _, _, watcher = run(tmp_path, ["killed-once1", "fine1"], crew=crew)
    assert states == {"killed-once1": "done", "fine1": "done"}
    assert any(told[0] == "waiting" and "was lost" in told[2] for told in watcher.told)


def test_options_of_slurm_are_checked(tmp_path):
    with pytest.raises(UsageError, match="cells_per_job must be at least 1"):
        slurm_crew(tmp_path, cluster="local", cells_per_job=0)
    with pytest.raises(UsageError, match="no_such"):
        slurm_crew(tmp_path, cluster="local", no_such=3)
