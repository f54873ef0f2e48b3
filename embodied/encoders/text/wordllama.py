"""The default text encoder: one vector per token, averaged. Legend: B texts, E width."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.core.files import hash_json

TABLE = Path("weights") / "l2_supercat_256.safetensors"
TOKENIZER = Path("tokenizers") / "l2_supercat_tokenizer_config.json"


class WordLlamaEncoder(nn.Module):
    """The mean of the token vectors of WordLlama (Miller 2024), 32,000 tokens of 256 values: no order, no context.

    Source: https://github.com/dleemiller/WordLlama; the table was trained on top of the token embeddings of Llama 2 and
    models with its tokenizer. The package's licence is MIT; the terms of those models are for whoever ships the table
    to weigh, we do not ship it. Table and tokenizer are read from the installed package's files; its code is not run,
    since its loader looks for the tokenizer on a hub.

    Raises:
        MissingExtraError: wordllama is not installed.
        UserError: the installed one lacks its files, or they are damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        found = find_spec("wordllama")
        if found is None or not found.submodule_search_locations:
            raise MissingExtraError("wordllama", "text")
        from tokenizers import Tokenizer  # comes with wordllama

        folder = Path(next(iter(found.submodule_search_locations)))
        for name in (TABLE, TOKENIZER):
            if not (folder / name).is_file():
                raise UserError(f"the installed wordllama lacks {name}: pip install --force-reinstall wordllama")
        try:
            table = safetensors.torch.load_file(folder / TABLE)["embedding.weight"]
            text = (folder / TOKENIZER).read_text(encoding="utf-8")
            self._tokenizer = Tokenizer.from_str(text)
            self._tokenizer_hash = hash_json(json.loads(text))
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{folder} is damaged ({error}): pip install --force-reinstall wordllama") from error
        self.table: Tensor
        self.register_buffer("table", table)  # float16 [32000, E]
        self.width = int(table.shape[1])

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """float32; every row depends on its own text only.

        Raises:
            UsageError: a text is empty.
        """
        rows = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        for text, ids in zip(texts, rows, strict=True):
            if not ids:
                raise UsageError(f"an instruction needs at least one word, got {text!r}")
        vectors = [self.table[torch.tensor(ids, device=self.table.device)].float().mean(dim=0) for ids in rows]
        return torch.stack(vectors) if vectors else torch.zeros(0, self.width, device=self.table.device)

    def config(self) -> dict[str, Any]:
        """What decides the vectors beside the table."""
        return {"name": "embodied.encoders.text.wordllama.WordLlamaEncoder", "tokenizer": self._tokenizer_hash}
