"""Windows of sequences with the frames that come later, and instructions: what GR-1 learns from.

B windows per batch, T steps, N patches, V values, S image size, A action, E width of an instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX, INSTRUCTION, PAD_SUFFIX, STATE
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.sequence_sources import Caches, Latents, open_sequences, open_store
from embodied.datasets.loading.sequences import SequenceDataset, SequenceSource, moments
from embodied.datasets.loading.windows import TASK_INDEX, WindowDataset

FUTURE = "future."  # what stands before a camera's key: its frames some steps later
MISSING = ("refuse", "hide")  # what to do with episodes without an instruction


class FutureWindows(SequenceDataset):
    """The windows of `SequenceDataset` with more keys.

    Args:
        sources: see `open_future_windows`.
        sizes: V of every key that any source has, but futures.
        context: T.
        shapes: of one step of a camera's features [1 + N, V] and of its future frames [S, S, 3], by key.
        instructions: the embedding float32 [E] of every task's words; None: there are none in a batch.
        weights: as of `SequenceDataset`.
    """

    def __init__(
        self,
        sources: Sequence[SequenceSource],
        *,
        sizes: Mapping[str, int],
        context: int,
        shapes: Mapping[str, tuple[int, ...]],
        instructions: Mapping[str, np.ndarray] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(sources, sizes=sizes, context=context, weights=weights)
        self.shapes = dict(shapes)
        self.instructions = None if instructions is None else dict(instructions)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The windows at indices int64 [B].

        Returns:
            Of every camera its features float32 [B, T, 1 + N, V] and by `future.<key>` frames uint8 [B, T, S, S, 3];
            `observation.state` and `action` float32 [B, T, V]; of each `<key>_is_pad` bool [B, T], True = not there.
            With instructions, `instruction` float32 [B, E] and `instruction_is_pad` bool [B].

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        shape = (len(indices), self.context)
        batch: dict[str, np.ndarray] = {}
        for key in (*self.sizes, *(name for name in self.shapes if name.startswith(FUTURE))):
            dtype = np.uint8 if key.startswith(FUTURE) else np.float32
            batch[key] = np.zeros((*shape, *self.shapes.get(key, (self.sizes.get(key, 0),))), dtype)
            batch[key + PAD_SUFFIX] = np.ones(shape, bool)
        if self.instructions is not None:
            batch[INSTRUCTION] = np.zeros((len(indices), self.text_dim), np.float32)
            batch[INSTRUCTION + PAD_SUFFIX] = np.ones(len(indices), bool)
        for chosen, source, found in self.found(indices):
            for key in source.windows.windows:
                batch[key][chosen], batch[key + PAD_SUFFIX][chosen] = found[key], found[key + PAD_SUFFIX]
            if self.instructions is not None:
                for row, task in zip(np.flatnonzero(chosen), found[TASK_INDEX], strict=True):
                    said = self.instructions.get(source.windows.tasks[int(task)])
                    if said is not None:
                        batch[INSTRUCTION][row], batch[INSTRUCTION + PAD_SUFFIX][row] = said, False
        return batch

    @property
    def text_dim(self) -> int:
        """E; 0 without instructions."""
        return len(next(iter(self.instructions.values()))) if self.instructions else 0

    def statistics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation float32 [V] of proprioception and actions, where any source has them."""
        return {key: moments(self._rows(key), size) for key, size in self.sizes.items() if key in (STATE, ACTION)}

    def range_of(self, key: str, value: int) -> tuple[float, float]:
        """Least and largest of one value of a vector, over the frames of all sources."""
        columns = [rows.take(np.arange(len(rows)))[:, value] for rows in self._rows(key)]
        return float(min(column.min() for column in columns)), float(max(column.max() for column in columns))

    def _rows(self, key: str) -> list[Any]:
        return [source.rows[key] for source in self.sources if key in source.windows.windows]

    def _of(self, sources: Sequence[SequenceSource], weights: Sequence[float] | None) -> SequenceDataset:
        return FutureWindows(
            sources,
            sizes=self.sizes,
            context=self.context,
            shapes=self.shapes,
            instructions=self.instructions,
            weights=weights,
        )


def open_future_windows(
    paths: Sequence[str],
    *,
    latents: Latents,
    caches: Caches,
    context: int,
    ahead: int,
    image_size: int,
    instructions: Mapping[str, np.ndarray] | None,
    **options: Any,
) -> FutureWindows:
    """Windows around every frame of episode stores; features and frames come from caches.

    Args:
        paths, latents, caches, context: see `sequence_sources.open_sequences`; latents are sets, [1 + N, V].
        ahead: how many frames later the future ones are.
        image_size: S of them.
        instructions: see `FutureWindows`.
        options: further arguments of `open_sequences`.

    Raises:
        UsageError, UserError: see `open_sequences`.
    """
    plain = open_sequences(paths, latents=latents, caches=caches, context=context, **options)
    shapes: dict[str, tuple[int, ...]] = {}
    sources = []
    for source in plain.sources:
        cameras = [key for key in source.windows.windows if key.startswith(IMAGE_PREFIX)]
        made, held = source.windows.materialized, source.held
        windows: dict[str, Sequence[int]] = {key: offsets.tolist() for key, offsets in source.windows.windows.items()}
        if cameras:
            frames = materialize(
                open_store(source.name),
                keys=cameras,
                image_size=image_size,
                cache_root=caches.root / "materialized",
                max_bytes=caches.max_bytes,
                reporter=caches.reporter,
            )
            held = (*held, frames)
        for key in cameras:
            made = made.with_rows(FUTURE + key, frames.rows[key])
            windows[FUTURE + key] = range(ahead + 1 - context, ahead + 1)
            shapes |= {key: made.rows[key].shape[1:], FUTURE + key: made.rows[FUTURE + key].shape[1:]}
        sources.append(replace(source, windows=WindowDataset(made, windows=windows), held=held))
    return FutureWindows(
        sources,
        sizes=plain.sizes,
        context=context,
        shapes=shapes,
        instructions=instructions,
        weights=options.get("weights"),
    )


def words_of(paths: Sequence[str], *, missing: str) -> list[str]:
    """The different instructions of the episodes of stores, without those that say nothing.

    Raises:
        UsageError: an episode has none, and `missing` is `refuse`; no episode has one; or there is no such choice.
    """
    if missing not in MISSING:
        raise unknown_name("sequence.missing_instructions", missing, MISSING)
    found: dict[str, None] = {}
    for path in paths:
        silent = []
        for number, episode in enumerate(open_store(path).episodes):
            if episode.task.strip():
                found[episode.task] = None
            else:
                silent.append(number)
        if silent and missing == "refuse":
            more = f" (and {len(silent) - 1} more)" if len(silent) > 1 else ""
            raise UsageError(
                f"{path}: episode {silent[0]}{more} has no instruction: import or collect it with a task, say that "
                "they may be missing with sequence.missing_instructions=hide, or learn without any by "
                "sequence.text_encoder=null"
            )
    if not found:
        raise UsageError("no episode has an instruction: set sequence.text_encoder=null")
    return list(found)
