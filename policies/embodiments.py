"""One policy for several robots, each with its own number, scale and meaning of actions and proprioception.

Encoder, neck and head are one, and the head gives as many actions as the robot with the most, as in pi0; HPT's
stems and heads (`encoders.hpt`) are each robot's own. What is a robot's own here, the statistics of its actions and
proprioception and what its actions are measured from, lies in a `BCPolicy` of its own, and all of these have one
encoder and one controller between them. So each acts like a policy of that robot alone, and a file of all of them is
loaded as one of these by its name (`artifact`).

Legend: B batch, T moments of observation, H chunk, N robots; P and A proprioception and actions of a robot, Q and D the
most of any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from embodied.core.protocols import ACTION, STATE
from embodied.policies.bc import BCPolicy
from embodied.policies.embodiment_files import EMBODIMENT, ROBOTS, tensors_of

OWN = ("normalizer.", "shared.")  # what names of a robot's own tensors begin with


class Embodiments(nn.Module):
    """Trains policies of several robots as one.

    Args:
        members: their policies, with the same settings and `shared`, in the order of their numbers. The encoder and the
            controller of the first become those of all.
    """

    def __init__(self, members: Sequence[BCPolicy]) -> None:
        super().__init__()
        lead = members[0]
        for member in members[1:]:
            member.encoder, member.controller, member.ema = lead.encoder, lead.controller, lead.ema
        # Under the names that they have in a policy of one robot, by which their learning rates are told apart.
        self.encoder, self.controller, self.ema = lead.encoder, lead.controller, lead.ema
        self.members = nn.ModuleList(members)

    @property
    def policies(self) -> list[BCPolicy]:
        """The members, typed."""
        return [member for member in self.members if isinstance(member, BCPolicy)]

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's loss on actions that are normalised for each robot.

        Args:
            batch: as of `BCPolicy.loss`, `observation.state` [B, T, Q] and `action` [B, H, D] with anything behind a
                robot's own values, and `embodiment`.
            generator: randomness of augmentation and head.
        """
        given, owners = batch[ACTION], batch[EMBODIMENT]
        lead = self.policies[0]
        assert lead.shared is not None
        actions = torch.zeros_like(given)
        states = given.new_zeros(*batch[STATE].shape[:2], lead.shared.width)
        mask = torch.zeros(given.shape[0], given.shape[2], dtype=torch.bool, device=given.device)
        for number, member in enumerate(self.policies):
            assert member.shared is not None and member.action_mask is not None
            rows = (owners == number).nonzero().flatten()
            own = batch[STATE][rows, :, : member.proprioception_dim]
            actions[rows] = member.learned(given[rows, :, : member.action_dim], own)
            states[rows] = member.shared(own)
            mask[rows] = member.action_mask
        return lead.head_loss(batch, state=states, actions=actions, action_mask=mask, generator=generator)

    def after_step(self) -> None:
        """See `BCPolicy.after_step`."""
        self.policies[0].after_step()

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: what is shared once, and of each robot `robots.<number>.<name>`."""
        found = {}
        for number, member in enumerate(self.policies):
            for name, tensor in member.trained_tensors().items():
                found[f"{ROBOTS}.{number}.{name}" if name.startswith(OWN) else name] = tensor
        return found

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_tensors`; a checkpoint of another policy is refused."""
        for number, member in enumerate(self.policies):
            member.load_trained_tensors(tensors_of(tensors, number))
