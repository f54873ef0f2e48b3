"""Which GL library renders off-screen here: tried, chosen, and what to install where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from embodied.core.errors import UserError, unknown_name

FIXES = {
    "egl": "apt-get install -y libegl1 libgl1 libopengl0 libegl-mesa0 libgl1-mesa-dri",
    "osmesa": "apt-get install -y libosmesa6",
}
OTHERS = (
    "glfw",
    "glx",
    "wgl",
    "cgl",
    "off",
    "disable",
    "disabled",
    "false",
    "0",
    "on",
    "enable",
    "enabled",
    "true",
    "1",
)
_CHECKED = "EMBODIED_GL_CHECKED"  # environment variable: the backend that this process or its parent has tried
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
"""


@dataclass(frozen=True)
class GLBackend:
    """What `embodied doctor` shows of one way to render: whether it works, why not, and the command that fixes it."""

    name: str
    works: bool
    detail: str
    fix: str


def has_nvidia_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def probe(backend: str) -> GLBackend:
    """Render one picture in a process of its own: a GL library that is missing or broken may take the process down."""
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return GLBackend(backend, False, "no answer within 60 s", FIXES[backend])
    if result.returncode == 0:
        kind = "hardware" if backend == "egl" and has_nvidia_gpu() else "software"
        return GLBackend(backend, True, kind, "")
    lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
    return GLBackend(backend, False, lines[-1] if lines else f"exit code {result.returncode}", FIXES[backend])


def gl_report() -> list[GLBackend]:
    """Every backend that renders without a display, tried."""
    return [probe(name) for name in FIXES]


def select_gl_backend() -> str:
    """Choose MUJOCO_GL for this process and its children, before mujoco is imported; the user's own choice stands.

    EGL first (a GPU where there is one, else Mesa's software renderer), then OSMesa.

    Raises:
        UserError: neither works; the message has the command that installs one.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted and wanted not in FIXES:  # glfw, disabled, ...: what the user wants
        if wanted not in OTHERS:
            raise unknown_name("value of the environment variable MUJOCO_GL", wanted, [*FIXES, "glfw"])
        return wanted
    if not wanted or os.environ.get(_CHECKED) != wanted:
        wanted = _first_that_works([wanted] if wanted else list(FIXES))
        os.environ["MUJOCO_GL"] = os.environ[_CHECKED] = wanted  # child processes need not try again
    os.environ.setdefault("PYOPENGL_PLATFORM", wanted)
    # One thread per simulator: there are as many simulators as cores, and llvmpipe's threads only fight over them.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    return wanted


def _first_that_works(names: list[str]) -> str:
    reports = []
    for name in names:
        reports.append(probe(name))
        if reports[-1].works:
            return name
    reasons = "; ".join(f"{report.name}: {report.detail}" for report in reports)
    wish = f"MUJOCO_GL={names[0]} does not work here" if len(names) == 1 else "no GL library can render off-screen"
    fix = reports[-1].fix
    raise UserError(f"{wish} ({reasons}). Install one: {fix} (with sudo if you are not root), or see embodied doctor")
