"""What an importer reads and an exporter is given: a dataset as episodes that come in blocks of frames.

An importer is one file `datasets/importers/<format>.py` with `FORMAT = Format(...)` and a function
`open_source(path, **options) -> EpisodeSource`. It keeps the foreign names of arrays; `datasets.importing` renames them
(see `datasets.key_mapping`), writes the episode store, shows progress and goes on after an interruption. Adding a
format is adding that file, a test, and a line to the table in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.planar_frames import Frames

BLOCK_BYTES = 32 << 20  # an importer gives blocks of about this size, so that memory does not grow with an episode

Block = Mapping[str, Frames]
"""Consecutive frames: for every key of the source an array [T, ...] of its dtype and frame shape, T at least 1.

Frames of a video may come as `PlanarFrames`, which a store that keeps JPEGs takes as they are.
"""


class EncodedBlock(dict[str, Frames]):
    """A block some of whose frames come from JPEG files, which a store can keep as they are.

    Args:
        frames: the block.
        files: for keys with such frames, per frame its file or None: the `file` of the
            `files.encoded_images.Picture` whose pixels are the frame, unchanged. Then nothing is lost.
    """

    def __init__(self, frames: Mapping[str, Frames], files: Mapping[str, Sequence[bytes | None]]) -> None:
        super().__init__(frames)
        self.files = files


@dataclass(frozen=True, kw_only=True)
class SourceEpisode:
    """One episode of a foreign dataset, not read yet.

    Args:
        origin: names the episode inside its source, the same at every opening: it tells an interrupted import what is
            done (`episode_000003`, `demo_17`, a file name).
        task: the instruction; empty if the source has none.
        blocks: reads the episode from its start; may be called again.
        success, seed: None where the source does not say.
        length: frames, None where only reading tells.
        notes: JSON-able; whatever else is worth keeping, such as gaps in a recording.
    """

    origin: str
    task: str
    blocks: Callable[[], Iterator[Block]]
    success: bool | None = None
    seed: int | None = None
    length: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class EpisodeSource(Protocol):
    """An opened dataset in a foreign format.

    Attributes:
        keys: dtype, frame shape and codec of every array, by the source's own names. `KeySpec.codec` is how the store
            should keep it: `jpeg` where the source was lossy (video, JPEG), `zstd` where its bits must stay.
        fps: frames per second.
        robot: its name, empty if unknown.
        provenance: JSON-able; format, version and what the source says of itself.
    """

    keys: Mapping[str, KeySpec]
    fps: float
    robot: str
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        """The number of episodes."""
        ...

    def episodes(self) -> Iterator[SourceEpisode]:
        """The episodes in the source's order; cheap, nothing large is read before `blocks`."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


@dataclass(frozen=True)
class Format:
    """What `embodied list formats` shows of an importer or exporter, and how `format=auto` recognises a path."""

    name: str
    help: str
    recognizes: Callable[[Path], bool] = lambda path: False
