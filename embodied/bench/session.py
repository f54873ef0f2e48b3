"""What experiments that run one after the other in one process share: encoders that stay frozen, and simulators."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import gymnasium
from torch import nn

from embodied.encoders.load import load_encoder
from embodied.envs.vector import make_vector_env

Simulators = gymnasium.vector.VectorEnv[Any, Any, Any]
KEPT_ENCODERS = 2
KEPT_SIMULATORS = 2  # sets of them: with frames and without


class Session:
    """Keeps nothing: every experiment loads and starts what it needs."""

    def encoder(self, spec: str, *, seed: int = 0, state_dim: int | None = None) -> nn.Module:
        """See `load_encoder`. Whoever changes the encoder loads one of their own instead."""
        return load_encoder(spec, seed=seed, state_dim=state_dim)

    @contextmanager
    def simulators(self, options: Mapping[str, Any], *, count: int, workers: int) -> Iterator[Simulators]:
        """See `make_vector_env`; to be reset before use."""
        with closing(make_vector_env(options, num_envs=count, workers=workers)) as opened:
            yield opened

    def close(self) -> None:
        """Let go of everything."""


class KeptSession(Session):
    """Keeps the encoders and simulators used last; no result depends on it, for a seed decides an episode."""

    def __init__(self) -> None:
        self._encoders: OrderedDict[tuple[str, int, int], nn.Module] = OrderedDict()
        self._simulators: OrderedDict[str, Simulators] = OrderedDict()

    def encoder(self, spec: str, *, seed: int = 0, state_dim: int | None = None) -> nn.Module:
        # Other encoders do not depend on seed or size, and are the same for all cells.
        key = (spec, seed if spec in ("random", "scratch") else 0, (state_dim or 0) if spec == "state" else 0)
        found = self._encoders.pop(key, None) or super().encoder(spec, seed=seed, state_dim=state_dim)
        if getattr(found, "trainable", False):
            return found
        self._encoders[key] = found
        while len(self._encoders) > KEPT_ENCODERS:
            self._encoders.popitem(last=False)
        return found

    @contextmanager
    def simulators(self, options: Mapping[str, Any], *, count: int, workers: int) -> Iterator[Simulators]:
        key = json.dumps([dict(options), count, workers], sort_keys=True)
        opened = self._simulators.pop(key, None)
        if opened is None:
            while len(self._simulators) >= KEPT_SIMULATORS:
                self._simulators.popitem(last=False)[1].close()
            opened = make_vector_env(options, num_envs=count, workers=workers)
        try:
            yield opened
        except BaseException:  # in whatever state they are
            opened.close()
            raise
        self._simulators[key] = opened

    def close(self) -> None:
        while self._simulators:
            self._simulators.popitem()[1].close()
        self._encoders.clear()
