"""The sides of benchmarks/pretrain.py: MAE by this package, and by transformers' ViTMAE in the loop one writes for it.

A side trains on and on; `run(steps)` does so many steps more and says how long they took.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from embodied.core.reporting import SilentReporter
from embodied.datasets.files.image_files import list_images
from embodied.datasets.loading.frames import FrameDataset
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from embodied.encoders.vit import ViTEncoder
from embodied.models.positions import sincos_2d
from embodied.objectives.masked.mae import MAE
from embodied.training.batches import batches_for
from embodied.training.pretrain import pretrain

RATE, DECAY, BETAS, CLIP = 1.5e-4, 0.05, (0.9, 0.95), 1.0
CROP_SCALE = (0.6, 1.0)


@dataclass(frozen=True, kw_only=True)
class Size:
    """A network and its batch; patches are 16 x 16, three quarters of them hidden."""

    image: int
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    batch: int


SIZES = {
    "vit_ti_128": Size(
        image=128, width=192, depth=12, heads=3, decoder_width=128, decoder_depth=2, decoder_heads=4, batch=64
    ),
    "vit_s_224": Size(
        image=224, width=384, depth=12, heads=6, decoder_width=256, decoder_depth=4, decoder_heads=8, batch=32
    ),
    "tiny": Size(image=64, width=48, depth=2, heads=3, decoder_width=32, decoder_depth=1, decoder_heads=2, batch=8),
}


@dataclass(frozen=True)
class Round:
    """Seconds of some steps, and how many of them were spent waiting for data."""

    seconds: float
    waited: float


def our_model(size: Size) -> MAE:
    encoder = ViTEncoder(image_size=size.image, width=size.width, depth=size.depth, heads=size.heads)
    decoder = {"decoder_width": size.decoder_width, "decoder_depth": size.decoder_depth}
    return MAE(encoder, crop_scale=CROP_SCALE, flip=True, decoder_heads=size.decoder_heads, **decoder)


def their_model(size: Size) -> nn.Module:
    """ViTMAEForPreTraining of the same size, with its sine-cosine positions where they belong."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=size.image,
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        decoder_hidden_size=size.decoder_width,
        decoder_num_hidden_layers=size.decoder_depth,
        decoder_num_attention_heads=size.decoder_heads,
        decoder_intermediate_size=4 * size.decoder_width,
        attn_implementation="sdpa",
    )
    model = ViTMAEForPreTraining(config)
    side = size.image // 16
    for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        # Left to itself a model that is made from a config has zeros in the decoder.
        table.data.copy_(sincos_2d(table.shape[-1], side, side, class_token=True))
    return model.train()


def trained_values(model: nn.Module) -> int:
    return sum(part.numel() for part in model.parameters() if part.requires_grad)


def autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


class Ours:
    """`training.pretrain.pretrain` itself, on frames that were decoded once, held still between rounds.

    The loop asks its reporter for the next step; the reporter takes its time where a round ends.
    """

    def __init__(self, size: Size, frames: FrameDataset, folder: Path, *, precision: str) -> None:
        self._size, self._frames, self._folder, self._precision = size, frames, folder, precision

    def run(self, steps: int, rounds: int, between: Callable[[], None]) -> list[Round]:
        """So many rounds beside one that warms up; `between` is called after each."""
        records: list[Mapping[str, Any]] = []
        reporter = _Stepper(steps, between)
        objective = our_model(self._size)
        pretrain(
            objective,
            batches_for(objective, self._frames, batch_size=self._size.batch, seed=0),
            steps=steps * (rounds + 1) + 1,  # one more: the last writes the checkpoint
            learning_rate=RATE,
            weight_decay=DECAY,
            warmup_steps=1,
            clip=CLIP,
            precision=self._precision,
            seed=0,
            checkpoint_folder=self._folder,
            checkpoint_every=10**9,
            device=torch.device("cpu"),
            log=records.append,
            reporter=reporter,
            log_every=1,
        )
        found = []
        for number in range(1, rounds + 1):
            rows = records[number * steps + 1 : (number + 1) * steps]  # the first of a round has the pause before it
            share = sum(row["data_wait"] for row in rows) / len(rows)
            found.append(Round(reporter.seconds[number], share * reporter.seconds[number]))
        return found


class _Stepper(SilentReporter):
    def __init__(self, steps: int, between: Callable[[], None]) -> None:
        self._steps, self._between = steps, between
        self.seconds: list[float] = []

    def track(self, items: Iterable[Any], *, total: int, description: str, done: int = 0) -> Iterator[Any]:
        start = perf_counter()
        for number, item in enumerate(items):
            if number and number % self._steps == 0:
                self.seconds.append(perf_counter() - start)
                self._between()
                start = perf_counter()
            yield item


class Photos(Dataset[Tensor]):
    """Decode, random resized crop and mirror image by Pillow, the rest by the image processor: pixel values."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        side = {"height": size, "width": size}
        self._paths, self._size = list(paths), size
        self._processor = ViTImageProcessorPil(
            do_resize=False, size=side, image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD)
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._paths[index]) as file:
            image = file.convert("RGB")
        image = image.resize((self._size, self._size), Image.Resampling.BICUBIC, box=crop_box(*image.size))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self._processor(image, return_tensors="pt")["pixel_values"][0]


def crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """A random part of an image by area and aspect, as RandomResizedCrop draws it."""
    area = width * height * random.uniform(*CROP_SCALE)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    wide, high = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
    return left, top, left + wide, top + high


class Theirs:
    """A DataLoader, forward, backward, clipping, AdamW: what `Trainer` does (its AdamW is the fused one), without it.

    A round has a loader of its own, so that workers neither compute while the other side is timed nor bring batches
    from before: what it costs to start them counts.
    """

    def __init__(self, size: Size, photos: Path, *, precision: str, workers: int) -> None:
        self._size, self._precision, self._workers = size, precision, workers
        self._photos = Photos(list_images(photos), size.image)
        self._model = their_model(size)
        self._optimizer = adamw(self._model)

    def run(self, steps: int) -> Round:
        """So many steps more."""
        wanted = steps * self._size.batch
        indices = [random.randrange(len(self._photos)) for _ in range(wanted)]
        start, waited = perf_counter(), 0.0
        loader = DataLoader(self._photos, self._size.batch, sampler=indices, num_workers=self._workers)
        with contextlib.closing(iter_batches(loader)) as batches:
            for _ in range(steps):
                before = perf_counter()
                batch = next(batches)
                waited += perf_counter() - before
                train_step(self._model, self._optimizer, lambda: self._model(pixel_values=batch).loss, self._precision)  # noqa: B023
        return Round(perf_counter() - start, waited)


def iter_batches(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    yield from loader


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    trained = [part for part in model.parameters() if part.requires_grad]
    return torch.optim.AdamW(trained, lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], precision: str) -> None:
    """Forward, backward, clipping, update."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(precision):
        value = loss()
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    assert math.isfinite(value.item())


class Compute:
    """The same two networks on the same preprocessed batch that lies there: no data, no augmentation, no loop."""

    def __init__(self, size: Size, *, ours: bool, precision: str) -> None:
        self._precision = precision
        self._images = torch.randn(size.batch, 3, size.image, size.image, generator=torch.Generator().manual_seed(0))
        self._noise = torch.rand(
            size.batch, (size.image // 16) ** 2, generator=torch.Generator().manual_seed(1)
        )  # which patches are hidden
        self._model: Any = our_model(size) if ours else their_model(size)
        self._ours, self._optimizer = ours, adamw(self._model)

    def run(self, steps: int) -> Round:
        """So many steps more."""
        start = perf_counter()
        for _ in range(steps):
            train_step(self._model, self._optimizer, self._loss, self._precision)
        return Round(perf_counter() - start, 0.0)

    def _loss(self) -> Tensor:
        if self._ours:
            return self._model.masked_loss(self._images, self._noise)[0]
        return self._model(pixel_values=self._images, noise=self._noise).loss
