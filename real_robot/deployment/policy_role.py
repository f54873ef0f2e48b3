"""Loading a policy for a robot, before it is run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import cast

import torch

from embodied.core.errors import UsageError, UserError
from embodied.envs.worker_processes import usable_cores
from embodied.policies.artifact import load_policy
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.deployment.children import LOADING, WARMING
from embodied.real_robot.deployment.session import Settings
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.policy.acceleration import Acceleration
from embodied.real_robot.policy.backends import Backend
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.policy.needs import check_fits, needs_of
from embodied.real_robot.policy.stages import WORK

_logger = logging.getLogger(__name__)


def start_policy(settings: Settings, robot: RobotDescription, *, board: StatusBoard | None = None) -> Inference:
    """The policy of the settings, which fits the robot, warm. On the board: how far it is.

    Raises:
        UserError: it cannot be loaded, does not fit, or its back end is not there; guidance, for a robot that counts
            actions from their arrival; it takes so long to plan that it would be taken for dead.
    """
    if settings.guidance and robot.execution.align != "observation":
        raise UsageError(
            f"guidance=true goes on from what was planned for the moments of observations, and robot {robot.name} says "
            f"execution.align: {robot.execution.align}: set it to observation"
        )
    if "OMP_NUM_THREADS" not in os.environ:  # a core is left to the process that must be on time
        torch.set_num_threads(max(1, usable_cores() - 1))
    _tell(board, LOADING)
    device = torch.device(settings.device)
    policy, metadata = load_policy(Path(settings.policy), device=device, embodiment=settings.embodiment)
    check_fits(needs_of(policy, metadata), robot, same_names=settings.same_names)
    inference = Inference(
        policy,
        metadata,
        device=device,
        backend=cast(Backend, settings.backend),
        acceleration=cast(Acceleration, settings.acceleration),
        instruction=settings.instruction,
        guidance_period_s=1 / robot.policy_hz if settings.guidance else None,
    )
    _tell(board, WARMING)
    taken = inference.warm_up()
    _logger.info("%s; warm, ms: %s", inference.how, taken)
    check_planning_time(taken[WORK]["p50"] * 1e-3, robot)
    return inference


def _tell(board: StatusBoard | None, state: str) -> None:
    if board is not None:
        board.write({"state": state})


def check_planning_time(plan_s: float, robot: RobotDescription) -> None:
    """A policy shows no life while it plans.

    The self-test cannot see that of one that makes a plan for many steps: between plans it is fast.

    Raises:
        UserError: half of its plans take longer than the robot waits for a sign of life.
    """
    limit_s = robot.timeouts.heartbeat_s
    if plan_s > limit_s:
        raise UserError(
            f"this policy takes {plan_s:.2g} s for a plan, and robot {robot.name} takes one that is silent for "
            f"{limit_s:g} s for dead: use a faster device, search less (of policy=visual_mpc: samples, iterations, "
            "horizon), or, if the robot may wait that long, set `timeouts.heartbeat_s`"
        )
