"""From foreign arrays to the dtypes and shapes of the store's own names.

What each name accepts, and what becomes of it (joined: several foreign keys, vectors end to end, flags by `or`):

| name | accepts | becomes |
| --- | --- | --- |
| observation.images.<camera> | uint8 [H, W, 3]; `layout="chw"`: [3, H, W]; `float_images`: floats | uint8 [H, W, 3] |
| observation.depth.<camera> | uint16 or float32, [H, W] or [H, W, 1] | [H, W], every bit kept |
| observation.raw.<camera> | anything | unchanged |
| observation.state, observation.environment_state, action | numbers [] or [P], joined | float32 [P] |
| next.reward | a number [] or [1] | float32 [] |
| next.success, next.done | 0 and 1, [] or [1], joined | bool [] |
| timestamp | a number [] or [1] | float64 [] |
| any other | anything | unchanged |

float64 is rounded to float32; whole numbers must be exact in float32. Nothing else changes a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, DONE, ENVIRONMENT_STATE, IMAGE_PREFIX, REWARD, STATE, SUCCESS
from embodied.datasets.store.episode_index import KeySpec

DEPTH_PREFIX = "observation.depth."
RAW_PREFIX = "observation.raw."
TIMESTAMP = "timestamp"
VECTORS = (STATE, ENVIRONMENT_STATE, ACTION)
FLAGS = (SUCCESS, DONE)
SCALARS = {REWARD: "float32", SUCCESS: "bool", DONE: "bool", TIMESTAMP: "float64"}

_LARGEST_WHOLE = 1 << 24  # float32 has every whole number up to here


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How foreign images become `observation.images.<camera>`.

    Args:
        codec: `auto` keeps what the importer says (`jpeg` where the source was lossy), else `zstd` or `jpeg` for all.
        layout: `hwc`, or `chw` to turn uint8 [3, H, W] round.
        float_images: what white is in float images, 1 or 255; None leaves float images alone.
    """

    codec: str = "auto"
    layout: str = "hwc"
    float_images: float | None = None

    def __post_init__(self) -> None:
        if self.codec not in ("auto", "zstd", "jpeg"):
            raise unknown_name("images", self.codec, ["auto", "zstd", "jpeg"])
        if self.layout not in ("hwc", "chw"):
            raise unknown_name("layout", self.layout, ["hwc", "chw"])
        if self.float_images not in (None, 1, 255):
            raise UsageError(f"float_images must be 1 or 255, got {self.float_images!r}")

    def frame_shape(self, spec: KeySpec) -> tuple[int, int, int] | None:
        """[H, W, 3] of a foreign key that can become an image; None where it cannot."""
        if spec.dtype != "uint8" and not (self.float_images and np.dtype(spec.dtype).kind == "f"):
            return None
        if len(spec.shape) != 3:
            return None
        height, width, channels = spec.shape
        if channels == 3:
            return height, width, 3
        return (width, channels, 3) if self.layout == "chw" and height == 3 else None


def cast_spec(name: str, sources: Mapping[str, KeySpec], images: ImageOptions) -> KeySpec:
    """What the store keeps under `name`, made of these foreign keys.

    Raises:
        UsageError: the foreign keys do not fit the name; says what would.
    """
    foreign, spec = next(iter(sources.items()))
    if name in VECTORS:
        for key, part in sources.items():
            _expect(name, key, part, len(part.shape) <= 1, "a number or a vector")
        shape = (sum(prod(part.shape) for part in sources.values()),)
        return KeySpec("float32", shape, names=_joined_names(sources))
    if len(sources) > 1 and name not in FLAGS:
        joinable = ", ".join((*VECTORS, *FLAGS))
        raise UsageError(f"{name}: only {joinable} can be joined of several keys, got {', '.join(sources)}")
    if name in SCALARS:
        for key, part in sources.items():
            _expect(name, key, part, prod(part.shape) == 1, "one number per frame")
        return KeySpec(SCALARS[name], ())
    if name.startswith(IMAGE_PREFIX):
        frame = images.frame_shape(spec)
        _expect(name, foreign, spec, frame is not None, _image_wanted(spec))
        return KeySpec("uint8", frame or (), codec=spec.codec if images.codec == "auto" else images.codec)
    if name.startswith(DEPTH_PREFIX):
        plane = len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] == 1)
        _expect(name, foreign, spec, plane and spec.dtype in ("uint16", "float32"), "uint16 or float32 [H, W]")
        return KeySpec(spec.dtype, spec.shape[:2])
    return spec


def cast(name: str, spec: KeySpec, blocks: Mapping[str, np.ndarray], images: ImageOptions) -> np.ndarray:
    """The array [T, ...] of the store's key `name` from foreign arrays that have what `cast_spec` was told.

    Raises:
        UserError: values that the name cannot hold: nan, a flag beyond 0 and 1, a whole number float32 has not.
    """
    if name in VECTORS:
        columns = [_to_float32(name, key, array).reshape(len(array), -1) for key, array in blocks.items()]
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
    if name in FLAGS:
        return np.logical_or.reduce([_to_flag(name, key, array) for key, array in blocks.items()])
    foreign, array = next(iter(blocks.items()))
    if name in SCALARS:
        scalar = _to_float32(name, foreign, array) if name == REWARD else array.astype(np.float64)
        return _finite(foreign, scalar).reshape(len(array))
    if name.startswith(IMAGE_PREFIX):
        return _to_image(foreign, array, spec, images)
    if name.startswith(DEPTH_PREFIX):
        return array.reshape(len(array), *spec.shape)
    return array if name.startswith(RAW_PREFIX) else _finite(foreign, array)


def _expect(name: str, foreign: str, spec: KeySpec, fits: bool, wanted: str) -> None:
    if not fits:
        raise UsageError(f"{name} takes {wanted}, and {foreign} is {spec.describe()}: map it to another name")


def _image_wanted(spec: KeySpec) -> str:
    if len(spec.shape) == 3 and np.dtype(spec.dtype).kind == "f":
        return "uint8 [H, W, 3] (float_images=1 or 255 converts floats)"
    if len(spec.shape) == 3 and spec.shape[0] == 3:
        return "uint8 [H, W, 3] (layout=chw turns [3, H, W] round)"
    return "uint8 [H, W, 3]"


def _joined_names(sources: Mapping[str, KeySpec]) -> tuple[str, ...]:
    """Names of all elements; numbered after their key where a joined key has none."""
    if len(sources) == 1:
        spec = next(iter(sources.values()))
        return spec.names if len(spec.names) == prod(spec.shape) else ()
    names: list[str] = []
    for key, spec in sources.items():
        size = prod(spec.shape)
        named: Sequence[str] = spec.names if len(spec.names) == size else [str(number) for number in range(size)]
        names += [key] if size == 1 and len(spec.names) != 1 else [f"{key}.{element}" for element in named]
    return tuple(names)


def _finite(foreign: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        frame = int(np.argwhere(~np.isfinite(array))[0][0])
        raise UserError(f"{foreign}: expected finite values, got nan or infinity at frame {frame} of its block")
    return array


def _to_float32(name: str, foreign: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is refused as such
        converted = _finite(foreign, array).astype(np.float32)
    if array.dtype.kind in "iu" and (array.max() > _LARGEST_WHOLE or array.min() < -_LARGEST_WHOLE):
        raise UserError(f"{foreign}: {name} is float32, which cannot hold whole numbers above 2**24; map it elsewhere")
    return _finite(foreign, converted)


def _to_flag(name: str, foreign: str, array: np.ndarray) -> np.ndarray:
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise UserError(f"{foreign}: expected only 0 and 1 for {name}, got {wrong.flat[0]}; map it to another name")
    return array.astype(bool).reshape(len(array))


def _to_image(foreign: str, array: np.ndarray, spec: KeySpec, images: ImageOptions) -> np.ndarray:
    if array.shape[1:] != spec.shape:  # (T, 3, H, W)
        array = np.moveaxis(array, 1, -1)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    assert images.float_images is not None, foreign
    scaled = _finite(foreign, array).astype(np.float64) * (255.0 / images.float_images)
    if scaled.min() < 0 or scaled.max() > 255:
        raise UserError(
            f"{foreign}: float_images={images.float_images:g} expects values in [0, {images.float_images:g}], "
            f"got {array.min():g} to {array.max():g}"
        )
    return np.rint(scaled).astype(np.uint8)
