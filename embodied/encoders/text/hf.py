"""Text towers of Hugging Face `transformers`: CLIP, SigLIP, T5's encoder, BERT-like models.

Legend: B texts, L tokens, E width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.core.files import hash_json
from embodied.encoders.hf import local_or_hub

# The class that holds the text tower alone, by the model's type, and which of its outputs stands for the text.
# `text_embeds`: CLIP's projection into the space of images; `pooler_output`: SigLIP's head; else the tokens' mean.
TOWERS = {
    "clip": ("CLIPTextModelWithProjection", "text_embeds"),
    "clip_text_model": ("CLIPTextModelWithProjection", "text_embeds"),
    "siglip": ("SiglipTextModel", "pooler_output"),
    "siglip_text_model": ("SiglipTextModel", "pooler_output"),
    "siglip2": ("Siglip2TextModel", "pooler_output"),
    "siglip2_text_model": ("Siglip2TextModel", "pooler_output"),
    "t5": ("T5EncoderModel", "mean"),
    "mt5": ("MT5EncoderModel", "mean"),
}
OTHERS = ("AutoModel", "mean")  # sentence transformers average tokens too
PADS = ("siglip", "siglip_text_model", "siglip2", "siglip2_text_model")  # were trained on texts padded to their limit
PROBE = "Pick up the RED cube, then place it in box no. 2."  # how a tokenizer splits it is part of the fingerprint


class HuggingFaceTextEncoder(nn.Module):
    """The text tower of a `transformers` model with its own tokenizer. Safetensors only, and no remote code runs.

    Args:
        path: a folder or a repository of the hub, with weights and tokenizer.

    Raises:
        MissingExtraError: transformers is not installed.
        UserError: the folder or repository cannot be loaded, or is no text model.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        try:
            import transformers
        except ImportError as error:
            raise MissingExtraError("transformers", "hf") from error
        self._path = f"hf:{path}"
        location = local_or_hub(path, "text encoder")
        try:
            config = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
            kind, self._pooling = TOWERS.get(config.model_type, OTHERS)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(location, trust_remote_code=False)
            self.model: nn.Module = _tower(getattr(transformers, kind), location, config)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"text encoder {self._path} cannot be loaded: {reason}") from error
        self.model.float()
        self._pads = config.model_type in PADS
        self._kind = str(config.model_type)
        text = getattr(config, "text_config", config)
        limit = getattr(text, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self._limit = int(min(limit, self._tokenizer.model_max_length))
        self.width = int(self._embed("a").shape[0])

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        """float32; texts run one by one, so that every row depends on its own text only.

        Raises:
            UsageError: a text is empty, or longer than the model reads.
        """
        vectors = [self._embed(text) for text in texts]
        return torch.stack(vectors) if vectors else torch.zeros(0, self.width, device=self._device)

    def config(self) -> dict[str, Any]:
        """What decides the vectors beside the weights, wherever they lie."""
        vocabulary = hash_json(self._tokenizer.get_vocab())
        return {
            "name": "embodied.encoders.text.hf.HuggingFaceTextEncoder",
            "kind": self._kind,
            "pooling": self._pooling,
            "tokenizer": [vocabulary, list(self._tokenizer(PROBE).input_ids)],
        }

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def _embed(self, text: str) -> Float[Tensor, " E"]:
        if not text.strip():
            raise UsageError(f"an instruction needs at least one word, got {text!r}")
        length = len(self._tokenizer(text).input_ids)
        if length > self._limit:
            raise UsageError(
                f"text encoder {self._path} reads {self._limit} tokens, got {length}: shorten {text[:60]!r}..."
            )
        padding = {"padding": "max_length", "max_length": self._limit} if self._pads else {}
        tokens = self._tokenizer(text, return_tensors="pt", return_token_type_ids=False, **padding)
        # SigLIP's own processor gives no mask: the padding is read.
        if self._pads:
            tokens = {"input_ids": tokens["input_ids"]}
        self.model.eval()
        out = self.model(**{name: tensor.to(self._device) for name, tensor in tokens.items()})
        found = out.last_hidden_state.mean(dim=1) if self._pooling == "mean" else getattr(out, self._pooling)
        return found[0].float()


def _tower(factory: Any, location: str, config: Any) -> nn.Module:
    """The text part of a model.

    Raises:
        ValueError: the weights are not all there.
    """
    text = getattr(config, "text_config", config)
    if text is not config and hasattr(config, "projection_dim"):
        text.projection_dim = config.projection_dim  # a whole CLIP says it, its text part may not
    # Without transformers' report of the weights that are left out: they are of the part that sees.
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model, notes = factory.from_pretrained(
            location, config=text, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    finally:
        logger.setLevel(level)
    if missing := sorted(notes["missing_keys"]):
        raise ValueError(f"it lacks weights of a text model, among them {', '.join(missing[:3])}")
    return model
