"""Weights and inputs that an oracle and a test draw alike, so that golden files hold outputs only."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 numbers that depend on nothing but the name and the shape."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of about the size that keeps activations near 1: by its inputs, or around 0.5 for vectors."""
    values = numbers(name, shape)
    if len(shape) < 2:
        return 0.3 * values + 0.5
    return values / np.sqrt(np.prod(shape[1:], dtype=np.float32))


def fill(tensors: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Overwrites torch tensors by the weights of their names, or of the names that `names` gives them.

    Raises:
        KeyError: `names` leaves a tensor out, or names one that is not there.
    """
    names = {name: name for name in tensors} if names is None else names
    if names.keys() != tensors.keys():
        raise KeyError(f"names that do not match: {sorted(names.keys() ^ tensors.keys())}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(weight(names[name], tuple(tensor.shape))))


def tensor(name: str, *shape: int) -> torch.Tensor:
    """`numbers` for torch."""
    return torch.from_numpy(numbers(name, shape))


def renamed(module: torch.nn.Module, rules: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Our name of each of its parameters: the rules, pattern and replacement, applied one after the other."""
    names = {}
    for name, _ in module.named_parameters():
        names[name] = name
        for pattern, replacement in rules:
            names[name] = re.sub(pattern, replacement, names[name])
    return names


@contextmanager
def drawing(**values: torch.Tensor) -> Iterator[None]:
    """Inside, functions of torch that return these, whatever they are asked."""
    kept = {name: getattr(torch, name) for name in values}
    for name, value in values.items():
        setattr(torch, name, lambda *_, value=value, **__: value)
    yield
    for name, function in kept.items():
        setattr(torch, name, function)


def save(path: str, golden: Mapping[str, Any]) -> None:
    """Writes tensors and numbers as a compressed .npz."""
    arrays = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in golden.items()}
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in arrays.items()})
