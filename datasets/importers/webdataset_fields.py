"""The fields of a WebDataset sample: what the endings of its files mean, and the arrays they hold.

| ending | value |
| --- | --- |
| jpg, jpeg, png, webp, bmp, tif, tiff, ppm, pgm, pbm, pnm | uint8 [H, W, 3]; gray PNG and 16-bit images as they are |
| npy | its array |
| json | every number as float64 and truth value as bool, under its name; lists of them as arrays |
| cls, cls2, index, inx, id | int64 |
| txt, text, transcript, caption | the task |
| mp4, mkv, webm, avi, mov, m4v, mpg, mpeg | frames uint8 [H, W, 3]: such a sample is an episode of its own |

A field is called as its ending is, `wrist.jpg` as `wrist`. Pickles are refused; other endings are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.encoded_images import (
    Picture,
    as_rgb,
    as_square,
    decode_npy,
    decode_picture,
    is_lossy,
)
from embodied.datasets.files.foreign_json import parse_object, plain_json
from embodied.datasets.store.episode_index import KeySpec

_KINDS = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"), "image"),
    **dict.fromkeys(("npy",), "npy"),
    **dict.fromkeys(("json",), "json"),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), "integer"),
    **dict.fromkeys(("txt", "text", "transcript", "caption"), "text"),
    **dict.fromkeys(("mp4", "mkv", "webm", "avi", "mov", "m4v", "mpg", "mpeg"), "video"),
    **dict.fromkeys(("pyd", "pickle", "pkl", "pth", "pt", "dill", "joblib"), "pickle"),
}
TASK_NAMES = ("task", "instruction", "language_instruction", "caption", "text")
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_LONGEST_TEXT = 2000  # characters


@dataclass(frozen=True)
class SampleField:
    """What a file of a sample is.

    Args:
        ending: of its name, lower case.
        kind: as in the table above: `image`, `npy`, `json`, `integer`, `text` or `video`.
        name: of its array; of a json the start of its arrays' names.
    """

    ending: str
    kind: str
    name: str


def split_name(name: str) -> tuple[str, str] | None:
    """Key and ending of a member: `walk/0001.wrist.jpg` is `walk/0001` and `wrist.jpg`; None for what is no sample."""
    match = _SAMPLE_NAME.fullmatch(name.removeprefix("./"))
    if match is None or re.match(r"__[^/]*__($|/)", name):
        return None
    return match[1], match[2].lower()


def fields_of(endings: Collection[str], exclude: Collection[str], *, where: str) -> tuple[list[SampleField], list[str]]:
    """The fields to read of samples with these files, and the endings that are left out.

    Raises:
        UserError: one is a pickle and not excluded.
    """
    fields, left_out = [], []
    stems = [ending.rpartition(".")[0] for ending in endings]
    for ending in endings:
        stem, _, last = ending.rpartition(".")
        kind = _KINDS.get(last)
        if ending in exclude:
            continue
        if kind == "pickle":
            raise UserError(
                f"{where} has a .{ending} file: Python pickles can run any code when they are read. Write the data "
                f"anew as .npy or .json, or leave it out (options.exclude=[{ending}])"
            )
        if kind is None:
            left_out.append(ending)
            continue
        name = stem if stem and stems.count(stem) == 1 else "" if kind == "json" and not stem else ending
        fields.append(SampleField(ending, kind, name))
    return fields, left_out


def decode_field(field: SampleField, data: bytes, *, where: str) -> dict[str, np.ndarray]:
    """The arrays of a field that is no video: for one frame, or [T, ...] beside a video; texts have none.

    Raises:
        UserError: the bytes are damaged.
    """
    if field.kind == "image":
        return {field.name: decode_frame(data, where=where).pixels}
    if field.kind == "npy":
        return {field.name: decode_npy(data, where=where)}
    if field.kind == "integer":
        try:
            return {field.name: np.array(int(data[:_LONGEST_TEXT]), np.int64)}
        except (ValueError, OverflowError) as error:
            raise UserError(f"{where} holds {data[:20]!r}, which is no whole number") from error
    if field.kind == "json":
        found: dict[str, np.ndarray] = {}
        _numbers(parse_object(data, where), field.name, found)
        return found
    return {}


def decode_frame(data: bytes, *, where: str) -> Picture:
    """The picture of an image field.

    Raises:
        UserError: the bytes are damaged.
    """
    picture = decode_picture(data, where=where)
    if picture.pixels.dtype == np.uint8 and is_lossy(data):
        return Picture(as_rgb(picture.pixels), picture.file)
    return picture


def texts_of(field: SampleField, data: bytes, *, where: str) -> dict[str, str]:
    """The texts of a field by name: the one of a txt, or those in a json."""
    if field.kind == "text":
        return {"text": data.decode("utf-8", "replace").strip()[:_LONGEST_TEXT]}
    if field.kind == "json":
        content = parse_object(data, where)
        return {name: plain_json(value[:_LONGEST_TEXT]) for name, value in content.items() if isinstance(value, str)}
    return {}


def frame_spec(array: np.ndarray, data: bytes) -> KeySpec:
    """The spec of a field's frames, from the first; `data` says whether they were lossy."""
    picture = array.dtype == np.uint8 and array.shape[2:] == (3,)
    return KeySpec(str(array.dtype), array.shape, codec="jpeg" if picture and is_lossy(data) else "zstd")


def fitted(array: np.ndarray, spec: KeySpec, size: int | None) -> np.ndarray:
    """A frame as its spec has it, as far as that changes no kind of data: gray to colour, and resized to `size`."""
    if array.dtype == np.uint8 and spec.dtype == "uint8" and spec.shape[2:] == (3,) and array.ndim in (2, 3):
        array = as_rgb(array)
        if size is not None and array.shape[2] == 3:
            array = as_square(array, size)
    return array


def _numbers(value: Any, name: str, found: dict[str, np.ndarray], depth: int = 8) -> None:
    if isinstance(value, Mapping) and depth:
        for key, child in value.items():
            _numbers(child, f"{name}/{key}" if name else key, found, depth - 1)
    elif isinstance(value, bool | int | float | list):
        try:
            array = np.array(value)
        except (ValueError, OverflowError, RecursionError):  # lists of different lengths, or numbers beyond float64
            return
        if array.dtype.kind in "iuf" and array.size:
            found[name] = array.astype(np.float64)
        elif array.dtype.kind == "b" and array.size:
            found[name] = array
