"""Errors a user can act on: one message, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: a file, a library, the disk. The CLI exits with code 1.

    The message says what was wrong, where, and what to do about it.
    """

    exit_code = 1


class UsageError(UserError, ValueError):
    """The command or an argument is wrong. The CLI exits with code 2."""

    exit_code = 2


# What an extra cannot install, because the package asks for others that do not fit; see pyproject.toml.
_BY_ITSELF = {"robosuite": "pip install --no-deps robosuite==1.5.2"}


class MissingExtraError(UserError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        then = f" and {_BY_ITSELF[extra]}" if extra in _BY_ITSELF else ""
        super().__init__(f"{package} is not installed: run pip install 'embodied-learning[{extra}]'{then}")


def near_names(name: str, valid: Iterable[str], *, limit: int = 3) -> list[str]:
    """Names in `valid` that a person who typed `name` may have meant, best first."""
    return difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.6)


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a name that is not in `valid`: lists near names, or all of them when few."""
    names = sorted(valid)
    near = near_names(name, names)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= 12:
        hint = f"choose one of {', '.join(names)}"
    else:
        hint = f"there are {len(names)}, among them {', '.join(names[:6])}"
    return UsageError(f"unknown {kind} {name!r}: {hint}")
