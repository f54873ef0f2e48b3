"""Classes that settings name."""

from __future__ import annotations

import logging
from typing import Any

import hydra
from omegaconf import DictConfig

from embodied.core.errors import UsageError


def objective_class(config: DictConfig) -> type[Any]:
    """What `objective._target_` names.

    Raises:
        UsageError: there is no such class; says why.
    """
    target = str(config.objective._target_)
    spoken = logging.getLogger("hydra.utils")
    before = spoken.disabled
    spoken.disabled = True  # it would say the same as the error, three times
    try:
        return hydra.utils.get_class(target)
    except Exception as error:
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {str(cause).splitlines()[0]}"
        raise UsageError(f"objective._target_={target}: {reason}") from error
    finally:
        spoken.disabled = before
