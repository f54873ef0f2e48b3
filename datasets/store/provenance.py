"""What a store says of how it was made, of every store that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def provenances(provenance: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Every mapping called `name`, at any depth: of a store, and of those that it was edited or merged from.

    Args:
        provenance: of a store, or a part of it.
        name: such as `collect` or `commanded`.
    """
    if isinstance(provenance, Mapping):
        if isinstance(found := provenance.get(name), Mapping):
            yield found
        provenance = list(provenance.values())
    if isinstance(provenance, list):
        for part in provenance:
            yield from provenances(part, name)
