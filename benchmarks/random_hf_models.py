"""Two small vision models of `transformers` with random weights, to check the way in for encoders of others.

python benchmarks/random_hf_models.py FOLDER

FOLDER then holds random-dinov2 and random-clip: `encoders='[hf:FOLDER/random-dinov2,hf:FOLDER/random-clip]'`. They have
learned nothing: a benchmark that ranks them above the `random` baseline shows how far chance goes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, PreTrainedModel

SHAPE = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3}


def models() -> dict[str, PreTrainedModel]:
    """By folder, seeded: the same weights on every machine."""
    torch.manual_seed(0)
    return {
        "random-dinov2": Dinov2Model(Dinov2Config(**SHAPE, image_size=112, patch_size=14)),
        "random-clip": CLIPVisionModel(CLIPVisionConfig(**SHAPE, intermediate_size=768, image_size=128, patch_size=16)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, model in models().items():
        model.save_pretrained(folder / name)
        print(folder / name, f"{sum(each.numel() for each in model.parameters()):,} random weights")


if __name__ == "__main__":
    main()
