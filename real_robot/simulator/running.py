"""The simulated robot as a process: real time by absolute deadlines, until it is told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from embodied.real_robot.control.pacing import Lateness, Pacer, SystemPacer, next_deadline
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.simulator.faults import SensorFaults
from embodied.real_robot.simulator.simulated_robot import COMMAND_TIMEOUT_S, SimulatedRobot
from embodied.real_robot.transports.transport import Transport

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000


class SimulatorReport(NamedTuple):
    """How a run went.

    Attributes:
        periods: that were published; `left_out`: that were not, since the ones before took too long.
        episodes: begun.
        late_p50_ms, late_p99_ms: of the beginnings of periods.
        slower: how many seconds a second of the simulation took, by its rates.
    """

    periods: int
    left_out: int
    episodes: int
    late_p50_ms: float
    late_p99_ms: float
    slower: float


def run_simulator(
    robot: RobotDescription,
    transport: Transport,
    *,
    env: Mapping[str, Any],
    stop: Callable[[], bool],
    seeds: Sequence[int] = (0,),
    command_timeout_s: float = COMMAND_TIMEOUT_S,
    faults: SensorFaults | None = None,
    fault_seed: int = 0,
    pacer: Pacer | None = None,
    after_step: Callable[[SimulatedRobot, np.ndarray | None], None] | None = None,
) -> SimulatorReport:
    """Be the robot until `stop()` is true.

    One step of the environment takes one period of the policy, whatever time it stands for: Meta-World's 12.5 ms take
    50 ms with `robots/sim.yaml`, so a simulated second takes four. Periods that cannot be kept are left out, never
    made up for.

    Args:
        env, seeds, command_timeout_s, faults, fault_seed: see `SimulatedRobot`.
        transport: is the caller's to close.
        pacer: by default the machine's clock, which must then be the transport's.
        after_step: told about each step and its action, for tests and logs.

    Raises:
        UsageError: robot and environment do not fit.
        TransportError: a message could not be sent.
    """
    simulated = SimulatedRobot(
        robot, transport, env=env, seeds=seeds, command_timeout_s=command_timeout_s, faults=faults,
        fault_seed=fault_seed,
    )  # fmt: skip
    pacer = pacer or SystemPacer(spin_ns=0)
    period_ns, lateness, left_out = round(_NS / robot.policy_hz), Lateness(), 0
    slower = simulated.environment.fps / robot.policy_hz
    _logger.info("simulating %s: a second of it takes %.3g s", simulated.environment.task, slower)
    try:
        deadline = pacer.wait(transport.clock.now())
        while not stop():
            now = pacer.wait(deadline)
            lateness.add(now - deadline)
            action = simulated.step()
            if after_step is not None:
                after_step(simulated, action)
            following = next_deadline(deadline, transport.clock.now(), period_ns)
            left_out += round((following - deadline) / period_ns) - 1
            deadline = following
    finally:
        simulated.close()
    p50, p99 = lateness.percentiles(50, 99)
    return SimulatorReport(lateness.count, left_out, simulated.status.number, p50, p99, slower)
