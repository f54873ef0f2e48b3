"""Instructions as vectors, each distinct one computed once. Legend: B texts, E width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import TextEncoder


class Instructions:
    """What a frozen text encoder makes of instructions, remembered.

    Args:
        encoder: see `core.protocols.TextEncoder`.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._known: dict[str, Tensor] = {}

    @property
    def width(self) -> int:
        """E."""
        return self.encoder.width

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """Their embeddings, on the CPU.

        Raises:
            UsageError: one is no text, or empty.
        """
        if isinstance(texts, str):
            raise UsageError(f"instructions: expected a list with one text per episode, got the text {texts!r}")
        for number, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise UsageError(f"instructions[{number}]: expected a text such as 'open the drawer', got {text!r}")
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known |= dict(zip(fresh, self.encoder.encode(fresh).cpu().unbind(0), strict=True))
        return torch.stack([self._known[text] for text in texts]) if texts else torch.zeros(0, self.width)
