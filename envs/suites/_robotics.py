"""gymnasium-robotics, whose models `kitchen` and `adroit` use, is imported here."""

from __future__ import annotations

from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from types import ModuleType

from embodied.core.errors import MissingExtraError


def import_robotics(module: str) -> ModuleType:
    """A module of gymnasium-robotics, such as `envs.franka_kitchen`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        # It greets with a notice about other versions of its environments than ours.
        with redirect_stderr(StringIO()):
            return import_module(f"gymnasium_robotics.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "gymnasium_robotics":
            raise
        raise MissingExtraError("gymnasium-robotics", "robotics") from error
