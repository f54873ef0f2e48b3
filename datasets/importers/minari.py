"""Minari's datasets, in the HDF5, arrow and parquet formats that Minari 0.5 writes; read without Minari itself.

Keys are dotted paths: `observations`, `observations.<key>` of a Dict space, `observations.<number>` of a Tuple space,
`actions` alike, `rewards`, `terminations`, `truncations`, and `infos.<key>`. Images are decoded where Minari stored
JPEG, otherwise every value keeps its bits. An episode of T steps has T frames: frame t has observation t, the info that
came with it, and action, reward and ends t; the observation and the info after the last action are left out, and
`infos.success` of all T + 1 tells whether the episode succeeded. Texts and infos that not all episodes have alike are
left out, and named in the provenance.

The task is the first text of an observation called mission, instruction, task or language_instruction; else the
environment's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.datasets.episode_source import Block, Format, SourceEpisode
from embodied.datasets.files.foreign_json import parse_object, plain_json, read_object
from embodied.datasets.importers.foreign_keys import Found, choose_keys, names_to_exclude, require_alike
from embodied.datasets.importers.minari_arrow import ArrowEpisodes
from embodied.datasets.importers.minari_hdf5 import FILE_NAME, Hdf5Episodes
from embodied.datasets.importers.minari_layout import INFOS, OBSERVATIONS, Episodes, texts
from embodied.datasets.store.episode_checks import checked_fps

_METADATA = "metadata.json"
_SPACES = frozenset({"observation_space", "action_space"})
_INSTRUCTIONS = frozenset({"mission", "instruction", "task", "language_instruction"})
_SUCCESS = f"{INFOS}.success"


def _data_folder(path: Path) -> Path | None:
    """The folder with the data, of a dataset's folder or that folder itself."""
    for folder in (path / "data", path):
        if (folder / FILE_NAME).is_file():
            return folder
        if (folder / _METADATA).is_file() and any(folder.glob("[0-9]*/*.arrow")):
            return folder
        if (folder / _METADATA).is_file() and any(folder.glob("[0-9]*/*.parquet")):
            return folder
    return None


FORMAT = Format("minari", "Minari datasets (HDF5, arrow, parquet)", lambda path: _data_folder(path) is not None)


class MinariSource:
    """Implements `EpisodeSource`."""

    def __init__(
        self, path: Path, metadata: Mapping[str, Any], episodes: Episodes, *, fps: float | None, exclude: Sequence[str]
    ) -> None:
        self._path, self._episodes = path, episodes
        self._spec = _parsed(metadata, "env_spec", path)
        self.fps = _rate(path, metadata, self._spec, fps)
        self._numbers = episodes.numbers()
        said = metadata.get("total_episodes", len(self._numbers))
        if not self._numbers or said != len(self._numbers):
            raise UserError(f"{path} says it has {said!r} episodes and has {len(self._numbers)}: it is not whole")
        self.keys, left_out = choose_keys(
            episodes.specs(self._numbers[0]),
            self._other_specs(),
            where=str(path),
            optional=lambda name: name.startswith(f"{INFOS}."),
            exclude=exclude,
        )
        self._instructions = [
            name
            for name in texts(_parsed(metadata, "observation_space", path), OBSERVATIONS)
            if name.split(".")[-1] in _INSTRUCTIONS
        ]
        self.robot = ""
        self.provenance = {
            "format": FORMAT.name,
            "left_out": left_out,
            "metadata": plain_json({name: value for name, value in metadata.items() if name not in _SPACES}),
        }

    def __len__(self) -> int:
        return len(self._numbers)

    def close(self) -> None:
        self._episodes.close()

    def episodes(self) -> Iterator[SourceEpisode]:
        for number in self._numbers:
            origin, blocks = f"episode_{number}", partial(self._blocks, number)
            try:
                notes = self._episodes.metadata(number)
                seed = notes.pop("seed", None)
                yield SourceEpisode(
                    origin=origin,
                    task=self._task(number),
                    blocks=blocks,
                    success=self._success(number),
                    seed=seed if isinstance(seed, int) else None,
                    length=self._episodes.length(number),
                    notes=notes,
                )
            except UserError:  # the same error again when its frames are asked for
                yield SourceEpisode(origin=origin, task="", blocks=blocks)

    def _task(self, number: int) -> str:
        for name in self._instructions:
            said = self._episodes.column(number, name)[:1]
            if said and isinstance(said[0], str):
                return str(plain_json(said[0]))
        return str(self._spec.get("id") or "")

    def _success(self, number: int) -> bool | None:
        spec = self.keys.get(_SUCCESS)
        if spec is None or spec.shape != ():
            return None
        return any(self._episodes.column(number, _SUCCESS))

    def _other_specs(self) -> Iterator[tuple[str, Found]]:
        for number in self._numbers[1:]:
            try:
                yield f"episode_{number}", self._episodes.specs(number)
            except UserError:
                continue  # said when its frames are read

    def _blocks(self, number: int) -> Iterator[Block]:
        self._episodes.metadata(number)
        self._task(number)
        self._success(number)
        found = self._episodes.specs(number)
        require_alike(self.keys, found, where=str(self._path), episode=f"episode_{number}")
        yield from self._episodes.blocks(number, self.keys)


def open_source(path: Path, *, fps: float | None = None, exclude: Sequence[str] = ()) -> MinariSource:
    """Open a Minari dataset.

    Args:
        path: of the dataset's folder (`~/.minari/datasets/<namespace>/<name>-v0`), or of the `data` folder in it.
        fps: steps per second; Minari does not record it, so it is needed unless the environment was made with a
            `render_fps`.
        exclude: keys to leave out.

    Raises:
        UserError: it is damaged, or not of this format.
        UsageError: the rate is unknown.
        MissingExtraError: h5py or pyarrow is not installed.
    """
    path = Path(path)
    folder = _data_folder(path)
    if folder is None:
        raise UserError(
            f"{path} holds no Minari dataset: expected data/{_METADATA} and data/{FILE_NAME} or data/0/*.arrow"
        )
    if not (folder / _METADATA).is_file():
        raise UserError(
            f"{folder} has no {_METADATA}: Minari before 0.5 wrote it; download the dataset with a newer one"
        )
    metadata = read_object(folder / _METADATA)
    episodes = _open_episodes(folder, metadata)
    try:
        return MinariSource(path, metadata, episodes, fps=fps, exclude=names_to_exclude(exclude))
    except UserError:
        episodes.close()
        raise


def _open_episodes(folder: Path, metadata: Mapping[str, Any]) -> Episodes:
    kind = metadata.get("data_format", "hdf5")
    if kind == "hdf5":
        return Hdf5Episodes(folder)
    if kind not in ("arrow", "parquet"):
        raise UserError(f"{folder / _METADATA}: data_format {kind!r} is unknown; hdf5, arrow and parquet can be read")
    spaces = {
        OBSERVATIONS: _parsed(metadata, "observation_space", folder),
        "actions": _parsed(metadata, "action_space", folder),
    }
    return ArrowEpisodes(folder, suffix=kind, spaces=spaces)


def _parsed(metadata: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A part of the metadata that is JSON in a text; empty if absent."""
    text = metadata.get(name)
    if text is None:
        return {}
    if not isinstance(text, str):
        raise UserError(f"{path}: {name} in {_METADATA} must be JSON in a text, got {type(text).__name__}")
    return parse_object(text, f"{path}: {name} in {_METADATA}")


def _rate(path: Path, metadata: Mapping[str, Any], spec: Mapping[str, Any], fps: float | None) -> float:
    kwargs = spec.get("kwargs")
    said = kwargs.get("render_fps") if isinstance(kwargs, Mapping) else None
    found = fps if fps is not None else metadata.get("render_fps", said)
    if found is None:
        raise UsageError(
            f"{path}: Minari does not record the rate: give it, as options.fps=30 (the render_fps in the "
            "metadata of the environment)"
        )
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise UsageError(f"{path}: fps must be a number, got {found!r}")
    return checked_fps(found)
