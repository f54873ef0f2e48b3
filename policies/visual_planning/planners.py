"""Planners by their names. Legend: B environments, H actions of a plan, A action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.visual_planning.cem import CEM
from embodied.policies.visual_planning.mppi import MPPI
from embodied.policies.visual_planning.sampling import Bounds, Draw, Plan, Score
from embodied.policies.visual_planning.shooting import Shooting

PLANNERS: dict[str, type[CEM] | type[MPPI] | type[Shooting]] = {"cem": CEM, "mppi": MPPI, "shooting": Shooting}
PIXEL_GAMMA, OTHER_GAMMA = 0.05, 5.0  # VP2's, of summed pixel errors; ours, of standardised costs


class Planner(Protocol):
    """What searches for a plan; it remembers nothing and draws nothing itself."""

    @property
    def samples(self) -> int:
        """Candidates of a draw."""
        ...

    @property
    def draws(self) -> int:
        """How often it asks for noise."""
        ...

    def plan(self, score: Score, mean: Float[Tensor, "B H A"], bounds: Bounds, draw: Draw) -> Plan:
        """The plan found from `mean` on; rows are independent."""
        ...


def make_planner(name: str, options: Mapping[str, Any], *, summed_pixels: bool) -> Planner:
    """The planner of that name.

    Args:
        name: of `PLANNERS`.
        options: of its class; one that is None is left to its default.
        summed_pixels: whether costs are VP2's, for which MPPI's gamma is made; else it standardises them.

    Raises:
        UsageError: there is no such planner, or it has no such option.
    """
    if name not in PLANNERS:
        raise unknown_name("policy.planner", name, PLANNERS)
    chosen = {key: value for key, value in options.items() if value is not None}
    if name == "mppi":
        standardise = chosen.setdefault("standardise", not summed_pixels)
        chosen.setdefault("gamma", OTHER_GAMMA if standardise else PIXEL_GAMMA)
    known = PLANNERS[name].__dataclass_fields__
    if unknown := sorted(chosen.keys() - known.keys()):
        raise unknown_name(f"option of policy.planner={name}", unknown[0], known)
    try:
        return PLANNERS[name](**chosen)
    except TypeError as error:
        raise UsageError(f"policy.planner={name}: {error}") from error
