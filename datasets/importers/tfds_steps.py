"""The values of an RLDS episode's steps, from its parsed tf.train.Example to arrays [T, ...].

| feature | array |
| --- | --- |
| Tensor, Scalar, ClassLabel and the like | its dtype and shape; bfloat16 as float32 |
| Image, three or four channels | uint8 or uint16 [H, W, C] |
| Image, one channel | uint8, uint16 or float32 [H, W], every bit kept |
| a sequence of tensors, of one length in all steps | [L, ...] |

TFDS itself writes float64 as float32, so no more precision is there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.encoded_images import Picture, as_rgb, decode_picture, is_lossy
from embodied.datasets.files.tf_example import FeatureList
from embodied.datasets.files.tfrecord_files import RecordSpan
from embodied.datasets.importers.tfds_features import TfdsFeature
from embodied.datasets.loading.bfloat16 import BFLOAT16, from_bfloat16
from embodied.datasets.store.episode_index import KeySpec

Example = Mapping[str, FeatureList]
RAGGED_VALUES, RAGGED_LENGTHS = "ragged_flat_values", "ragged_row_lengths_0"
_NOTHING = FeatureList()
_MOST_OPEN_BYTES = 256 << 20  # of one step of a tensor whose size features.json leaves open


class NotStorableError(Exception):
    """A feature has no fixed frame shape, or no array at all; the message says why."""


def step_count(features: Iterable[TfdsFeature], example: Example, span: RecordSpan) -> int:
    """The number of steps, which all features must agree on.

    Raises:
        UserError: they do not.
    """
    counts = {feature.name: count for feature in features if (count := _count(feature, example)) is not None}
    if len(set(counts.values())) > 1:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise span.damaged(f"{most} has {counts[most]:g} steps, but {least} has {counts[least]:g}")
    count = next(iter(counts.values()), 0)
    if count != int(count):
        raise span.damaged(f"{next(iter(counts))} has {count:g} steps, which is no whole number")
    return int(count)


def _count(feature: TfdsFeature, example: Example) -> float | None:
    """The number of steps as one feature has it; None where the count of values does not tell."""
    if feature.levels >= 2:
        return len(example.get(f"{feature.name}/{RAGGED_LENGTHS}", _NOTHING))
    if feature.dynamic:
        return len(example.get(f"{feature.name}/value", _NOTHING))
    values = example.get(feature.name, _NOTHING)
    if feature.kind != "tensor" or feature.encoding != "none":
        return len(values)
    size = prod(known for known in feature.shape if known is not None)
    return None if None in feature.shape or not size else len(values) / size


class StepValues:
    """The steps of one feature in one Example.

    Raises:
        NotStorableError: the feature has no fixed frame shape.
        UserError: the record does not hold what features.json says.
    """

    def __init__(self, feature: TfdsFeature, example: Example, steps: int, span: RecordSpan) -> None:
        self.feature, self._span, self._steps = feature, span, steps
        self._items: list[bytes] = []
        self._array = np.zeros(0)
        if feature.kind == "image" and (feature.levels != 1 or len(feature.shape) != 3):
            raise NotStorableError("several images per step")
        if feature.levels > 2 or (feature.levels == 2 and (feature.encoding != "none" or None in feature.shape)):
            raise NotStorableError("sequences in sequences")
        if 0 in feature.shape:
            raise NotStorableError("no elements")
        if feature.kind == "image" or feature.encoding != "none":
            self._items = example.get(f"{feature.name}/value" if feature.dynamic else feature.name, _NOTHING).items
        elif feature.dynamic:
            raise NotStorableError("several unknown sizes without an encoding")
        else:
            self._array = self._plain(example)
        self._shapes = self._plain_shapes(example) if feature.dynamic else None

    def spec(self) -> KeySpec:
        """What one frame is, as the first step has it."""
        frame, _ = self.read(0, 1)
        lossy = self.feature.kind == "image" and is_lossy(self._items[0])
        image = frame.dtype == np.uint8 and frame.ndim == 4 and frame.shape[-1] == 3
        return KeySpec(str(frame.dtype), frame.shape[1:], codec="jpeg" if lossy and image else "zstd")

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[bytes | None]]:
        """[stop - start, ...], and the files that images were and a store can keep.

        Raises:
            UserError: a step is damaged, or not of the same shape as the others.
        """
        if self.feature.kind != "image" and self.feature.encoding == "none":
            return self._array[start:stop], [None] * (stop - start)
        frames = [self._decode(index) for index in range(start, stop)]
        shapes = sorted({frame.pixels.shape for frame in frames})
        if len(shapes) > 1:
            raise UserError(
                f"{self.feature.name} in {self._span} changes its shape, {list(shapes[0])} to {list(shapes[-1])}: "
                f"leave it out (options.exclude=[{self.feature.name.removeprefix('steps/')}])"
            )
        return np.stack([frame.pixels for frame in frames]), [frame.file for frame in frames]

    def _decode(self, index: int) -> Picture:
        data, where = self._items[index], f"step {index} of {self.feature.name} in {self._span}"
        if self.feature.kind == "image":
            return _image(self.feature, data, where)
        shape = self.feature.shape if self._shapes is None else tuple(self._shapes[index].tolist())
        return Picture(_encoded(self.feature, data, shape, where))

    def _plain(self, example: Example) -> np.ndarray:
        feature = self.feature
        shape: tuple[int, ...] = tuple(-1 if size is None else size for size in feature.shape)
        dtype = "float32" if feature.dtype == BFLOAT16 else feature.dtype
        name = feature.name
        if feature.levels == 2:
            lengths = self._numbers(example, f"{name}/{RAGGED_LENGTHS}", "int64")
            if not len(lengths) or lengths.min() != lengths.max() or not 0 < lengths[0] <= np.iinfo(np.int32).max:
                raise NotStorableError("sequences of different lengths, or empty")
            name, shape = f"{name}/{RAGGED_VALUES}", (int(lengths[0]), *shape)
        values = self._numbers(example, name, dtype)
        if values.size == 0 and -1 in shape:
            raise NotStorableError("no elements")
        size = prod(known for known in shape if known > 0) * self._steps
        if (values.size % size) if -1 in shape else (values.size != size):
            raise self._span.damaged(f"{name} has {values.size} values, which are no {self._steps} steps of {shape}")
        return values.reshape(self._steps, *shape)

    def _plain_shapes(self, example: Example) -> np.ndarray:
        shapes = self._numbers(example, f"{self.feature.name}/shape", "int64")
        rank = len(self.feature.shape)
        if shapes.size != self._steps * rank or (shapes < 0).any():
            raise self._span.damaged(f"{self.feature.name}/shape has {shapes.size} values, expected {rank} per step")
        return shapes.reshape(self._steps, rank)

    def _numbers(self, example: Example, name: str, dtype: str) -> np.ndarray:
        try:
            return example.get(name, _NOTHING).numbers(dtype)
        except ValueError as error:
            raise self._span.damaged(f"{name}: {error}, unlike features.json") from error


def _image(feature: TfdsFeature, data: bytes, where: str) -> Picture:
    picture = decode_picture(data, where=where)
    image = picture.pixels
    channels = feature.shape[-1]
    if feature.dtype == "float32" and image.dtype == np.uint8 and image.shape[2:] == (4,):
        return Picture(
            image.view("<f4")[:, :, 0]
        )  # TFDS puts the four bytes of a float into the four channels of a PNG
    if channels == 3 and image.dtype == np.uint8:
        image = as_rgb(image)
    found = 1 if image.ndim == 2 else image.shape[2]
    fits = all(want in (None, have) for want, have in zip(feature.shape, (*image.shape[:2], found), strict=True))
    if not fits or str(image.dtype) != feature.dtype:
        got = f"{image.dtype} {[*image.shape[:2], found]}"
        raise UserError(f"{where} is an image of {got}, but features.json says {feature.dtype} {list(feature.shape)}")
    return Picture(image, picture.file)


def _encoded(feature: TfdsFeature, data: bytes, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """A tensor of raw or deflated bytes, in the file's own (little) endianness."""
    raw = "uint16" if feature.dtype == BFLOAT16 else feature.dtype
    itemsize = np.dtype(raw).itemsize
    size = prod(known for known in shape if known is not None) * itemsize
    if feature.encoding == "zlib":
        most = size if None not in shape else _MOST_OPEN_BYTES
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(data, most + 1)
        except zlib.error as error:
            raise UserError(f"{where} is damaged ({error})") from error
    if (len(data) != size) if None not in shape else (not size or len(data) % size or len(data) > _MOST_OPEN_BYTES):
        raise UserError(f"{where} has {len(data)} bytes, which are no {feature.dtype} {list(shape)}")
    values = np.frombuffer(data, np.dtype(raw).newbyteorder("<"))
    array = values.reshape([-1 if size is None else size for size in shape])
    return from_bfloat16(array) if feature.dtype == BFLOAT16 else array.astype(raw)
