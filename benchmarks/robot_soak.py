"""A long deployment on the simulated robot: does memory stay flat, does the command loop stay on time?

python benchmarks/robot_soak.py RUN [--minutes 30] [--to docs/results/robot/soak.json]

RUN is a run folder of `embodied train env=metaworld`. It runs `embodied deploy run=RUN robot=sim live=true` with one
evaluation episode after the other and a recording, and reads the private memory of every process (USS: what it alone
holds) each 5 s. Flat means: from the end of the first quarter to the end no process gains more than 2 % or 2 MB. It
prints both, draws the curves beside the JSON, and exits with 1 where memory grew or the deployment failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import psutil

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EVERY_S = 5.0
SHARE, LEAST_MB = 0.02, 2.0
EPISODE_S = 4.0  # shorter than any, so that there are enough of them
ROLES = ("policy", "commands", "recorder", "simulator")
Samples = dict[str, list[tuple[float, float]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--to", type=Path, default=Path("soak.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, code, said, recorded = soak(options.run, options.minutes * 60, Path(folder) / "soak.mcap")
    rows = {name: verdict(points) for name, points in samples.items()}
    print("\n".join(said[-12:]))
    print(f"recorded {recorded / 2**20:.0f} MB; deploy ended with {code}")
    print("process       MB at 1/4   MB at end    gain  flat")
    for name, (before, after, flat) in rows.items():
        print(f"{name:12} {before:10.1f} {after:11.1f} {after - before:+7.1f}  {'yes' if flat else 'NO'}")
    options.to.parent.mkdir(parents=True, exist_ok=True)
    content = {"minutes": options.minutes, "exit_code": code, "uss_mb": samples, "said": said[-12:]}
    options.to.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draw(samples, options.to.with_suffix(".png"))
    return int(code != 0 or not all(flat for _, _, flat in rows.values()))


def soak(run: Path, seconds: float, recording: Path) -> tuple[Samples, int, list[str], int]:
    """Memory of each process by time, the exit code of deploy, its last lines, and bytes recorded."""
    command = [
        sys.executable,
        "-m",
        "embodied",
        "deploy",
        f"run={run}",
        "robot=sim",
        "live=true",
        f"record={recording}",
    ]
    command += [f"episodes={int(seconds / EPISODE_S)}", f"seconds={seconds:g}"]
    samples: Samples = {}
    with tempfile.TemporaryFile("w+") as output:
        launched = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        launcher, start = psutil.Process(launched.pid), time.monotonic()
        while launched.poll() is None:
            for name, process in processes(launcher):
                try:
                    held = process.memory_full_info().uss / 2**20
                except psutil.Error:  # it has just ended
                    continue
                samples.setdefault(name, []).append((time.monotonic() - start, held))
            time.sleep(EVERY_S)
        output.seek(0)
        said = [line.rstrip() for line in output if line.strip()]
    recorded = sum(path.stat().st_size for path in recording.parent.glob(f"{recording.name}*"))
    return samples, launched.returncode, said, recorded


def processes(launcher: psutil.Process) -> list[tuple[str, psutil.Process]]:
    """The launcher and the processes of the roles, by name."""
    found = [("launcher", launcher)]
    try:
        for child in launcher.children():
            words = child.cmdline()
            found += [(role, child) for role in ROLES if role in words]
    except psutil.Error:  # one has just ended
        return found
    return found


def verdict(points: list[tuple[float, float]]) -> tuple[float, float, bool]:
    """Memory about the end of the first quarter and at the end (medians of a twentieth of the time); is it flat?"""
    values = np.array([value for _, value in points])
    few = max(1, len(values) // 20)
    before, after = float(np.median(values[len(values) // 4 :][:few])), float(np.median(values[-few:]))
    return before, after, after - before <= max(LEAST_MB, SHARE * before)


def draw(samples: Samples, path: Path) -> None:
    """Memory by time, relative to the end of the first quarter."""
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, points in samples.items():
        times, values = np.array(points).T
        axes.plot(times / 60, values - verdict(points)[0], label=f"{name}, {values[-1]:.0f} MB")
    axes.set(xlabel="minutes", ylabel="MB, against 1/4 of the time", ylim=(-20, 20))
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
