"""A policy with other ways to see and to predict, which `policies.planning.act_on` takes for the policy itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import INSTRUCTION
from embodied.policies.bc import BCPolicy
from embodied.policies.prefix_guidance import Prefix, can_guide, guided_chunk
from embodied.real_robot.policy.backends import Parts


class WithParts:
    """Everything but `see` and `predict` is the policy's own.

    Attributes:
        encode_s: what seeing took since this was last set to zero.
        plan: the plan before, from the present step on, [1, H, A] in units of actions, for the next plan to go on
            from; None: it begins anew. `frozen`: how many of its steps will have been executed by then.
    """

    def __init__(self, policy: BCPolicy, parts: Parts) -> None:
        self._policy, self._parts = policy, parts
        self.encode_s = 0.0
        self.plan: Tensor | None = None
        self.frozen = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def see(self, observation: Mapping[str, Tensor]) -> Tensor:
        """As `BCPolicy.see`."""
        start = time.perf_counter()
        features = self._parts.see(observation)
        if features.device.type == "cuda":
            torch.cuda.current_stream(features.device).synchronize()  # so that a stage's time is its own
        self.encode_s += time.perf_counter() - start
        return features

    def predict(
        self, features: Tensor, state: Tensor | None, *, instruction: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """As `BCPolicy.predict`, but going on from `plan`."""
        if self.plan is None or noise is None:
            return self._parts.predict(features, {"state": state, INSTRUCTION: instruction, "noise": noise})
        policy, acting = self._policy, self._policy.acting
        known = policy.assembly.chunk - policy.assembly.execute
        # By the present state: offsets from another one would be another plan.
        prefix = Prefix(actions=policy.learned(self.plan, state), frozen=min(self.frozen, known), known=known)
        head: Any = acting.head
        fused = acting.fuse(features, policy.seen_state(features, state), instruction)
        return policy.restored(guided_chunk(head, fused, noise, prefix, action_mask=policy.action_mask), state)


def check_guidance(policy: nn.Module, backend: str) -> None:
    """Raises UsageError where plans of a policy cannot be guided."""
    head = policy.acting.head if isinstance(policy, BCPolicy) else None
    if not isinstance(policy, BCPolicy) or not can_guide(head) or policy.assembly.ensemble is not None:
        raise UsageError("guidance=true is for policies with head=flow or diffusion: leave it out")
    if backend != "torch":
        raise UsageError(f"guidance=true needs gradients, which backend={backend} has not: use backend=torch")
    if policy.assembly.execute >= policy.assembly.chunk:
        raise UsageError("guidance=true: this policy executes its plans to their end, so nothing is left to go on from")
