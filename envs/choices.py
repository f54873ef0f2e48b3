"""What may be asked of a suite, checked without its simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.simulation import Suite


def require_positive(**numbers: int) -> None:
    """Refuse what is no whole number of at least 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, got {number!r}")


def task_name(suite: Suite, task: str | Sequence[str] | None) -> str:
    """The name of a task, or of several: joined with `+`; None: the default one."""
    if task is None:
        return suite.default_task
    return task if isinstance(task, str) else "+".join(str(each) for each in task)


def check_names(suite: Suite, task: str, protocol: str | None, options: Mapping[str, Any]) -> None:
    """Refuse a task, protocol or option that the suite has not."""
    several = task.split("+")
    if len(several) > 1 and (not suite.groups or len(set(several)) < len(several)):
        reason = "names a task twice" if suite.groups else f"{suite.name} has one task in an environment"
        raise UsageError(f"task={task}: {reason}")
    for each in several if task not in suite.groups else ():
        if each not in suite.instructions:
            raise unknown_name(f"task of {suite.name}", each, [*suite.instructions, *suite.groups])
    if protocol is not None:
        if protocol not in suite.protocols:
            known = ", ".join(suite.protocols) or "none"
            raise UsageError(f"unknown protocol {protocol!r} of {suite.name}: it has {known}")
        if task not in suite.protocols[protocol]:
            raise unknown_name(f"task of {suite.name} under protocol {protocol}", task, suite.protocols[protocol])
    for name in options:
        if name not in suite.options:
            raise unknown_name(f"option of {suite.name}", name, suite.options)


def camera_names(suite: Suite, camera: str | Sequence[str] | None) -> tuple[str, ...]:
    """The views that are asked for; None: the default one."""
    names = (suite.default_camera,) if camera is None else (camera,) if isinstance(camera, str) else tuple(camera)
    if not names or len(set(names)) != len(names):
        raise UsageError(f"camera: expected one or several different names, got {list(names)}")
    for name in names:
        if name not in suite.cameras:
            raise unknown_name(f"camera of {suite.name}", name, suite.cameras)
    return names
