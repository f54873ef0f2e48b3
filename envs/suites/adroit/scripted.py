"""The scripted behaviours of Adroit, by task."""

from __future__ import annotations

from collections.abc import Callable

from embodied.core.errors import UsageError
from embodied.core.protocols import Expert
from embodied.envs.suites.adroit.scripted_door import DoorExpert
from embodied.envs.suites.adroit.scripted_hammer import HammerExpert
from embodied.envs.suites.adroit.scripted_relocate import RelocateExpert
from embodied.envs.suites.adroit.simulation import AdroitSimulation

_SCRIPTS: dict[str, Callable[[AdroitSimulation], Expert]] = {
    "door": DoorExpert,
    "hammer": HammerExpert,
    "relocate": RelocateExpert,
}


def make_script(task: str, simulation: AdroitSimulation) -> Expert:
    """The behaviour for a task.

    Raises:
        UsageError: there is none for it.
    """
    if task not in _SCRIPTS:
        raise UsageError(f"no scripted expert for {task} of adroit: there is one for {', '.join(sorted(_SCRIPTS))}")
    return _SCRIPTS[task](simulation)
