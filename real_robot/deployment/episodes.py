"""Evaluation episodes on a simulated robot, one after the other, through all processes.

Between episodes the robot is let go, as an operator lets go of a real one before moving it: else commands from before
would pull the hand back to where the last episode ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embodied.core.errors import UserError
from embodied.real_robot.deployment.operator import Operator
from embodied.real_robot.simulator.episodes import EpisodeClient

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000
Record = dict[str, Any] | None
_PATIENCE_S = 60.0  # for one step of what leads to an episode
_AGAIN_S = 1.0  # until a request is repeated


@dataclass(frozen=True, kw_only=True)
class EpisodeOutcome:
    """How an episode went; `steps` of the environment, `held_steps` of them without a fresh command. `reason`: why it
    was given up, or empty.
    """

    seed: int
    success: bool
    steps: int
    held_steps: int
    seconds: float
    reason: str = ""


class Episodes:
    """Leads one episode after the other; `tick` it often. `outcomes` by then.

    Args:
        set_live: lets the robot move, or lets it go.
        seeds: one per episode.
        episode_s: after which an episode is given up.
    """

    def __init__(
        self,
        client: EpisodeClient,
        operator: Operator,
        set_live: Callable[[bool], None],
        seeds: Sequence[int],
        *,
        episode_s: float,
    ) -> None:
        self.outcomes: list[EpisodeOutcome] = []
        self._client, self._operator, self._set_live = client, operator, set_live
        self._seeds, self._episode_s = list(seeds), episode_s
        self._request, self._asked_ns, self._ready_ns, self._began_ns, self._since_ns = "", 0, 0, 0, 0
        self._stage: Callable[[int, dict[str, Any], Record], str | None] = self._let_go

    @property
    def done(self) -> bool:
        return len(self.outcomes) == len(self._seeds)

    @property
    def stage(self) -> str:
        """What it waits for, in words."""
        return self._stage.__name__.strip("_").replace("_", " ")

    def tick(self, now_ns: int, commands: Record, policy: Record) -> None:
        """Look at the boards and go on.

        Raises:
            UserError: what leads to an episode does not happen.
        """
        if self.done or commands is None:
            return
        self._since_ns = self._since_ns or now_ns
        following = self._stage(now_ns, commands, policy)
        if following is not None:
            self._stage, self._since_ns = getattr(self, f"_{following}"), now_ns
        elif self._stage != self._run and now_ns - self._since_ns > _PATIENCE_S * _NS:
            reason = f"mode {commands['mode']}: {commands['reason']}; {'; '.join(commands['stale'])}"
            raise UserError(f"no episode: {self.stage} took longer than {_PATIENCE_S:g} s ({reason})")

    def _let_go(self, now_ns: int, commands: dict[str, Any], policy: Record) -> str | None:
        self._operator.enabled = False
        self._set_live(False)
        if commands["mode"] == "fault":
            self._operator.acknowledge()
        return "ask" if commands["mode"] == "shadow" and not commands["enabled"] else None

    def _ask(self, now_ns: int, commands: dict[str, Any], policy: Record) -> str | None:
        status, seed = self._client.status, self._seeds[len(self.outcomes)]
        if status is not None and self._request and status.request == self._request and status.phase == "ready":
            self._ready_ns = now_ns
            self._set_live(True)
            return "look"
        if now_ns - self._asked_ns > _AGAIN_S * _NS:
            fresh = self._request == "" or self._since_ns > self._asked_ns
            self._request = self._client.ask(seed, request=None if fresh else self._request)
            self._asked_ns = now_ns
        return None

    def _look(self, now_ns: int, commands: dict[str, Any], policy: Record) -> str | None:
        """Until the policy has planned from a picture of the new episode while the robot was held."""
        held_ns = self._ready_ns = now_ns if commands["mode"] != "hold" else self._ready_ns
        if policy is None or policy.get("observed_ns", 0) <= held_ns:
            return None
        self._operator.enabled = True
        self._began_ns = now_ns
        return "run"

    def _run(self, now_ns: int, commands: dict[str, Any], policy: Record) -> str | None:
        status, seconds = self._client.status, (now_ns - self._began_ns) / _NS
        ours = status is not None and status.request == self._request
        ended = ours and status is not None and status.phase == "ended"
        faulted = commands["mode"] == "fault"
        if not (ended or faulted or seconds > self._episode_s):
            return None
        reason = "" if ended else f"fault: {commands['reason']}" if faulted else f"not over after {seconds:.0f} s"
        self.outcomes.append(
            EpisodeOutcome(
                seed=self._seeds[len(self.outcomes)],
                success=bool(ended and status and status.success),
                steps=status.steps if ours and status else 0,
                held_steps=status.held_steps if ours and status else 0,
                seconds=round(seconds, 2),
                reason=reason,
            )
        )
        _logger.info("%s", self.outcomes[-1])
        return "let_go"
