"""Where the time goes between a picture and an action."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

STAGES = ("receive", "decode", "resize", "compress", "network", "upload", "encode", "policy", "write")
"""`receive`: from the transport's stamp to when the picture was taken up; the others are work, one after the other.
`compress` and `network` are of a policy on a server."""
WORK = "work"  # all stages but `receive` together
_KEPT = 1024


class Stages:
    """The durations of each stage in the last 1024 steps; a stage that a step does without does not count there."""

    def __init__(self) -> None:
        self._steps = np.full((_KEPT, len(STAGES)), np.nan)
        self._row = np.full(len(STAGES), np.nan)
        self.count = 0

    def add(self, stage: str, seconds: float) -> None:
        """More time of a stage in the present step."""
        index = STAGES.index(stage)
        self._row[index] = np.nansum([self._row[index], seconds])

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """The duration of the block."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def finish(self) -> None:
        """The present step is over."""
        self._steps[self.count % _KEPT] = self._row
        self.count += 1
        self.drop()

    def drop(self) -> None:
        """The present step came to nothing."""
        self._row = np.full(len(STAGES), np.nan)

    def clear(self) -> None:
        """Forget all steps."""
        self._steps[:], self.count = np.nan, 0
        self.drop()

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """p50 and p99 of each stage that has happened and of `work`, ms."""
        steps = self._steps[: min(self.count, _KEPT)]
        columns = {name: steps[:, index] for index, name in enumerate(STAGES)}
        columns[WORK] = np.nansum(steps[:, 1:], axis=1)
        found = {}
        for name, column in columns.items():
            happened = column[~np.isnan(column)]
            if len(happened):
                p50, p99 = np.percentile(happened, (50, 99)) * 1e3
                found[name] = {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
        return found
