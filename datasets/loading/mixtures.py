"""Windows of many datasets whose sensors and actions differ in number and meaning, mixed into every batch.

Legend: B windows per batch, T steps, K cameras at most, N tokens of a frame, V values of each, P proprioception at
most, H chunk, A action at most, E width of an instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.files import hash_json
from embodied.core.protocols import ACTION, INSTRUCTION, PAD_SUFFIX, STATE, image_key
from embodied.datasets.loading.sequences import SequenceDataset, SequenceSource
from embodied.datasets.loading.windows import TASK_INDEX

Mixing = Literal["inverse_sqrt", "temperature", "uniform", "weights"]
IMAGES, DATASET = "images", "dataset"


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """What the windows of a body hold.

    Attributes:
        cameras: names of the views.
        state_dim: P of its own; 0: no proprioception.
        action_dim: A of its own.
    """

    cameras: tuple[str, ...]
    state_dim: int
    action_dim: int


@dataclass(frozen=True)
class MixtureSource(SequenceSource):
    """The windows of one store.

    Attributes:
        dataset: the number of the dataset it belongs to.
    """

    dataset: int = 0


def mixing_weights(
    sizes: Sequence[int], mixing: Mixing, *, temperature: float = 2.0, factors: Sequence[float] | None = None
) -> list[float]:
    """How often each dataset is drawn, adding up to 1.

    | mixing | proportional to |
    | --- | --- |
    | `inverse_sqrt` | one over the square root of its size: HPT |
    | `temperature` | its size to the power of one over the temperature: 1 takes every frame alike, 2 the square root |
    | `uniform` | 1 |
    | `weights` | its factor alone |

    HPT's code of pre-training is not public; a comment in what is says that datasets are drawn with the inverse square
    root of their size, which is taken by the word here: small ones are drawn more often than large ones.

    Args:
        sizes: frames of each dataset.
        mixing: see above.
        temperature: positive.
        factors: of each dataset, multiplied with what `mixing` gives; None: 1.

    Raises:
        UsageError: there is no such mixing, or a number makes no sense.
    """
    if mixing not in get_args(Mixing):
        raise unknown_name("mixing", str(mixing), get_args(Mixing))
    if not temperature > 0:
        raise UsageError(f"temperature must be positive, got {temperature}")
    counts = np.asarray(sizes, np.float64)
    exponent = {"inverse_sqrt": -0.5, "temperature": 1 / temperature, "uniform": 0.0, "weights": 0.0}[mixing]
    scaled = (counts / counts.max()) ** exponent * np.asarray(factors if factors is not None else np.ones_like(counts))
    return [float(weight) for weight in scaled / scaled.sum()]


class MixtureDataset(SequenceDataset):
    """All windows of all stores; a batch pads every embodiment's values to the largest.

    Args:
        sources: at least one, see `mixture_sources.open_mixture`.
        names: of the datasets, by their number.
        owners: the embodiment of each dataset.
        embodiments: by name.
        frame_shape: [V] or [N, V] of an image latent.
        context: T.
        chunk: H.
        mixing, temperature, factors: see `mixing_weights`; sizes are those of all stores of a dataset together.
        instructions: the embedding float32 [E] of every task's words; None: there are none in a batch.
    """

    def __init__(
        self,
        sources: Sequence[MixtureSource],
        *,
        names: Sequence[str],
        owners: Sequence[str],
        embodiments: Mapping[str, Embodiment],
        frame_shape: tuple[int, ...],
        context: int,
        chunk: int,
        mixing: Mixing = "inverse_sqrt",
        temperature: float = 2.0,
        factors: Sequence[float] | None = None,
        instructions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.instructions = None if instructions is None else dict(instructions)
        self.names, self.owners, self.embodiments = list(names), list(owners), dict(embodiments)
        self.frame_shape, self.chunk = frame_shape, chunk
        self._mixing: dict[str, Any] = {"mixing": mixing, "temperature": temperature, "factors": factors}
        frames = np.zeros(len(names), np.int64)
        np.add.at(frames, [source.dataset for source in sources], [len(source.windows) for source in sources])
        self.shares = mixing_weights(np.maximum(frames, 1).tolist(), **self._mixing)
        weights = [self.shares[source.dataset] * len(source.windows) / frames[source.dataset] for source in sources]
        sizes = {
            STATE: max(each.state_dim for each in embodiments.values()),
            ACTION: max(each.action_dim for each in embodiments.values()),
        }
        super().__init__(sources, sizes=sizes, context=context, weights=weights)
        self.views = max(len(each.cameras) for each in embodiments.values())

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The windows at indices int64 [B].

        Returns:
            `images` float32 [B, T, K, *frame_shape] in the order of the embodiment's cameras, `observation.state`
            [B, T, P] and `action` [B, H, A], the window's last step being the chunk's first; zeros beyond what the
            embodiment has. `images_is_pad` bool [B, T, K], `observation.state_is_pad` [B, T] and `action_is_pad`
            [B, H], True = not there: no such sensor, or beyond the episode. `dataset` int64 [B]. With instructions,
            `instruction` float32 [B, E] and `instruction_is_pad` bool [B].

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        batch = self._empty(len(indices))
        places = np.searchsorted(self._stops, indices, side="right")
        for place in np.unique(places):
            source, chosen = self.sources[place], np.flatnonzero(places == place)
            assert isinstance(source, MixtureSource)
            first = int(self._stops[place]) - len(source.windows)
            self._fill(batch, chosen, source, source.windows.batch(indices[chosen] - first))
        return batch

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        shape = (rows, self.context)
        words: dict[str, np.ndarray] = {}
        if self.instructions:
            width = len(next(iter(self.instructions.values())))
            words = {INSTRUCTION: np.zeros((rows, width), np.float32), INSTRUCTION + PAD_SUFFIX: np.ones(rows, bool)}
        return {
            **words,
            IMAGES: np.zeros((*shape, self.views, *self.frame_shape), np.float32),
            IMAGES + PAD_SUFFIX: np.ones((*shape, self.views), bool),
            STATE: np.zeros((*shape, self.sizes[STATE]), np.float32),
            STATE + PAD_SUFFIX: np.ones(shape, bool),
            ACTION: np.zeros((rows, self.chunk, self.sizes[ACTION]), np.float32),
            ACTION + PAD_SUFFIX: np.ones((rows, self.chunk), bool),
            DATASET: np.zeros(rows, np.int64),
        }

    def _fill(
        self, batch: dict[str, np.ndarray], rows: np.ndarray, source: MixtureSource, found: Mapping[str, np.ndarray]
    ) -> None:
        batch[DATASET][rows] = source.dataset
        for row, task in zip(rows, found[TASK_INDEX], strict=True) if self.instructions else ():
            said = (self.instructions or {}).get(source.windows.tasks[int(task)])
            if said is not None:
                batch[INSTRUCTION][row], batch[INSTRUCTION + PAD_SUFFIX][row] = said, False
        for key in (STATE, ACTION):
            if key in found:
                batch[key][rows, :, : found[key].shape[-1]] = found[key]
                batch[key + PAD_SUFFIX][rows] = found[key + PAD_SUFFIX]
        for number, camera in enumerate(self.embodiments[self.owners[source.dataset]].cameras):
            key = image_key(camera)
            if key in found:
                batch[IMAGES][rows, :, number] = found[key]
                batch[IMAGES + PAD_SUFFIX][rows, :, number] = found[key + PAD_SUFFIX]

    def _of(self, sources: Sequence[SequenceSource], weights: Sequence[float] | None) -> MixtureDataset:
        """The same of other sources; those held out are looked at frame by frame, whatever the mixing."""
        mixing = self._mixing if weights is not None else {"mixing": "temperature", "temperature": 1.0}
        return MixtureDataset(
            [source for source in sources if isinstance(source, MixtureSource)],
            names=self.names,
            owners=self.owners,
            embodiments=self.embodiments,
            frame_shape=self.frame_shape,
            context=self.context,
            chunk=self.chunk,
            instructions=self.instructions,
            **mixing,
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sources, what they are taken as, and their order."""
        return hash_json([super().fingerprint(), self.names, self.owners, self.chunk, self.shares])

    def describe(self) -> list[dict[str, Any]]:
        """Per store: kind, name, dataset, embodiment, frames, keys, weight, fingerprint; for a model card."""
        records = super().describe()
        for record, source in zip(records, self.sources, strict=True):
            assert isinstance(source, MixtureSource)
            record |= {"dataset": self.names[source.dataset], "embodiment": self.owners[source.dataset]}
        return records
