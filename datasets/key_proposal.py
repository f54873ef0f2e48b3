"""The mapping that an import proposes: rules by name, dtype and shape, for the names that the field's formats use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, DONE, ENVIRONMENT_STATE, IMAGE_PREFIX, REWARD, STATE, SUCCESS
from embodied.datasets.key_casting import DEPTH_PREFIX, RAW_PREFIX, SCALARS, TIMESTAMP, ImageOptions, cast_spec
from embodied.datasets.key_mapping import KeyMapping, Sources, in_source_order, own_name
from embodied.datasets.store.episode_index import KeySpec

_SMALLEST_IMAGE = 8  # pixels: uint8 [H, W, 3] below this is no picture
_ENDS = r"terminals?|terminat(ed|ions?)|truncat(ed|ions?)|timeouts?"  # Gymnasium's two ways to end, joined
_OBS = r"(observations?\.|obs\.)?"

# Per name the patterns of foreign names, best first; the first that matches exactly one fitting key wins.
_RULES: dict[str, tuple[str, ...]] = {
    STATE: (
        r"observation\.state",
        _OBS + r"((robot_)?state|proprio(ception|_state)?|agent_pos)",
        _OBS + r"qpos",
        r"observations?|obs",
    ),
    ENVIRONMENT_STATE: (_OBS + r"env(ironment)?_state", r"obs\.object(_state)?"),
    ACTION: (
        r"actions?",
        r".*\.actions?",
        r"(.*[._])?(joint_)?(commands?|cmd|cmd_vel|joint_trajectory)(\.positions?)?",
    ),
    REWARD: (r"next\.rewards?", r"rewards?"),
    SUCCESS: (r"next\.success", r"(is_)?success(es)?"),
    DONE: (r"next\.dones?", r"dones?", r"is_last", _ENDS, r"is_terminal"),
    TIMESTAMP: (r"timestamps?",),
}
# Pieces of a robot's state, joined where no key is the whole of it.
_PIECE = re.compile(
    r"(.*[._])?(joint|eef|ee|tcp|cartesian|gripper)_?([\w.]*[._])?(pos|positions?|qpos|quat|rot_axis_angle|width)"
)
_NO_PIECE = re.compile(r"action|next|demo|start|target|goal|delta|cmd|command|vel|site|prev")
_IMAGE_WORD = re.compile(r"ima?ge?s?|rgb|cam")
_RAW_WORD = re.compile(r"raw|bayer|mono|ima?ge?|gr[ae]y|infra")
_NO_CAMERA = re.compile(  # words in the names of pictures that name no camera
    r"obs|observations?|images?|img|rgb|bgr|colou?r|raw|depth|compressed|data|steps|rect|aligned|to|bayer|mono|gr[ae]y"
    r"|jpe?g|png|webp"
)


def propose(keys: Mapping[str, KeySpec], *, images: ImageOptions | None = None, unfamiliar: str = "keep") -> KeyMapping:
    """What is recognised gets its name of the store, whatever else its own dotted name.

    Args:
        keys: of the source.
        images: what counts as an image.
        unfamiliar: `keep` what is not recognised, or `drop` it.
    """
    if unfamiliar not in ("keep", "drop"):
        raise unknown_name("unfamiliar", unfamiliar, ["keep", "drop"])
    options = images or ImageOptions()
    sources = {**_pictures(keys, options), **_vectors(keys, options)}
    if unfamiliar == "keep":
        used = {key for foreign in sources.values() for key in foreign}
        for key in keys:
            if key not in used:
                name = own_name(key)
                while name in sources:
                    name += "_"
                sources[name] = (key,)
    return KeyMapping(in_source_order(sources, keys))


def hints(keys: Mapping[str, KeySpec], images: ImageOptions) -> list[str]:
    """What may be an image but is none without an option; one line each."""
    found = []
    for key, spec in keys.items():
        if len(spec.shape) == 3 and images.frame_shape(spec) is None and _IMAGE_WORD.search(_normal(key)):
            as_float = ImageOptions(layout="chw", float_images=255).frame_shape(spec)
            if as_float and min(as_float[:2]) >= _SMALLEST_IMAGE:
                options = "layout=chw" if spec.dtype == "uint8" else "float_images=255 or 1 (what white is)"
                found.append(f"{key} looks like an image, {spec.describe()}: {options} makes it one")
    return found


def _normal(key: str) -> str:
    """A foreign key for the patterns: lower case, dotted, without the containers that formats put around everything."""
    return re.sub(r"^((data|steps|episode|frames?)\.)+", "", own_name(key).lower().replace("-", "_"))


def _vectors(keys: Mapping[str, KeySpec], images: ImageOptions) -> Sources:
    found: Sources = {}
    for name, patterns in _RULES.items():
        used = {key for foreign in found.values() for key in foreign}
        fitting = [key for key, spec in keys.items() if key not in used and _fits(name, key, spec, images)]
        for pattern in patterns:
            matching = [key for key in fitting if re.fullmatch(pattern, _normal(key))]
            if len(matching) == 1 or (matching and pattern == _ENDS):
                found[name] = tuple(matching)
                break
    if STATE not in found:
        used = {key for foreign in found.values() for key in foreign}
        pieces = tuple(key for key, spec in keys.items() if key not in used and _is_piece(_normal(key), spec))
        if pieces:
            found[STATE] = pieces
    return found


def _is_piece(name: str, spec: KeySpec) -> bool:
    vector = len(spec.shape) <= 1 and np.dtype(spec.dtype).kind == "f"
    return vector and _PIECE.fullmatch(name) is not None and _NO_PIECE.search(name) is None


def _fits(name: str, key: str, spec: KeySpec, images: ImageOptions) -> bool:
    try:
        cast_spec(name, {key: spec}, images)
    except UsageError:
        return False
    return name not in SCALARS or prod(spec.shape) == 1


def _pictures(keys: Mapping[str, KeySpec], images: ImageOptions) -> Sources:
    """Names of images, depth and RAW; where two would share a camera, all of their kind keep their whole names."""
    groups: dict[str, list[str]] = {}
    for key, spec in keys.items():
        prefix = _picture_prefix(_normal(key), spec, images)
        if prefix:
            groups.setdefault(prefix, []).append(key)
    found: Sources = {}
    for prefix, members in groups.items():
        cameras = {key: _camera(own_name(key), prefix) for key in members}
        if len(set(cameras.values())) < len(cameras):
            cameras = {key: own_name(key).removeprefix(prefix) for key in members}
        found.update({prefix + camera: (key,) for key, camera in cameras.items()})
    return found


def _picture_prefix(name: str, spec: KeySpec, images: ImageOptions) -> str | None:
    plane = len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] == 1)
    if plane and min(spec.shape[:2]) >= _SMALLEST_IMAGE:
        if "depth" in name and spec.dtype in ("uint16", "float32"):
            return DEPTH_PREFIX
        return RAW_PREFIX if np.dtype(spec.dtype).kind == "u" and _RAW_WORD.search(name) else None
    frame = images.frame_shape(spec)
    named = spec.dtype == "uint8" or _IMAGE_WORD.search(name)
    return IMAGE_PREFIX if frame and min(frame[:2]) >= _SMALLEST_IMAGE and named else None


def _camera(name: str, prefix: str) -> str:
    """The camera in a picture's own name: `agentview` of `obs.agentview_image`, `head` of `head.color.image_raw`."""
    if name.startswith(prefix):
        return name.removeprefix(prefix)
    parts = [
        "_".join(word for word in part.split("_") if not _NO_CAMERA.fullmatch(word.lower())) for part in name.split(".")
    ]
    camera = "_".join(part for part in parts if part)
    last = name.split(".")[-1]
    if camera and not camera.isdecimal():
        return camera
    return "image" if re.fullmatch(r"jpe?g|png|webp", last.lower()) else last
