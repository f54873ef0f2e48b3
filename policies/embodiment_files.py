"""Policy files of several robots: which there are, and what a policy of one of them is made of.

A file holds what is shared as a file of one robot does, and beside it what is a robot's own: in its description, in
`robots`, the `name`, the `arguments` and the `env` of each; as tensors, `robots.<number>.<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from embodied.core.errors import UsageError, unknown_name

ROBOTS = "robots"
EMBODIMENT = "embodiment"  # one of them; in a batch its number, int64 [B]


def tensors_of(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Of a checkpoint of several robots what a policy of one of them holds."""
    own = f"{ROBOTS}.{number}."
    return {
        name.removeprefix(own): tensor
        for name, tensor in tensors.items()
        if name.startswith(own) or not name.startswith(f"{ROBOTS}.")
    }


def robot_names(metadata: Mapping[str, Any]) -> list[str]:
    """The robots of a policy file, in order; none where it is of one."""
    return [str(robot["name"]) for robot in metadata.get(ROBOTS, ())]


def description_of(metadata: Mapping[str, Any], embodiment: str | None, *, where: object) -> dict[str, Any]:
    """What a policy of one robot says of itself; a file of one robot is that already.

    Args:
        metadata: of a policy file, see `artifact.describe_policy`.
        embodiment: the robot's name; None where the file is of one.
        where: the file, for messages.

    Raises:
        UsageError: there are several robots, and none or another one is named; or there is one.
    """
    names = robot_names(metadata)
    if not names:
        if embodiment is not None:
            raise UsageError(f"{where} is a policy of one robot: leave embodiment={embodiment} out")
        return dict(metadata)
    if embodiment is None:
        raise UsageError(f"{where} is a policy of several robots: name one of them with embodiment={'|'.join(names)}")
    if embodiment not in names:
        raise unknown_name(f"embodiment of {where}", embodiment, names)
    robots = metadata[ROBOTS]
    robot = robots[names.index(embodiment)]
    shared = {
        "number": names.index(embodiment),
        "robots": len(robots),
        "largest_state": max(int(each["arguments"]["proprioception_dim"]) for each in robots),
        "largest_action": max(int(each["arguments"]["action_dim"]) for each in robots),
    }
    return {
        **{name: value for name, value in metadata.items() if name != ROBOTS},
        "arguments": {**metadata["arguments"], **robot["arguments"], "shared": shared},
        "env": robot["env"],
        EMBODIMENT: embodiment,
    }
