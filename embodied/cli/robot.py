"""Check, record, replay and simulate a robot.

embodied robot <command> --help shows the settings of a command.
"""

from __future__ import annotations

from collections.abc import Sequence

from embodied.cli.subcommands import Group, Subcommand, run_group

ROBOT_VERBS = {
    "new": Subcommand(
        "robot_new",
        "run_new",
        "Begin the description of your robot.",
        "ros2_arm to=my_arm.yaml",
        positional=("template",),
        texts=("template", "to"),
    ),
    "check": Subcommand(
        "robot_check",
        "run_check",
        "Compare a robot with its description, without moving it.",
        "robot=my_arm.yaml options.domain=7 options.interface=eth0",
        positional=("robot",),
        texts=("robot",),
        json=True,
    ),
    "latency": Subcommand(
        "robot_check",
        "run_latency",
        "How old messages are and how regularly they come.",
        "robot=my_arm.yaml seconds=30",
        positional=("robot",),
        texts=("robot",),
        json=True,
    ),
    "record": Subcommand(
        "robot_record",
        "run_record",
        "Record everything to and from a robot.",
        "robot=my_arm.yaml to=run.mcap",
        positional=("to",),
        texts=("robot", "to"),
    ),
    "teleop-log": Subcommand(
        "robot_record",
        "run_teleop_log",
        "Record a demonstration that others drive, as episodes.",
        "robot=my_arm.yaml to=stores/demos task='pour the tea'",
        positional=("to",),
        texts=("robot", "to", "task"),
    ),
    "replay": Subcommand(
        "robot_replay",
        "run_replay",
        "Recorded actions once more, through the safety chain.",
        "stores/demos robot=my_arm.yaml episode=3",
        positional=("source",),
        texts=("robot", "source"),
    ),
    "sim": Subcommand(
        "robot_sim", "run_sim", "Be a simulated robot.", "task=hammer-v3", positional=(), texts=("robot", "task")
    ),
}


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied robot`."""
    group = Group(
        "robot",
        (__doc__ or "").splitlines()[0],
        ROBOT_VERBS,
        "A robot is sim, ros2_arm, ros2_mobile or a YAML file; options.<name>= are of its transport, such as domain."
        "\n[cyan]embodied robot <command> --help[/] shows its settings; [cyan]embodied deploy[/] lets a policy drive.",
    )
    return run_group(group, arguments)
