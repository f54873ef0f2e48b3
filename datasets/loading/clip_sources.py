"""From episode stores and folders of videos to clips of codes: what they must agree on, and do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import hash_json
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE
from embodied.datasets.files.video_files import SUFFIXES, VideoFile
from embodied.datasets.importers.media_folders import list_files
from embodied.datasets.loading.clips import CODES, ClipDataset, ClipSource
from embodied.datasets.loading.code_cache import encode_codes
from embodied.datasets.loading.frame_parts import FrameCaches
from embodied.datasets.loading.frame_sources import folder_part
from embodied.datasets.loading.materialized import materialize, materialize_index
from embodied.datasets.loading.sequence_sources import VECTORS, Caches, open_store, require_agreement
from embodied.datasets.loading.source_kinds import source_kind
from embodied.datasets.loading.video_part import video_part
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.tokenizer import FrameTokenizer

RATE_TOLERANCE = 0.05  # of a rate in frames per second: closer ones are the same clock


@dataclass(frozen=True, kw_only=True)
class Codes:
    """How frames become codes.

    Attributes:
        tokenizer: frozen.
        fingerprint: of it.
    """

    tokenizer: FrameTokenizer
    fingerprint: str


class StorePictures:
    """The frames of a camera of a store, read when somebody wants to see them."""

    def __init__(self, store: EpisodeStore, key: str) -> None:
        self._store, self._key = store, key

    def __len__(self) -> int:
        return self._store.num_frames

    def take(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, 3] at rows int64 [B]."""
        wanted, places = np.unique(indices, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        frames = np.concatenate([self._store.read(self._key, int(run[0]), int(run[-1]) + 1) for run in runs])
        return frames[places]


def open_clips(
    paths: Sequence[str | Path],
    *,
    codes: Codes,
    caches: Caches,
    frames: int,
    stride: int = 1,
    cameras: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    mixed_robots: bool = False,
    weights: Sequence[float] | None = None,
    on_error: Literal["raise", "skip"] = "skip",
    video_fps: float | None = None,
) -> ClipDataset:
    """The clips of episode stores, folders of videos and single videos; every frame is encoded once, into a cache.

    Frames may be of any sizes: the tokenizer resizes them. Each camera of a store is a source of clips of its own.

    Args:
        paths: of stores, videos, folders of videos; with `frames=1` also of images.
        codes: how frames become codes.
        caches: where what is decoded and encoded lies: `codes`, `frames` and `materialized` in its root.
        frames: T.
        stride: frames of the data from one frame of a clip to the next.
        cameras: which; None: all that a store has.
        leave_out: `observation.state` or `action`, where stores have it but it shall not be read.
        mixed_robots: stores of several robots are declared to have states and actions of one meaning.
        weights: one per path: how often it is drawn from.
        on_error: `skip` leaves out videos that cannot be opened, and what comes after damage, with a warning.
        video_fps: frames taken from each second of a video; None: all.

    Raises:
        UsageError: a setting makes no sense, states or actions do not go together, or everything is shorter than a
            clip.
        UserError: a source is missing, empty or damaged.
    """
    if unknown := [name for name in leave_out if name not in VECTORS]:
        raise unknown_name("modality to leave out", str(unknown[0]), VECTORS)
    if weights is not None and len(weights) != len(paths):
        raise UsageError(f"weights: expected {len(paths)}, one per source, got {len(weights)}")
    if len({str(path) for path in paths}) < len(paths):
        raise UsageError(f"data: a source is named twice in {', '.join(map(str, paths))}")
    stores = {str(path): open_store(path) for path in paths if is_store(Path(path).expanduser())}
    keys = _chosen(stores, cameras, leave_out)
    require_agreement(stores, keys, mixed_robots=mixed_robots, settings="video")
    sources: list[ClipSource] = []
    spread: list[float] = []
    for number, path in enumerate(map(str, paths)):
        if path in stores:
            found = _store_sources(path, stores[path], keys[path], codes, caches)
        else:
            found = [_file_source(Path(path).expanduser(), codes, caches, frames, number, on_error, video_fps)]
        sources += found
        spread += [(1.0 if weights is None else float(weights[number])) / len(found)] * len(found)
    data = ClipDataset(
        sources,
        frames=frames,
        stride=stride,
        action_dim=_size(sources, ACTION),
        state_dim=_size(sources, STATE),
        tokenizer=codes.fingerprint,
        weights=None if weights is None else spread,
    )
    _note(data, sources, caches.reporter.note)
    return data


def _chosen(
    stores: Mapping[str, EpisodeStore], cameras: Sequence[str] | None, leave_out: Sequence[str]
) -> dict[str, list[str]]:
    """What is read of each store: cameras, proprioception and actions, as far as it has them."""
    there = [key.removeprefix(IMAGE_PREFIX) for store in stores.values() for key in store.image_keys]
    for camera in cameras or ():
        if stores and camera not in there:
            raise unknown_name("camera", camera, there)
    found = {}
    for path, store in stores.items():
        views = [key for key in store.image_keys if cameras is None or key.removeprefix(IMAGE_PREFIX) in cameras]
        if not views:
            names = ", ".join(store.image_keys) or f"no images, but {', '.join(store.keys)}"
            raise UsageError(f"{path} has none of the cameras that are asked for: it holds {names}")
        found[path] = [*views, *(name for name in VECTORS if name in store.keys and name not in leave_out)]
    return found


def _store_sources(
    path: str, store: EpisodeStore, keys: Sequence[str], codes: Codes, caches: Caches
) -> list[ClipSource]:
    vectors, root = [key for key in keys if key in VECTORS], caches.root / "materialized"
    if vectors:
        data = materialize(store, keys=vectors, cache_root=root, max_bytes=caches.max_bytes, reporter=caches.reporter)
    else:
        data = materialize_index(store, cache_root=root)
    found = []
    for key in keys:
        if key in VECTORS:
            continue
        cache = encode_codes(
            codes.tokenizer,
            lambda rows, key=key: store.read(key, *rows),  # type: ignore[misc]
            fingerprint=codes.fingerprint,
            identity={"store": store.fingerprint(), "key": key},
            num_frames=store.num_frames,
            root=caches.root / "codes",
            device=caches.device,
            reporter=caches.reporter,
            max_bytes=caches.max_bytes,
        )
        source = ClipSource(
            kind="clips of a store",
            name=f"{Path(path).name}/{key}",
            origin=path,
            codes=cache.rows(CODES),
            vectors={name: data.rows[name] for name in vectors},
            starts=np.asarray(data.starts),
            lengths=np.asarray(data.lengths),
            fingerprint=hash_json([cache.key, vectors, store.fingerprint()]),
            fps=store.fps,
            pictures=StorePictures(store, key),
            held=(cache, data),
        )
        found.append(source)
    return found


def _file_source(
    path: Path,
    codes: Codes,
    caches: Caches,
    frames: int,
    number: int,
    on_error: Literal["raise", "skip"],
    video_fps: float | None,
) -> ClipSource:
    """A video or a folder of videos; with one frame per clip also images."""
    if not path.exists():
        raise UserError(f"no data at {path}: expected an episode store, a video or a folder of videos")
    kind, side = source_kind(path), max(codes.tokenizer.image_size)
    pictures = FrameCaches(caches.root / "frames", side, caches.max_bytes, caches.reporter)
    if kind == "videos":
        part = video_part(path, pictures, source=number, fps=video_fps, on_error=on_error)
    elif kind == "images" and frames == 1:
        part = folder_part(path, pictures, source=number, on_error=on_error)
    else:
        raise UsageError(
            f"{path} holds {kind}, of which none follows another: give episode stores or videos, or video.frames=1"
        )
    cache = encode_codes(
        codes.tokenizer,
        lambda rows: part.take(np.arange(*rows)),
        fingerprint=codes.fingerprint,
        identity={"part": part.fingerprint},
        num_frames=len(part),
        root=caches.root / "codes",
        device=caches.device,
        reporter=caches.reporter,
        max_bytes=caches.max_bytes,
    )
    lengths = np.ones(len(part), np.int64) if part.lengths is None else np.asarray(part.lengths, np.int64)
    return ClipSource(
        kind=kind,
        name=path.name,
        origin=str(path),
        codes=cache.rows(CODES),
        vectors={},
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        fingerprint=cache.key,
        fps=video_fps or _rate(path, kind, caches.reporter.note),
        pictures=part,
        held=(cache, part),
    )


def _rate(path: Path, kind: str, note: Callable[[str], None]) -> float | None:
    """Frames per second of all videos at `path`; None where they differ or say nothing."""
    rates = []
    for file in list_files(path, SUFFIXES) if kind == "videos" else []:
        try:
            with VideoFile(file) as video:
                rates += [video.fps] if video.fps else []
        except UserError:  # left out, and said so, when frames were decoded
            continue
    if not rates:
        return None
    if max(rates) - min(rates) > RATE_TOLERANCE:
        note(
            f"videos in {path} have {min(rates):g} to {max(rates):g} frames per second: a clip lasts longer in some; "
            "video_fps takes as many of each"
        )
        return None
    return float(rates[0])


def _size(sources: Sequence[ClipSource], key: str) -> int:
    return next((int(source.vectors[key].shape[-1]) for source in sources if key in source.vectors), 0)


def _note(data: ClipDataset, sources: Sequence[ClipSource], note: Callable[[str], None]) -> None:
    """What is shorter than a clip, and what runs at another clock."""
    for source in sources:
        short = int((source.lengths < data.span).sum())
        if short:
            what = "episodes" if source.vectors or source.kind == "clips of a store" else "videos"
            note(
                f"{source.name}: {short} of {len(source.lengths)} {what} are shorter than the {data.span} frames of a "
                "clip, and left out"
            )
    rates = {source.name: source.fps for source in sources if source.fps}
    if rates and max(rates.values()) - min(rates.values()) > RATE_TOLERANCE:
        told = ", ".join(f"{fps:g}/s in {name}" for name, fps in rates.items())
        note(f"frames come at different rates ({told}): a clip lasts longer in some")
