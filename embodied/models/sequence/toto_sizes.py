"""Sizes of Toto's transformer."""

from __future__ import annotations

from dataclasses import dataclass

from embodied.core.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Size:
    """Blocks, width, heads and the width of the MLP."""

    depth: int
    width: int
    heads: int
    hidden: int


# The paper (arXiv 2501.05453) states blocks and weights of base (12, 120 M), large (16, 280 M) and 1b (22, 1.1 B) and
# neither widths nor heads that we could confirm: those here are ours, chosen so that the weights come out with 8192
# codes. tiny and small are ours altogether, for CPUs.
SIZES: dict[str, Size] = {
    "tiny": Size(depth=4, width=128, heads=4, hidden=384),
    "small": Size(depth=6, width=256, heads=4, hidden=768),
    "base": Size(depth=12, width=768, heads=12, hidden=3072),
    "large": Size(depth=16, width=1024, heads=16, hidden=4096),
    "1b": Size(depth=22, width=2048, heads=32, hidden=5632),
}


def choose_size(
    size: str | None, *, width: int | None, depth: int | None, heads: int | None, hidden: int | None
) -> Size:
    """One of `SIZES`, or a size by numbers; without `hidden`, the MLP has the multiple of 32 from 8/3 widths on.

    Raises:
        UsageError: there is no such size, both a name and numbers are given, or numbers are missing.
    """
    given = {"width": width, "depth": depth, "heads": heads, "hidden": hidden}
    if size is not None:
        if str(size) not in SIZES:
            raise unknown_name("size of Toto", str(size), SIZES)
        if named := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"give either size={size} or {', '.join(named)} (with size=null), not both")
        return SIZES[str(size)]
    if width is None or depth is None or heads is None:
        raise UsageError(f"a Toto without a size needs width, depth and heads, got {width}, {depth} and {heads}")
    return Size(depth, width, heads, -(-width // 12) * 32 if hidden is None else hidden)
