"""robomimic's HDF5 files: `data/demo_<k>` with `actions`, `obs/<key>` and what else has a value per step.

Keys are the paths below a demonstration with dots for slashes (`obs.agentview_image`), values and dtypes as in the
file; images and depth keep their bits. Left out are `next_obs` (the next frame's `obs`; only the observation after the
last action is lost) and, named in the provenance, arrays other than `actions` and `obs` that are no numbers or not the
same in all demonstrations, such as simulator states of scenes with different objects.

The task of a demonstration is its `ep_meta`'s `lang` (RoboCasa), the file's instruction (LIBERO's `problem_info`,
`env_lang`), or the environment's name. robomimic records no success, so it stays unknown unless an attribute says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.datasets.episode_source import Block, Format, SourceEpisode
from embodied.datasets.files.foreign_json import plain_json
from embodied.datasets.files.hdf5_files import (
    attributes,
    child,
    frame_spec,
    hdf5_errors,
    is_hdf5,
    open_hdf5,
    read_blocks,
    require_stored,
    subgroup,
    tree,
)
from embodied.datasets.importers.foreign_keys import choose_keys, names_to_exclude, require_alike
from embodied.datasets.importers.robomimic_layout import demonstrations, filter_keys, is_demonstration, json_attribute
from embodied.datasets.store.episode_checks import checked_fps
from embodied.datasets.store.episode_index import KeySpec

_LONG = frozenset({"num_samples", "model_file", "ep_meta"})  # attributes that are not kept as notes
_NEXT = frozenset({"next_obs"})


def _recognizes(path: Path) -> bool:
    if not is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file, hdf5_errors(path, "opening it"):
            return "data" in file and any(map(is_demonstration, file["data"]))
    except UserError:
        return True  # damaged, or h5py is missing: opening it says so


FORMAT = Format("robomimic", "robomimic's HDF5 files (also RoboCasa, MimicGen, LIBERO)", _recognizes)


class RobomimicSource:
    """Implements `EpisodeSource`."""

    def __init__(
        self, path: Path, file: Any, *, filter_key: str | None, fps: float | None, exclude: Sequence[str]
    ) -> None:
        self._path, self._file = path, file
        with hdf5_errors(path, "reading its list of demonstrations"):
            self._data = subgroup(file, "data")
            self._header = attributes(self._data, skip=frozenset({"env_args"}))
            self._env_args = plain_json(json_attribute(self._data, "env_args"))
            self._masks = filter_keys(file)
            self._demos = demonstrations(file, self._masks, filter_key)
        self.keys, left_out = choose_keys(
            self._specs(self._demos[0]),
            self._other_specs(),
            where=str(path),
            optional=lambda name: name != "actions" and not name.startswith("obs."),
            exclude=exclude,
        )
        self.fps = self._rate(fps)
        robots = self._env_kwargs.get("robots", "")
        self.robot = "+".join(map(str, robots)) if isinstance(robots, list) else str(robots)
        self.provenance = {
            "format": FORMAT.name,
            "filter_key": filter_key,
            "left_out": left_out,
            "env_args": self._env_args,
            "attributes": self._header,
        }

    def __len__(self) -> int:
        return len(self._demos)

    def close(self) -> None:
        self._file.close()

    def episodes(self) -> Iterator[SourceEpisode]:
        for demo in self._demos:
            try:
                yield self._episode(demo)
            except UserError:  # the same error again when its frames are asked for
                yield SourceEpisode(origin=demo, task="", blocks=partial(self._blocks, demo))

    @property
    def _env_kwargs(self) -> dict[str, Any]:
        found = self._env_args.get("env_kwargs")
        return found if isinstance(found, dict) else {}

    def _rate(self, fps: float | None) -> float:
        said = self._env_kwargs.get("control_freq", self._header.get("fps"))
        found = said if fps is None else fps
        if found is None:
            raise UsageError(f"{self._path} does not say its rate (control_freq): give it, as options.fps=20")
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise UsageError(f"{self._path}: fps (control_freq) must be a number, got {found!r}")
        return checked_fps(found)

    def _episode(self, demo: str) -> SourceEpisode:
        with hdf5_errors(self._path, f"reading {demo}"):
            group = subgroup(self._data, demo)
            notes = attributes(group, skip=_LONG)
            seed, success = notes.pop("seed", None), notes.pop("success", None)
            filters = sorted(name for name, members in self._masks.items() if demo in members)
            return SourceEpisode(
                origin=demo,
                task=self._task(group),
                blocks=partial(self._blocks, demo),
                success=bool(success) if success in (0, 1) else None,
                seed=seed if isinstance(seed, int) else None,
                length=self._length(group),
                notes={**notes, "filter_keys": filters} if filters else notes,
            )

    def _length(self, group: Any) -> int:
        actions = child(group, "actions")
        if actions is None or not actions.shape or actions.shape[0] < 1:
            raise UserError(f"{self._path}: {group.name} has no actions: leave it out (filter_key), or repair the file")
        length = int(actions.shape[0])
        if "num_samples" in group.attrs and int(group.attrs["num_samples"]) != length:
            said = int(group.attrs["num_samples"])
            raise UserError(f"{self._path}: {group.name} has {length} actions and says num_samples={said}")
        return length

    def _task(self, group: Any) -> str:
        said = (
            json_attribute(group, "ep_meta").get("lang"),
            json_attribute(self._data, "problem_info").get("language_instruction"),
            self._env_kwargs.get("env_lang"),
            self._env_args.get("env_name"),
        )
        return next((str(plain_json(text)) for text in said if isinstance(text, str) and text), "")

    def _specs(self, demo: str, *, skip: frozenset[str] = _NEXT) -> dict[str, KeySpec | str]:
        with hdf5_errors(self._path, f"reading {demo}"):
            group = subgroup(self._data, demo)
            length = self._length(group)
            return {name: _spec(dataset, length) for name, dataset in tree(group, skip=skip).items()}

    def _other_specs(self) -> Iterator[tuple[str, dict[str, KeySpec | str]]]:
        for demo in self._demos[1:]:
            try:
                yield demo, self._specs(demo, skip=_NEXT | {"obs"})
            except UserError:
                continue  # said when its frames are read

    def _blocks(self, demo: str) -> Iterator[Block]:
        length = self._episode(demo).length or 0
        require_alike(self.keys, self._specs(demo), where=str(self._path), episode=demo)
        with hdf5_errors(self._path, f"reading {demo}"):
            datasets = tree(subgroup(self._data, demo), skip=_NEXT)
            for name in self.keys:
                require_stored(datasets[name])
        yield from read_blocks(self._path, datasets, self.keys, length)


def open_source(
    path: Path, *, filter_key: str | None = None, fps: float | None = None, exclude: Sequence[str] = ()
) -> RobomimicSource:
    """Open a robomimic file.

    Args:
        path: of the file.
        filter_key: only the demonstrations that `mask/<filter_key>` lists.
        fps: steps per second; by default what the file says (`control_freq`).
        exclude: keys to leave out, such as `states`.

    Raises:
        UserError: it is damaged, or not of this format.
        UsageError: no such filter key, or the rate is unknown.
        MissingExtraError: h5py is not installed.
    """
    path, filter_key = Path(path), None if filter_key is None else str(filter_key)
    file = open_hdf5(path)
    try:
        return RobomimicSource(path, file, filter_key=filter_key, fps=fps, exclude=names_to_exclude(exclude))
    except UserError:
        file.close()
        raise


def _spec(dataset: Any, length: int) -> KeySpec | str:
    spec = frame_spec(dataset)
    if isinstance(spec, KeySpec) and dataset.shape[0] != length:
        return f"{dataset.dtype.name} {list(dataset.shape)} for {length} steps"
    return spec
