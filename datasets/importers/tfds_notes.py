"""What is said of an RLDS episode beside its arrays: the instruction, other texts and the metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from embodied.datasets.files.tf_example import FeatureList
from embodied.datasets.importers.tfds_features import TfdsFeature
from embodied.datasets.importers.tfds_steps import RAGGED_VALUES
from embodied.datasets.loading.bfloat16 import BFLOAT16

_LONGEST_NOTE = 2000  # characters
_MOST_NOTED = 64  # numbers


def is_notable(feature: TfdsFeature) -> bool:
    """Whether a value of the whole episode is small enough for its notes."""
    plain = feature.kind == "tensor" and feature.encoding == "none" and None not in feature.shape
    return feature.kind == "text" or (plain and prod(size or 1 for size in feature.shape) <= _MOST_NOTED)


def is_codes(feature: TfdsFeature) -> bool:
    """Whether a feature can be a text as character codes, ended by zeros, as Language-Table has it."""
    return feature.name.endswith("/instruction") and len(feature.shape) == 1 and feature.dtype in ("int32", "uint8")


def text_of(feature: TfdsFeature, example: Mapping[str, FeatureList]) -> str:
    """The most common text of all steps, or the only one of an episode; empty if there is none."""
    values = example.get(feature.name) or example.get(f"{feature.name}/{RAGGED_VALUES}") or FeatureList()
    if feature.kind == "text":
        texts = [item.decode("utf-8", "replace").strip() for item in values.items]
    else:
        try:
            codes = values.numbers("uint8").reshape(-1, feature.shape[0] or 1)
        except ValueError:  # no codes of bytes: the blocks say more, if it is damage
            return ""
        texts = [row.tobytes().rstrip(b"\0").decode("utf-8", "replace").strip() for row in codes]
    counts = Counter(text[:_LONGEST_NOTE] for text in texts if text)
    return counts.most_common(1)[0][0] if counts else ""


def noted(feature: TfdsFeature, example: Mapping[str, FeatureList]) -> Any:
    """A notable value of the whole episode as JSON; None for what is absent, long or damaged."""
    values = example.get(feature.name)
    if not values:
        return None
    if feature.kind == "text":
        return text_of(feature, example)
    if len(values) > _MOST_NOTED:
        return None
    try:
        found = values.numbers("float32" if feature.dtype == BFLOAT16 else feature.dtype).tolist()
    except ValueError:
        return None
    finite = [value if np.isfinite(value) else None for value in found]
    return finite if feature.shape or feature.levels else finite[0]
