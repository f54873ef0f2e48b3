"""Which suites there are: every module of `envs/suites/`. Asking imports no simulator."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from embodied.core.errors import UserError, unknown_name
from embodied.core.extensions import import_part
from embodied.envs.simulation import Suite

NO_SIMULATOR = "none"  # in place of a suite: policies of recorded demonstrations that no environment goes with


@cache
def suite_names() -> tuple[str, ...]:
    """Sorted."""
    spec = find_spec("embodied.envs.suites")
    assert spec is not None and spec.submodule_search_locations
    entries = [entry for folder in spec.submodule_search_locations for entry in Path(folder).iterdir()]
    return tuple(
        sorted(
            {
                entry.stem
                for entry in entries
                if entry.name[0] not in "_." and (entry.suffix == ".py" or (entry / "suite.py").is_file())
            }
        )
    )


@cache
def load_suite(name: str) -> Suite:
    """The suite of that name: `SUITE` of `suites/<name>.py`, or of `suites/<name>/suite.py`.

    Raises:
        UsageError: there is none.
        UserError: its module cannot be imported, or defines none.
    """
    if name not in suite_names():
        raise unknown_name("env", name, suite_names())
    module = f"embodied.envs.suites.{name}"
    package = (found := find_spec(module)) is not None and found.submodule_search_locations is not None
    path = f"{module}.suite" if package else module
    suite: Suite | None = getattr(import_part(path), "SUITE", None)
    if suite is None:
        raise UserError(f"{path} defines no SUITE (embodied.envs.simulation.Suite)")
    return suite
