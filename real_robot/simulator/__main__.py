"""`python -m embodied.real_robot.simulator --robot sim --task hammer-v3`: the simulated robot as a process.

It ends, with its report on stdout, when it is sent SIGINT or SIGTERM. `embodied robot sim` is the same for people.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys

from embodied.core.errors import UserError
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.simulator.faults import read_faults
from embodied.real_robot.simulator.running import run_simulator
from embodied.real_robot.stopping import stop_on_signals
from embodied.real_robot.transports.opening import open_transport


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m embodied.real_robot.simulator")
    parser.add_argument("--robot", default="sim", help="a description: a name or a YAML file")
    parser.add_argument("--suite", default="metaworld")
    parser.add_argument("--task", default=None, help="default: the suite's")
    parser.add_argument("--env", default="{}", help="further arguments of TaskEnv, as JSON")
    parser.add_argument("--seeds", default="[0]", help="seeds of episodes that no request names one for, as JSON")
    parser.add_argument("--transport", default=None, help="default: the description's")
    parser.add_argument("--options", default=None, help="of the transport, as JSON; default: the description's")
    parser.add_argument("--faults", default="{}", help="of the sensors, as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    robot = load_robot(arguments.robot)
    options = robot.transport_options if arguments.options is None else json.loads(arguments.options)
    transport = open_transport(arguments.transport or robot.transport, **options)
    try:
        report = run_simulator(
            robot,
            transport,
            env={"suite": arguments.suite, "task": arguments.task, **json.loads(arguments.env)},
            seeds=json.loads(arguments.seeds),
            faults=read_faults(json.loads(arguments.faults)),
            stop=stop_on_signals(),
        )
    finally:
        transport.close()
    sys.stdout.write(json.dumps(report._asdict()) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
