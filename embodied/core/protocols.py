"""The contracts between the parts. Shapes: B batch, T time, N tokens, D width, H chunk (W, H image size), A action.

Names of data follow LeRobot: see the constants. Images are uint8 [H, W, 3] at the edges of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

if TYPE_CHECKING:  # what only moves data must not pay two seconds for torch
    import torch
    from torch import Tensor

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"  # float32 [P]: proprioception that a real robot has
ENVIRONMENT_STATE = "observation.environment_state"  # float32 [S]: privileged; only the oracle reads it
ACTION = "action"  # float32 [A]
TASK = "task"  # str: the instruction
REWARD = "next.reward"  # float32
SUCCESS = "next.success"  # bool
DONE = "next.done"  # bool

# Windows of sequences, [B, T, ...] by the names above
PAD_SUFFIX = "_is_pad"  # `<key>_is_pad` bool [B, T]: True = not there: beyond the episode, or no such sensor

# Training batches of a controller, beside the names above
FEATURES = "features"  # float [B, T, V] or [B, T, N, D]: history of one encoder output, from the feature cache
INPUTS = "inputs"  # uint8 [B, T, H, W, 3]: history of raw frames, for an encoder that is trained along
INSTRUCTION = "instruction"  # float [B, E]: the text encoder's embedding of the episode's `task`
PAD_MASK = "pad_mask"  # bool [B, H]: True = a real step of the chunk `action` [B, H, A], the others repeat its last

Item = TypeVar("Item")
Carry = Any


def image_key(camera: str) -> str:
    """The name of a camera's frames: `observation.images.<camera>`."""
    return IMAGE_PREFIX + camera


@runtime_checkable
class Encoder(Protocol):
    """A frozen or trainable feature extractor, an `nn.Module`.

    `modality` is `"image"` (input: preprocessed frames float [B, 3, S, S]) or `"state"` (input: float [B, S]).
    """

    modality: str
    width: int  # D
    grid: tuple[int, int]  # rows, columns of the token grid; N = rows * columns

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] (or float [B, S] for states) to what `forward` takes."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, N, D] without class tokens, and named intermediates, always with `pooled` [B, V]."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON-able: `{"name": ..., arguments...}`, enough for `encoders.artifact.build_encoder` to rebuild it."""
        ...


@runtime_checkable
class SequenceEncoder(Protocol):
    """Reads windows of what a robot saw, felt and did, an `nn.Module` of `modality` "sequence"."""

    modality: str
    width: int  # D
    context: int  # T at most
    frames: torch.nn.Module  # the image encoder that makes the latents of single frames
    latent: str  # which of its outputs they are

    def __call__(self, window: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, T, D], and named outputs, always with `pooled` [B, D], that of the last step.

        A window has, by the names of the data, frames uint8 [B, T, H, W, 3] or latents float [B, T, V], and vectors
        [B, T, ...] in units of the data, each with its `<key>_is_pad` where something is not there.
        """
        ...

    def config(self) -> dict[str, Any]:
        """As of `Encoder`."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """What makes vectors of instructions, a frozen `nn.Module`: the same text gives the same vector in any batch."""

    width: int  # E

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, E]."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON-able: what decides the vectors beside the weights; part of the fingerprint."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A pre-training method, an `nn.Module` holding its `encoder`."""

    encoder: torch.nn.Module

    def __call__(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and scalar metrics of one batch; all randomness comes from `generator`."""
        ...


@runtime_checkable
class ActionHead(Protocol):
    """What turns fused features into a chunk of actions, an `nn.Module` built with keyword arguments.

    Features are float [B, T, V]: T moments of observation, the present last, V values each. Actions are normalised,
    [B, H, A]; the first is the present one. `action_mask` bool, [A] or [B, A], True = this robot has the dimension:
    masked dimensions reach neither loss nor other dimensions, and come out as zero.
    """

    history: int  # T
    feature_dim: int  # V
    horizon: int  # H
    action_dim: int  # A
    bounded: bool  # takes and gives actions within [-1, 1]: normalise by range, not by standard deviation

    def loss(
        self,
        features: Tensor,
        actions: Tensor,
        pad_mask: Tensor,
        *,
        action_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and scalar metrics; `pad_mask` bool [B, H], True = a real step, the others do not matter.

        All randomness, dropout included, comes from `generator` if there is one.
        """
        ...

    def noise_shape(self, batch_size: int) -> tuple[int, ...] | None:
        """Shape of the standard normal noise, batch first, that determines a sample; None where nothing is drawn."""
        ...

    def sample(
        self,
        features: Tensor,
        *,
        action_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Normalised actions [B, H, A] from `noise`, or from noise that `generator` gives. In eval mode, usually."""
        ...


class Policy(Protocol):
    """A controller. Its state is passed, never hidden."""

    def initial(self, batch_size: int) -> Carry:
        """The carry at the start of `batch_size` episodes."""
        ...

    def act(self, carry: Carry, observation: Mapping[str, Tensor]) -> tuple[Carry, Tensor]:
        """The next carry and an action chunk [B, H, A] in the environment's units."""
        ...

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar training loss and scalar metrics; `generator` is the only source of randomness."""
        ...


class Expert(Protocol):
    """Behaviour that needs the simulator: scripted, random or mixed."""

    def reset(self, seed: int) -> None: ...

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """The action float32 [A] this behaviour takes, inside the action space."""
        ...


class Reporter(Protocol):
    """Where a loop shows its progress; the CLI's one draws bars, `SilentReporter` draws nothing."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Marks and times a phase of the run."""
        ...

    def track(self, items: Iterable[Item], *, total: int, description: str, done: int = 0) -> Iterator[Item]:
        """Yields the items, showing how many of `total` are done, `done` of them before the first."""
        ...

    def note(self, text: str) -> None:
        """One line for the user."""
        ...


LogMetrics = Callable[[Mapping[str, float | int | str]], None]
"""Appends one record to the run's metrics.jsonl."""
