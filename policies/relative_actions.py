"""Actions that a head learns as offsets from the present state, or as steps, while the policy takes and gives targets.

`relative` is what pi0 and LeRobot call relative (or delta) actions, and UMI relative poses: every target of a chunk
minus the state at the chunk's observation. `delta` is the way from one target to the next, the first from the state.

How it lies in a policy. Every behaviour-cloning policy is given `observation.state` as it was observed and scales it
itself, as proprioception. So nothing else need be observed or remembered: a policy converts where it normalises, in its
loss by the states of the batch and in `predict` by the states of the window that the chunk is made from. What leaves
`predict` is absolute, so chunks of different observations (queue, temporal ensembling, real-time chunking, what a robot
blends) are only ever mixed as targets. Normalisation comes after the conversion, and its statistics are those of
converted chunks: `bench.imitation_data.measure`. Exported graphs convert too, by the state, an input of theirs.

A head that reads moment by moment (`rnn_gmm`) answers each moment, from that moment's state: there the two are one.

A departure: steps behind an episode's end, which weigh nothing in a loss, repeat the last real step of the frame
(`heads.chunks.prepare`); so in `delta` they go on as it went, where absolute targets would hold still.

Legend: B batch, T moments of observation, P values of the state, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.action_frames import from_delta, from_relative, to_delta, to_relative, wrap

Kind = Literal["relative", "delta"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RelativeActions(nn.Module):
    """Chunks of absolute targets to offsets and back; it holds nothing that learns and nothing that is saved.

    Args:
        kind: see above.
        state: by action the number of the state's value that measures the same; None: it stays absolute.
        turning: numbers of the actions that are radians of a joint without an end: the shorter way round. Targets
            that `restore` gives of them are near the state they start from and may lie beyond [-pi, pi).
        by_moment: action t is of moment t, and H is T.

    Raises:
        UsageError: the kind is unknown, or nothing is converted.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        state: Sequence[int | None],
        turning: Sequence[int] = (),
        by_moment: bool = False,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("policy.action_frame", str(kind), ("absolute", *KINDS))
        if all(number is None for number in state):
            raise UsageError(f"policy.action_frame={kind}: expected an action that is measured by the state, got none")
        self.kind, self.by_moment = kind, by_moment
        self.converted: Tensor
        self.source: Tensor
        self.turning: Tensor | None
        buffers = {
            "converted": [number is not None for number in state],
            "source": [number or 0 for number in state],
            "turning": [index in turning for index in range(len(state))] if turning else None,
        }
        for name, values in buffers.items():
            self.register_buffer(name, None if values is None else torch.tensor(values), persistent=False)

    def convert(self, actions: Float[Tensor, "B H A"], states: Float[Tensor, "B T _"]) -> Float[Tensor, "B H A"]:
        """Absolute targets as the head learns them. The state's values come first in `states`, its last is now."""
        change = to_relative if self.kind == "relative" else to_delta
        return self._by(change, actions, states, angles=self.turning)

    def restore(self, offsets: Float[Tensor, "B H A"], states: Float[Tensor, "B T _"]) -> Float[Tensor, "B H A"]:
        """The inverse of `convert`, by the same states, but for whole turns."""
        return self._by(from_relative if self.kind == "relative" else from_delta, offsets, states)

    def as_recorded(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Targets as recordings have them: joints without an end in [-pi, pi)."""
        return wrap(actions, self.turning)

    def _by(self, change: Callable[..., Tensor], actions: Tensor, states: Tensor, **options: Any) -> Tensor:
        pose = states[..., self.source]  # (B, T, A)
        if self.by_moment:
            return change(actions[:, :, None], pose, converted=self.converted, **options)[:, :, 0]
        return change(actions, pose[:, -1], converted=self.converted, **options)


def relative_actions(
    record: Mapping[str, Any] | None, *, head: str, action_dim: int, proprioception_dim: int, by_moment: bool
) -> RelativeActions | None:
    """Of a policy, from the arguments in its file; None: its head learns actions as they are.

    Raises:
        UsageError: head, actions or proprioception do not go with it.
    """
    if record is None:
        return None
    made = RelativeActions(**record, by_moment=by_moment)
    if head == "gr1":
        raise UsageError(f"policy.head=gr1 learned actions as they are: leave policy.action_frame={made.kind} out")
    if len(made.source) != action_dim or int(made.source.max()) >= proprioception_dim:
        raise UsageError(
            f"policy.action_frame: expected a value of a state of {proprioception_dim} (or none) for each of "
            f"{action_dim} actions, got {record['state']}"
        )
    return made
