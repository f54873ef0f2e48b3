"""Check this machine: versions, off-screen rendering, GPU, video encoding, disk.

Every fault comes with the command that fixes it. The exit code is 0 when the main job can run, else 1.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.core.errors import UsageError
from embodied.core.files import cache_folder

# Versions that were tested together; the first parts of the version are compared.
TESTED = {
    "torch": "2.13",
    "mujoco": "3.3.0",
    "metaworld": "3.1.1",
    "gymnasium": "1.4",
    "zarr": "3.1",
    "hydra-core": "1.3",
    "safetensors": "0.",
    "accelerate": "1.",
    "av": "",
    "numpy": "2.",
}
OPTIONAL = {"transformers": ("5.", "hf"), "timm": ("1.", "timm")}
DISK_NEEDED_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One line of the report. `status`: ok, note (works, or is optional), fault (the main job cannot run)."""

    name: str
    status: str
    detail: str
    fix: str = ""


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied doctor`."""
    if unknown := [argument for argument in arguments if argument != "--json"]:
        raise UsageError(f"unknown option {unknown[0]!r}: embodied doctor takes --json")
    console = Console()
    checks = run_checks()
    if "--json" in arguments:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        show(console, checks)
    return int(any(check.status == "fault" for check in checks))


def run_checks() -> list[Check]:
    """All checks; one that breaks is itself a fault, and the others go on."""
    groups: list[Callable[[], list[Check]]] = [
        check_python,
        check_packages,
        check_rendering,
        check_gpu,
        check_video,
        check_disk,
        check_processor,
    ]
    found: list[Check] = []
    for group in groups:
        try:
            found += group()
        except Exception as error:  # a broken library may raise anything, and the report must go on
            found.append(Check(group.__name__.removeprefix("check_"), "fault", f"{type(error).__name__}: {error}"))
    return found


def check_python() -> list[Check]:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return [Check("python", "ok", f"{version}, {platform.platform()}")]
    return [Check("python", "fault", version, "use Python 3.11, 3.12 or 3.13")]


def check_packages() -> list[Check]:
    found = []
    for package, tested in TESTED.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            found.append(Check(package, "fault", "not installed", f"pip install '{package}'"))
            continue
        if version.startswith(tested):
            found.append(Check(package, "ok", version))
        else:
            fix = f"pip install '{package}=={tested.rstrip('.')}.*'" if tested.count(".") < 2 else ""
            fix = fix or f"pip install '{package}=={tested}'"
            found.append(Check(package, "note", f"{version}; tested with {tested.rstrip('.')}", fix))
    for package, (_, extra) in OPTIONAL.items():
        try:
            found.append(Check(package, "ok", metadata.version(package)))
        except metadata.PackageNotFoundError:
            found.append(
                Check(package, "note", "not installed (optional)", f"pip install 'embodied-learning[{extra}]'")
            )
    return found


def check_rendering() -> list[Check]:
    from embodied.envs.gl import gl_report

    reports = gl_report()
    # One backend is enough; a second one that is missing is worth a note only.
    missing = "note" if any(report.works for report in reports) else "fault"
    return [
        Check(f"rendering: {report.name}", "ok" if report.works else missing, report.detail, report.fix)
        for report in reports
    ]


def check_gpu() -> list[Check]:
    import torch

    if torch.cuda.is_available():
        return [Check("GPU", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))]
    if Path("/proc/driver/nvidia/version").exists():
        return [
            Check("GPU", "note", "an NVIDIA driver is loaded but torch cannot use it", "install a CUDA build of torch")
        ]
    return [Check("GPU", "note", "none: everything runs on the CPU")]


def check_video() -> list[Check]:
    import numpy as np

    from embodied.bench.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 10)
        size = path.stat().st_size
    ffmpeg = shutil.which("ffmpeg")
    detail = f"H.264 through PyAV works ({size} bytes written); ffmpeg command: {ffmpeg or 'absent, not needed'}"
    return [Check("video", "ok", detail)]


def check_disk() -> list[Check]:
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return [Check("cache", "fault", f"{folder} cannot be written", "export EMBODIED_CACHE=<a folder of yours>")]
    status = "ok" if free >= DISK_NEEDED_GB else "fault"
    fix = "" if status == "ok" else "free some space, or export EMBODIED_CACHE=<a folder on a larger disk>"
    return [Check("cache", status, f"{folder}, {free:.0f} GB free", fix)]


def check_processor() -> list[Check]:
    import torch

    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return [Check("processor", "ok", f"{cores} cores, {torch.get_num_threads()} torch threads, {memory:.0f} GB memory")]


def show(console: Console, checks: Sequence[Check]) -> None:
    """The table, and a closing line."""
    colours = {"ok": "green", "note": "yellow", "fault": "red"}
    table = Table(title="embodied doctor", title_justify="left")
    for column in ("check", "", "found", "fix"):
        table.add_column(column, overflow="fold")
    for check in checks:
        colour = colours[check.status]
        table.add_row(check.name, f"[{colour}]{check.status}[/]", escape(check.detail), escape(check.fix))
    console.print(table)
    faults = [check.name for check in checks if check.status == "fault"]
    if faults:
        console.print(f"[red]The main job cannot run:[/] {', '.join(faults)}")
    else:
        console.print("[green]The main job can run:[/] embodied train env=metaworld")
