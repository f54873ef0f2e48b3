"""`load_text_encoder`: one name for any text encoder."""

from __future__ import annotations

from typing import cast

from torch import nn

from embodied.core.errors import unknown_name
from embodied.core.protocols import TextEncoder
from embodied.encoders.artifact import fingerprint, freeze

CLIP = "openai/clip-vit-base-patch32"  # whose text tower GR-1 uses
DEFAULT = "wordllama"
BUILTIN = {
    "wordllama": "mean of 256-d token vectors that come with the package wordllama; works offline (extra: text)",
    "clip": f"the text tower of {CLIP}, from the hub or its cache (extra: hf)",
}


def load_text_encoder(spec: str) -> TextEncoder:
    """A text encoder, frozen.

    Args:
        spec: a built-in name (see `BUILTIN`), or `hf:<folder or repo>`: a text model of transformers.

    Raises:
        UsageError: there is no text encoder of that name.
        UserError: its files are missing or damaged.
        MissingExtraError: wordllama or transformers is not installed.
    """
    if spec == "wordllama":
        from embodied.encoders.text.wordllama import WordLlamaEncoder

        return freeze(WordLlamaEncoder())
    if spec == "clip" or spec.startswith("hf:"):
        from embodied.encoders.text.hf import HuggingFaceTextEncoder

        return freeze(HuggingFaceTextEncoder(path=CLIP if spec == "clip" else spec.removeprefix("hf:")))
    raise unknown_name("text encoder", spec, [*BUILTIN, "hf:<folder or repo>"])


def text_fingerprint(encoder: TextEncoder) -> str:
    """SHA-256 (hex) of weights, tokenizer and pooling: the same fingerprint, the same vectors."""
    return fingerprint(cast(nn.Module, encoder))
