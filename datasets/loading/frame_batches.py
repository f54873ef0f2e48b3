"""Batches of pre-training: frames, and where an objective wants them their labels and partners.

read_batch = FrameBatches(frames, batch_size=64, seed=0, labels=True, pairing=TimePairs(gap=(1, 8)))
batch = read_batch(step)  # images uint8 [B, S, S, 3], labels int64 [B], partners uint8 [B, P, S, S, 3]
"""

from __future__ import annotations

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.pairing import Pairing, Partners
from embodied.core.seeding import numpy_generator
from embodied.datasets.loading.frame_dataset import FrameDataset
from embodied.datasets.loading.sampling import EpochSampler

IMAGES, LABELS, PARTNERS = "images", "labels", "partners"


class FrameBatches:
    """The batch of a step as a pure function of seed and step, so that resuming at any step replays nothing.

    Frames without partners are never drawn where partners are wanted; every source must have some with partners.

    Args:
        frames: the data.
        batch_size: B.
        seed: of what is drawn.
        labels: whether batches have `labels`.
        pairing: whether and which `partners` they have.
        only: frames to draw from, bool [N], whole episodes; None: all.
        shares: how often each frame is drawn beside the others, float [N], 0 = never; where the sources have weights,
            beside the others of its source. A partner may be a frame that is never drawn itself. None: all alike.

    Raises:
        UsageError: the data lack what is wanted, or no frame is left to draw.
    """

    def __init__(
        self,
        frames: FrameDataset,
        *,
        batch_size: int,
        seed: int,
        labels: bool = False,
        pairing: Pairing | None = None,
        only: np.ndarray | None = None,
        shares: np.ndarray | None = None,
    ) -> None:
        self.frames, self._seed = frames, seed
        self._partners: Partners | None = None
        if labels:
            frames.labels(np.arange(0))  # says it if there are none
        self._labels = labels
        if pairing is not None:
            self._partners, usable = pairing.bind(frames, only), only
            only = self._partners.eligible
            without = frames.sources_without(only, among=usable)
            if without:
                raise UsageError(f"the objective wants {pairing.wants}: {', '.join(without)} has none")
        drawn = np.ones(len(frames), bool) if only is None else only
        if shares is not None:
            drawn = drawn & (shares > 0)
            if not drawn.any():
                raise UsageError("no frame is left to draw: those that are not held out all have a share of 0")
        self._chosen = None if drawn.all() else np.flatnonzero(drawn)
        count = len(frames) if self._chosen is None else len(self._chosen)
        weights = draw_weights(frames, drawn, shares)
        self._sampler = EpochSampler(count, batch_size=batch_size, seed=seed, weights=weights)

    def indices(self, step: int) -> np.ndarray:
        """The frames int64 [B] of a step, counted from 0."""
        drawn = self._sampler.batch(step)
        return drawn if self._chosen is None else self._chosen[drawn]

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, counted from 0."""
        return self._read(self.indices(step), numpy_generator(self._seed, "partners", step))

    def sample(self, count: int) -> dict[str, np.ndarray]:
        """A batch of at most `count` different frames, in the order of the data, the same every time: to look at."""
        places = np.arange(len(self.frames)) if self._chosen is None else self._chosen
        random = numpy_generator(self._seed, "pictures")
        return self._read(np.sort(random.choice(places, size=min(count, len(places)), replace=False)), random)

    def _read(self, indices: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
        batch = {IMAGES: self.frames.read(indices)}
        if self._labels:
            batch[LABELS] = self.frames.labels(indices)
        if self._partners is not None:
            batch[PARTNERS] = self.frames.read(self._partners.draw(indices, random))
        return batch


def draw_weights(frames: FrameDataset, drawn: np.ndarray, shares: np.ndarray | None) -> np.ndarray | None:
    """float64 [n] of the n frames that are drawn at all, bool [N]; None where all of them are drawn alike."""
    alike = shares is None or bool((shares[drawn] == shares[drawn][0]).all())
    wanted = drawn.astype(np.float64) if shares is None or alike else np.where(drawn, shares, 0.0)
    weights = frames.item_weights(wanted)
    if weights is not None:
        return weights[drawn]
    return None if alike else wanted[drawn]
