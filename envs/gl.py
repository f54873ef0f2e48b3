"""Which GL library renders off-screen here: tried, chosen, and what to install where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from embodied.core.errors import UsageError, UserError, unknown_name

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
_PATIENCE_S = 180  # it takes one or two; but 60 have been too few where many others wanted the processor
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
"""
EGL_DEVICE = "MUJOCO_EGL_DEVICE_ID"  # environment variable: MuJoCo's, the place in the list of EGL's devices
# Prints the places of the devices that are hardware and answer: a container may show GPUs that it must not use.
_DEVICES = """
import ctypes
from mujoco.egl import egl_ext as egl
from OpenGL import error

EXTENSIONS = 0x3055
address = ctypes.cast(egl.eglGetProcAddress("eglQueryDeviceStringEXT"), ctypes.c_void_p).value
query = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(address)
for place, device in enumerate(egl.eglQueryDevicesEXT()):
    if b"EGL_MESA_device_software" in (query(ctypes.cast(device, ctypes.c_void_p), EXTENSIONS) or b""):
        continue
    try:
        display = egl.eglGetPlatformDisplayEXT(egl.EGL_PLATFORM_DEVICE_EXT, device, None)
        if egl.eglInitialize(display, None, None):
            print(place)
    except error.GLError:
        pass
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
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return GLBackend(backend, False, f"no answer within {_PATIENCE_S} s", FIXES[backend])
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
    # The simulator's own thread draws: there are as many simulators as cores, and llvmpipe's threads fight over them.
    # One thread of llvmpipe's beside ours takes 10 % more time.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return wanted


@cache
def egl_devices() -> tuple[int, ...]:
    """The GPUs that EGL can render on, as values of MUJOCO_EGL_DEVICE_ID; empty where software renders.

    Asked in a process of its own: this one may not have chosen its GL library yet, and a driver may take it down.
    """
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}
    environment.pop(EGL_DEVICE, None)
    try:
        result = subprocess.run(
            [sys.executable, "-c", _DEVICES], env=environment, capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return ()
    return tuple(int(line) for line in result.stdout.split()) if result.returncode == 0 else ()


def spread_over_gpus(count: int, gl_devices: Sequence[int] | None = None) -> list[int | None]:
    """The EGL device of each of `count` worker processes, in turns; None leaves a worker what this process has.

    Args:
        count: of workers.
        gl_devices: to use, as values of MUJOCO_EGL_DEVICE_ID; None: all GPUs that there are, unless the user has set
            MUJOCO_EGL_DEVICE_ID, or something else than EGL renders.

    Raises:
        UsageError: a device is not there.
    """
    if os.environ.get("MUJOCO_GL") != "egl":
        if gl_devices:
            raise UsageError(f"gl_devices={list(gl_devices)} needs MUJOCO_GL=egl, got {os.environ.get('MUJOCO_GL')!r}")
        return [None] * count
    if gl_devices is None:
        devices = () if count == 1 or os.environ.get(EGL_DEVICE) else egl_devices()
    else:
        devices = tuple(gl_devices)
        if missing := set(devices) - set(egl_devices()):
            known = ", ".join(map(str, egl_devices())) or "none"
            raise UsageError(f"gl_devices: there is no EGL device {min(missing)}; the GPUs here are: {known}")
    return [devices[worker % len(devices)] if devices else None for worker in range(count)]


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
