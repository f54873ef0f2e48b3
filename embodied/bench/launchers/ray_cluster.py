"""`launcher=ray`: actors on a Ray cluster, started elsewhere (`ray start`) or on this machine.

All nodes need this installation, and see the folder of the benchmark and the cache under the same paths. The work list
stays here: nodes get items and report on them, and a node that goes takes nothing with it but what it was at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from embodied.bench.launchers.crew import MakeRunner, Report, Runner, perform_all
from embodied.bench.work_list import Item
from embodied.core.errors import MissingExtraError, UserError, unknown_name

OPTIONS = ("address", "cpus", "gpus", "memory_gb")


class RayCrew:
    """Implements `Crew` by Ray actors.

    Args:
        make_runner: see `MakeRunner`.
        size: actors; None: as many as the cluster has room for.
        options: `address` of the cluster (`auto`: the one of this machine; null: start one), and what an actor takes of
            it: `cpus` (1), `gpus` (0), `memory_gb`.
        batch: cells that an actor evaluates at once, at most, where they share an encoder.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: there is no cluster at the address.
    """

    mixed = False

    def __init__(
        self, make_runner: MakeRunner, *, size: int | None, options: Mapping[str, Any], batch: int = 1
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        for name in options:
            if name not in OPTIONS:
                raise unknown_name("launcher option of ray", name, OPTIONS)
        self._ray: Any = ray
        self._make_runner = make_runner
        # `local` and not None, for which Ray would wait minutes for a cluster that it remembers and that is gone. A
        # cluster of this machine alone is reached by loopback, whatever its other addresses let through.
        address = options.get("address") or "local"
        own = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"launcher=ray: no cluster at {address!r}: {error}") from error
        self._needs = {"num_cpus": options.get("cpus", 1), "num_gpus": options.get("gpus", 0)}
        if options.get("memory_gb"):
            self._needs["memory"] = int(options["memory_gb"] * 1e9)
        self.size, self.batch = size or self._room(), batch
        self._actors: dict[int, Any] = {}
        self._starting: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, list[Item]]] = {}

    def _room(self) -> int:
        found = self._ray.cluster_resources()
        wanted = {"CPU": self._needs["num_cpus"], "GPU": self._needs["num_gpus"]}
        return max(1, min(int(found.get(name, 0) / number) for name, number in wanted.items() if number))

    def ready(self, worker: int) -> bool:
        """An actor is created first and given work when it has answered: one without room would keep it for ever."""
        if worker not in self._actors:
            actor_class = self._ray.remote(max_restarts=0, **self._needs)(_Actor)
            self._actors[worker] = actor_class.remote(self._make_runner, worker)
            self._starting[worker] = self._actors[worker].ping.remote()
        if worker in self._starting:
            done, _ = self._ray.wait([self._starting[worker]], timeout=0)
            if not done:
                return False
            try:
                self._ray.get(self._starting.pop(worker))
            except self._ray.exceptions.RayError:
                del self._actors[worker]
                return False
        return True

    def send(self, worker: int, items: Sequence[Item]) -> None:
        self._pending[self._actors[worker].perform.remote(list(items))] = (worker, list(items))

    def wait(self, timeout_s: float) -> list[Report]:
        if not self._pending:
            time.sleep(timeout_s)
            return []
        done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        found = []
        for reference in done:
            worker, items = self._pending.pop(reference)
            try:
                found += self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._actors.pop(worker)
                reason = f"its Ray worker was lost: {' '.join(str(error).split())[:200]}"
                found += [Report(worker=worker, key=item.key, lost=reason) for item in items]
        return found

    def close(self, *, at_once: bool) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._pending.clear()
        self._ray.shutdown()


class _Actor:
    """A worker on a node."""

    def __init__(self, make_runner: MakeRunner, worker: int) -> None:
        self._runner: Runner = make_runner(worker)
        self._worker = worker

    def ping(self) -> bool:
        return True

    def perform(self, items: list[Item]) -> list[Report]:
        return list(perform_all(self._runner, items, self._worker))
