"""Recordings into one store, one after the other: a demonstration a day, or a hundred."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embodied.datasets.episode_source import EncodedBlock
from embodied.datasets.resumable_store import resumable_store
from embodied.datasets.store.episode_index import JPEG
from embodied.real_robot.recording.episodes import RecordedEpisodes

_PART = "teleop"


class Appended(NamedTuple):
    """Episodes and frames that were added, and how many episodes the store has now."""

    episodes: int
    frames: int
    total: int


def append_recording(source: RecordedEpisodes, to: str | Path) -> Appended:
    """Add the episodes of a recording to a store, which is made if there is none; what is there already is left out.

    Raises:
        UsageError: the store is of another robot or other keys.
        UserError: the recording is damaged, or the store not be written; episodes are added whole or not at all.
    """
    made = {"robot": source.robot, "commands": source.provenance["commands"]}
    # Beside what must be the same to go on with a store: older ones do not have it.
    provenance = {_PART: made, "commanded": source.provenance["commanded"]}
    episodes = frames = 0
    with resumable_store(
        to, keys=source.keys, fps=source.fps, robot=source.robot, provenance=provenance, part=_PART
    ) as store:
        present = {info.origin for info in store.episodes}
        for episode in source.episodes():
            if episode.origin in present:
                continue
            details = {name: getattr(episode, name) for name in ("task", "seed", "success", "origin", "notes")}
            with store.writer(**details) as writer:
                for block in episode.blocks():
                    assert isinstance(block, EncodedBlock), type(block)
                    kept = {key: files for key, files in block.files.items() if source.keys[key].codec == JPEG}
                    writer.write(block, encoded=kept)
                frames += writer.length
            episodes += 1
        return Appended(episodes, frames, len(store))
