"""What `features.json` of a TFDS folder says: the names, dtypes and shapes of the values in its tf.train.Examples.

Names of nested features are joined by `/`. A feature inside a Sequence, or inside the nested Dataset that RLDS calls
`steps`, is one list for all elements together; two levels of them make it ragged: `<name>/ragged_flat_values` and
`<name>/ragged_row_lengths_0`. A Tensor with several unknown sizes is `<name>/value` and `<name>/shape`. Both ways that
TFDS has written the file are read: protobuf as JSON, and the older `{"type": ..., "content": ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.datasets.files.foreign_json import read_object

FILE_NAME = "features.json"
TEXTS = ("string", "object", "bytes", "str")
NUMBERS = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)
# The fields of TFDS's Feature message, and the class names of its older files.
_KINDS = {
    "featuresDict": "dict",
    "FeaturesDict": "dict",
    **dict.fromkeys(("sequence", "Sequence", "Dataset"), "sequence"),
    **dict.fromkeys(("video", "Video"), "video"),
    **dict.fromkeys(("tensor", "Tensor", "Scalar", "boundingBox", "BBoxFeature", "audio", "Audio"), "tensor"),
    **dict.fromkeys(("classLabel", "ClassLabel"), "label"),
    **dict.fromkeys(("text", "Text"), "text"),
    **dict.fromkeys(("image", "Image", "LabeledImage"), "image"),
}
_DEFAULT_DTYPES = {"boundingBox": "float32", "BBoxFeature": "float32", "audio": "int64", "Audio": "int64"}


@dataclass(frozen=True)
class TfdsFeature:
    """One value that is no container.

    Args:
        name: of its list in the Examples.
        kind: `tensor`, `image` or `text`.
        dtype: TensorFlow's name.
        shape: of one element; None where it is not fixed.
        encoding: of a tensor: `none`, `bytes` or `zlib`.
        levels: how many sequences it is in, `steps` included.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | None, ...]
    encoding: str = "none"
    levels: int = 0

    @property
    def dynamic(self) -> bool:
        """Whether every element is written with its own shape."""
        return self.kind == "tensor" and self.shape.count(None) > 1


@dataclass
class TfdsFeatures:
    """All features of a folder; `unknown` names those of a kind that is not read, and why."""

    known: dict[str, TfdsFeature] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


def load_features(folder: Path) -> TfdsFeatures:
    """What `features.json` in `folder` says.

    Raises:
        UserError: it is damaged.
    """
    path = folder / FILE_NAME
    features = TfdsFeatures()
    try:
        _collect(read_object(path), "", 0, features)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, or not as TFDS writes it ({error!r}): get it again") from error
    return features


def _collect(node: Mapping[str, Any], name: str, levels: int, features: TfdsFeatures) -> None:
    label, content = _content(node)
    kind = _KINDS.get(label, "")
    if kind == "dict":
        for key, child in content.get("features", content).items():
            _collect(child, f"{name}/{key}" if name else key, levels, features)
    elif kind == "sequence":
        _collect(content["feature"], name, levels + 1, features)
    elif kind == "video":
        shape = _shape(content.get("shape"))[1:]
        features.known[name] = TfdsFeature(name, "image", content.get("dtype") or "uint8", shape, levels=levels + 1)
    elif kind == "image":
        shape = _shape(content.get("shape")) or (None, None, 3)
        features.known[name] = TfdsFeature(name, "image", content.get("dtype") or "uint8", shape, levels=levels)
    elif kind == "text":
        features.known[name] = TfdsFeature(name, "text", "string", (), levels=levels)
    elif kind == "label":
        features.known[name] = TfdsFeature(name, "tensor", "int64", (), levels=levels)
    elif kind == "tensor":
        _collect_tensor(content, name, _DEFAULT_DTYPES.get(label, ""), levels, features)
    else:
        features.unknown[name] = f"features of the kind {label} are not read"


def _collect_tensor(content: Mapping[str, Any], name: str, default: str, levels: int, features: TfdsFeatures) -> None:
    dtype = content.get("dtype") or default
    dtype = dtype.removeprefix("tf.") if isinstance(dtype, str) else str(dtype)
    shape = _shape(content.get("shape"))
    encoding = str(content.get("encoding") or "none").lower()
    if dtype in TEXTS and not shape:
        features.known[name] = TfdsFeature(name, "text", "string", (), levels=levels)
    elif dtype not in NUMBERS:
        features.unknown[name] = f"arrays of {dtype} are not read"
    elif encoding not in ("none", "bytes", "zlib"):
        features.unknown[name] = f"the encoding {encoding} is not read"
    else:
        features.known[name] = TfdsFeature(name, "tensor", dtype, shape, encoding, levels)


def _content(node: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of a feature, as its file names it, and what is said of it."""
    if "type" in node:  # older files
        content = node["content"]
        return str(node["type"]).rpartition(".")[2], json.loads(content) if isinstance(content, str) else content
    class_name = str(node.get("pythonClassName", "")).rpartition(".")[2]
    if "jsonFeature" in node:
        return class_name, json.loads(node["jsonFeature"]["json"])
    for label in node.keys() & _KINDS.keys():
        return label, node[label]
    return class_name or "unnamed", {}


def _shape(value: Any) -> tuple[int | None, ...]:
    sizes = value.get("dimensions", []) if isinstance(value, Mapping) else value or []
    shape = tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)
    if len(shape) > 16:
        raise ValueError(f"a shape of {len(shape)} dimensions")
    return shape
