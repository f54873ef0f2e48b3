"""Off-screen rendering with MuJoCo: which GL library, and a renderer without what costs time."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embodied.core.errors import UserError, unknown_name

if TYPE_CHECKING:
    import mujoco

Quality = Literal["lean", "full"]

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


class FrameRenderer:
    """Frames of one camera of a MuJoCo model.

    Args:
        model: its visual options are changed for `lean`; give every renderer a model of its own.
        camera: name in the model.
        height, width: pixels.
        quality: `lean` leaves out shadows, reflections, anti-aliasing, sky and haze; `full` is the library's look.
        flip: turn the picture upside down and mirror it, for a camera that is mounted that way.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        camera: str,
        height: int,
        width: int,
        quality: Quality = "lean",
        flip: bool = False,
    ) -> None:
        import mujoco

        if quality not in ("lean", "full"):
            raise unknown_name("render", quality, ["lean", "full"])
        self._camera, self._flip = camera, flip
        model.vis.global_.offwidth = max(width, 1 if quality == "lean" else model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, 1 if quality == "lean" else model.vis.global_.offheight)
        if quality == "lean":
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        self._renderer: Any = mujoco.Renderer(model, height, width)
        # At exit too, and before MuJoCo's own exit function ends the GL library (registered above, so run later):
        # a renderer that nobody closed would complain loudly.
        atexit.register(_close_if_alive, weakref.ref(self))
        if quality == "lean":
            flags = self._renderer.scene.flags
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
                flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The present picture, uint8 [height, width, 3], in memory of its own."""
        self._renderer.update_scene(data, camera=self._camera)
        frame = self._renderer.render()
        return np.ascontiguousarray(frame[::-1, ::-1]) if self._flip else frame.copy()

    def close(self) -> None:
        """Give the GL context back; again does no harm."""
        self._renderer.close()


def _close_if_alive(reference: weakref.ref[FrameRenderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
