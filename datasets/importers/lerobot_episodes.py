"""The episodes and tasks that a LeRobotDataset lists: parquet files in v3.0, JSON lines before."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.datasets.files.parquet_files import read_rows
from embodied.datasets.importers.lerobot_metadata import Clip, Entry, Info, check_entries, read_json_lines, whole

_EPISODES = "meta/episodes"
_TASKS = "meta/tasks.parquet"
_SUBTASKS = "meta/subtasks.parquet"


def read_episodes(info: Info) -> list[Entry]:
    """All episodes in order, as the dataset's metadata list them.

    Raises:
        UserError: a file is missing or damaged, or disagrees with info.json.
    """
    return _episodes_v3(info) if info.version == "v3.0" else _episodes_v2(info)


def read_tasks(info: Info) -> dict[int, str]:
    """The instructions by task index."""
    if info.version == "v3.0":
        return _named_rows(info.root / _TASKS, "task_index")
    path = info.root / "meta/tasks.jsonl"
    records = read_json_lines(path)
    return {whole(record.get("task_index"), "task_index", str(path)): str(record.get("task", "")) for record in records}


def read_subtasks(info: Info) -> dict[int, str]:
    """The names that a feature `subtask_index` counts; empty if the dataset has none."""
    path = info.root / _SUBTASKS
    return _named_rows(path, "subtask_index") if path.is_file() else {}


def _named_rows(path: Path, index: str) -> dict[int, str]:
    """Of a table that pandas wrote: its texts (pandas' index, under one of several names) by the column `index`."""
    rows = read_rows(path)
    columns = list(rows[0]) if rows else []
    texts = [name for name in columns if isinstance(rows[0][name], str)]
    known = [name for name in ("task", "subtask", "__index_level_0__") if name in texts] or texts
    if rows and (index not in columns or not known):
        raise UserError(f"{path}: expected a column {index} and one of texts, got {', '.join(columns)}")
    return {whole(row[index], index, str(path)): str(row[known[0]] or "") for row in rows}


def _episodes_v3(info: Info) -> list[Entry]:
    folder = info.root / _EPISODES
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no parquet file: fetch the dataset again")
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    for key in info.video_keys:
        columns += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    entries = []
    for file in files:
        entries += [_entry_v3(info, row, str(file)) for row in read_rows(file, columns)]
    return check_entries(info, entries, str(folder))


def _entry_v3(info: Info, row: Mapping[str, Any], where: str) -> Entry:
    index = whole(row["episode_index"], "episode_index", where)

    def place(prefix: str) -> dict[str, int]:
        names = ("chunk_index", "file_index")
        return {name: whole(row[f"{prefix}/{name}"], f"{prefix}/{name} of episode {index}", where) for name in names}

    clips = {}
    for key in info.video_keys:
        start = row[f"videos/{key}/from_timestamp"]
        if not isinstance(start, int | float) or not isfinite(start) or start < 0:
            raise UserError(f"{where}: videos/{key}/from_timestamp of episode {index} must be seconds, got {start!r}")
        clips[key] = Clip(info.file(info.video_path, video_key=key, **place(f"videos/{key}")), float(start))
    return Entry(
        index,
        whole(row["length"], f"length of episode {index}", where),
        info.file(info.data_path, **place("data")),
        clips,
        _texts(row["tasks"]),
    )


def _episodes_v2(info: Info) -> list[Entry]:
    path = info.root / "meta/episodes.jsonl"
    entries = []
    for number, record in enumerate(read_json_lines(path), start=1):
        where = f"{path}, episode {number}"
        index = whole(record.get("episode_index"), "episode_index", where)
        fields = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        clips = {key: Clip(info.file(info.video_path, video_key=key, **fields), 0.0) for key in info.video_keys}
        length = whole(record.get("length"), "length", where)
        entries.append(Entry(index, length, info.file(info.data_path, **fields), clips, _texts(record.get("tasks"))))
    return check_entries(info, entries, str(path))


def _texts(tasks: object) -> tuple[str, ...]:
    """Task texts; the lists of some datasets hold one as a bare string."""
    if isinstance(tasks, str):
        return (tasks,)
    return tuple(text for text in tasks if isinstance(text, str)) if isinstance(tasks, list) else ()
