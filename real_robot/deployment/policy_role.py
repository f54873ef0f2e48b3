"""Loading a policy for a robot, before it is run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import cast

import torch

from embodied.core.errors import UsageError
from embodied.envs.worker_processes import usable_cores
from embodied.policies.artifact import load_policy
from embodied.real_robot.deployment.session import Settings
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.policy.acceleration import Acceleration
from embodied.real_robot.policy.backends import Backend
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.policy.needs import check_fits, needs_of

_logger = logging.getLogger(__name__)


def start_policy(settings: Settings, robot: RobotDescription) -> Inference:
    """The policy of the settings, which fits the robot, warm.

    Raises:
        UserError: it cannot be loaded, does not fit, or its back end is not there; guidance, for a robot that counts
            actions from their arrival.
    """
    if settings.guidance and robot.execution.align != "observation":
        raise UsageError(
            f"guidance=true goes on from what was planned for the moments of observations, and robot {robot.name} says "
            f"execution.align: {robot.execution.align}: set it to observation"
        )
    if "OMP_NUM_THREADS" not in os.environ:  # a core is left to the process that must be on time
        torch.set_num_threads(max(1, usable_cores() - 1))
    device = torch.device(settings.device)
    policy, metadata = load_policy(Path(settings.policy), device=device)
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
    taken = inference.warm_up()
    _logger.info("%s; warm, ms: %s", inference.how, taken)
    return inference
