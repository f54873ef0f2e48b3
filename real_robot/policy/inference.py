"""A trained policy as a robot asks it: one observation in, what is planned from now on out.

It acts as `training.evaluate` has it act: the same carry, history, noise, replanning and clipping. Knows nothing of
transports and shared memory: a policy server may use it as it is.

Legend: T moments of history, P proprioception, H chunk, A action.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX, STATE
from embodied.policies.artifact import load_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.planning import act_on
from embodied.real_robot.policy.acceleration import ACCELERATIONS, Acceleration, Staging
from embodied.real_robot.policy.backends import BACKENDS, Backend, open_parts
from embodied.real_robot.policy.needs import needs_of
from embodied.real_robot.policy.stages import WORK, Stages
from embodied.real_robot.policy.with_parts import WithParts, check_guidance

WARM_UPS, _FEWEST = 24, 4
_WARM_S = 20.0  # after which the fewest are enough: of policies that take seconds to plan


class Inference:
    """Holds a policy, how it is run, and what the episode has been so far.

    Attributes:
        needs: what an observation must hold.
        stages: the times of `upload`, `encode` and `policy`; whoever asks says when a step is over.
        how: in words, how the parts run, for the operator.
    """

    def __init__(
        self,
        policy: nn.Module,
        metadata: Mapping[str, Any],
        *,
        device: torch.device,
        backend: Backend = "torch",
        acceleration: Acceleration = "auto",
        instruction: str | None = None,
        guidance_period_s: float | None = None,
    ) -> None:
        """Build the parts and run each of them.

        Args:
            policy: in eval mode on `device`, with its description, as `load_policy` gives them.
            instruction: what to do, for a policy that follows instructions.
            guidance_period_s: let each plan go on from the one before (`policies.prefix_guidance`), of which so many
                steps of this length are frozen as planning takes by then; None: plans are made as in evaluation.

        Raises:
            UsageError: an instruction is missing, or the back end or guidance cannot be had for this policy.
            UserError: the back end's actions are not the policy's.
        """
        for name, value, valid in (("backend", backend, BACKENDS), ("acceleration", acceleration, ACCELERATIONS)):
            if value not in valid:
                raise unknown_name(name, str(value), valid)
        self.needs, self.stages = needs_of(policy, metadata), Stages()
        self.how = f"torch on {device}: as it is"
        self._policy, self._upload = policy, Staging(device)
        self._told = _instructions(policy, instruction)
        self._parts: WithParts | None = None
        self._period_s = guidance_period_s
        if isinstance(policy, BCPolicy):
            parts = open_parts(policy, self.needs, device=device, backend=backend, acceleration=acceleration)
            self._parts, self.how = WithParts(policy, parts), parts.how
        elif backend != "torch":
            raise UsageError(f"backend={backend} runs policies of behaviour cloning only: leave it out")
        if guidance_period_s is not None:
            check_guidance(policy, backend)
        self._carry = self._fresh()

    def restart(self) -> None:
        """Forget the episode: the next observation is the first of another one."""
        self._carry = self._fresh()

    def __call__(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """What is planned from this step on, float64 [H, A] in the units of actions, within their bounds.

        Args:
            observation: `observation.images.<camera>` uint8 [1, S, S, 3], `observation.state` float32 [1, P].
        """
        return self._act(observation, begun=self._begun())

    @torch.inference_mode()
    def _act(self, observation: Mapping[str, np.ndarray], *, begun: bool) -> np.ndarray:
        with self.stages.measure("upload"):
            given = {name: self._upload(name, array) for name, array in observation.items()}
        start, encode_s = time.perf_counter(), 0.0
        if self._parts is not None:
            if self._period_s is not None:
                self._parts.plan = self._carry["queue"] if begun else None
            self._carry, plan = act_on(cast(BCPolicy, self._parts), self._carry, given)
            plan = _with_ensembled(plan, self._carry)
            encode_s, self._parts.encode_s = self._parts.encode_s, 0.0
        else:
            self._carry, plan = cast(Any, self._policy).act(self._carry, given)
        actions: np.ndarray = plan[0].double().cpu().numpy()
        if encode_s:
            self.stages.add("encode", encode_s)
        self.stages.add("policy", time.perf_counter() - start - encode_s)
        space = self.needs.actions
        return actions if space is None else np.clip(actions, space.low, space.high)

    def warm_up(self, count: int = WARM_UPS) -> dict[str, dict[str, float]]:
        """Act on noise, as often as it takes for all that will be run to have been run; then forget it.

        Returns:
            Percentiles of the stages, ms, of plans that were made from the start, but for the first ones.
        """
        rng, end = np.random.default_rng(0), time.monotonic() + _WARM_S
        for number in range(count):
            if number >= _FEWEST and time.monotonic() > end:
                break
            if number in (1, count // 4):
                self.stages.clear()
            self.restart()  # so that a plan is made each time, the dearest case
            self._act(self.example(rng), begun=True)
            self.stages.finish()
        taken = self.stages.percentiles_ms()
        if self._parts is not None and self._period_s is not None:
            self._parts.frozen = math.ceil(taken[WORK]["p99"] * 1e-3 / self._period_s)
        self.stages.clear()
        self.restart()
        return taken

    def example(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """An observation of noise."""
        needs, size = self.needs, self.needs.image_size
        frames = [key for key in needs.keys if key.startswith(IMAGE_PREFIX)]
        found = {key: rng.integers(0, 256, (1, size, size, 3), np.uint8) for key in frames}
        if needs.reads_state:
            found[STATE] = rng.standard_normal((1, needs.state_dim)).astype(np.float32)
        return found

    def _begun(self) -> bool:
        """Whether the episode has had a step."""
        return self._period_s is not None and bool(self._carry["started"].all())

    def _fresh(self) -> Any:
        policy = cast(Any, self._policy)
        return policy.initial(1, instructions=self._told) if self._told else policy.initial(1)


def _instructions(policy: nn.Module, instruction: str | None) -> list[str] | None:
    """What to do, one text, if the policy follows instructions."""
    if getattr(policy, "instructions", None) is None:
        return None
    if not instruction:
        raise UsageError("this policy follows instructions: say what to do with instruction='...'")
    return [instruction]


def _with_ensembled(plan: Tensor, carry: Mapping[str, Tensor]) -> Tensor:
    """Of a policy with temporal ensembling the averages of the steps to come as well, as far as plans reach."""
    if "total" not in carry:
        return plan
    known = carry["weight"][0] > 0
    later = carry["total"][0, known] / carry["weight"][0, known, None]
    return torch.cat([plan, later[None]], dim=1)


def load_inference(path: Path, *, device: torch.device, embodiment: str | None = None, **options: Any) -> Inference:
    """From a policy file, of several robots for the one named; `options` as of `Inference`.

    Raises as that and `load_policy` do.
    """
    policy, metadata = load_policy(path, device=device, embodiment=embodiment)
    return Inference(policy, metadata, device=device, **options)
