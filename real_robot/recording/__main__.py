"""`python -m embodied.real_robot.recording --robot sim --to run.mcap`: the recorder as a process of its own.

It ends, with its report on stdout, when it is sent SIGINT or SIGTERM, or when the disk takes no more (exit code 1).
`embodied robot record` is the same for people.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys

from embodied.core.errors import UserError
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.recording.process import run_recorder
from embodied.real_robot.stopping import stop_on_signals
from embodied.real_robot.transports.opening import open_transport

NICENESS = 10  # below the processes that move the robot


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m embodied.real_robot.recording")
    parser.add_argument("--robot", required=True, help="a description: a name or a YAML file")
    parser.add_argument("--to", required=True, help="the file to write, which must not exist: NAME.mcap")
    parser.add_argument("--transport", default=None, help="default: the description's")
    parser.add_argument("--options", default=None, help="of the transport, as JSON; default: the description's")
    parser.add_argument("--compression", default="lz4", choices=("lz4", "zstd", "none"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    os.nice(NICENESS)
    robot = load_robot(arguments.robot)
    options = robot.transport_options if arguments.options is None else json.loads(arguments.options)
    transport = open_transport(arguments.transport or robot.transport, **options)
    try:
        report = run_recorder(robot, transport, arguments.to, stop=stop_on_signals(), compression=arguments.compression)
    finally:
        transport.close()
    facts = {"path": str(report.path), "seconds": report.seconds, "messages": report.messages}
    facts |= {"bytes": report.written_bytes, "lost": report.lost, "failure": report.failure}
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0 if report.failure is None else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
