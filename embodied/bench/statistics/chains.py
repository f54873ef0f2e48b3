"""Tasks in a row, as CALVIN counts them (Mees et al. 2022, https://arxiv.org/abs/2112.03227)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.bench.statistics.intervals import wilson_interval


def in_a_row(scores: Sequence[float], chain: int) -> dict[str, Any]:
    """What came of chains.

    Args:
        scores: of each chain the share of its tasks that were done before the first that was not.
        chain: tasks of each.

    Returns:
        JSON-able: `success` by the number of tasks, 1 to `chain`: the share of chains that did at least so many, with
        its 95 % interval [share, low, high]; `average_length`: mean number of tasks done, 0 to `chain`.
    """
    lengths = np.rint(np.asarray(scores, float) * chain).astype(int)
    reached = [int((lengths >= number).sum()) for number in range(1, chain + 1)]
    success = {
        str(number): [count / len(lengths), *wilson_interval(count, len(lengths))]
        for number, count in enumerate(reached, 1)
    }
    return {"success": success, "average_length": float(lengths.mean())}
