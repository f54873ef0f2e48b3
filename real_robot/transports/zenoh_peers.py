"""Who else is on a Zenoh domain."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any

from embodied.real_robot.transports.zenoh_names import TopicName, all_tokens, announced

_logger = logging.getLogger(__name__)
_MOST_NEWS = 10_000  # comings and goings between two looks


class Peers:
    """Publishers (kind MP) and subscriptions (MS) by topic, as their programs announce them."""

    def __init__(self, session: Any, domain: int) -> None:
        from zenoh import handlers

        self._counts: Counter[tuple[str, TopicName]] = Counter()
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._news = session.liveliness().declare_subscriber(
            all_tokens(domain), handlers.RingChannel(_MOST_NEWS), history=True
        )

    def _read_news(self) -> None:
        from zenoh import SampleKind

        while (sample := self._news.handler.try_recv()) is not None:
            token, here = str(sample.key_expr), sample.kind == SampleKind.PUT
            found = announced(token)
            if found is not None and (token in self._tokens) != here:
                (self._tokens.add if here else self._tokens.remove)(token)
                self._counts[found] += 1 if here else -1

    def count(self, kind: str, name: TopicName) -> int:
        """How many there are of a topic; warns where one has another type hash and will never be heard."""
        with self._lock:
            self._read_news()
            others = [each for (other, each), count in self._counts.items() if other == kind and count > 0]
            same = self._counts[kind, name]
        for each in others:
            if not same and (each.topic, each.type) == (name.topic, name.type) and each.hash != name.hash:
                _logger.warning("%s: the other side has the type hash %s, not %s", name.topic, each.hash, name.hash)
        return same
