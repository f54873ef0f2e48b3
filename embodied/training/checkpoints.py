"""Names of the files that a controller's training leaves, and what of them to go on from."""

from __future__ import annotations

from pathlib import Path

from embodied.core.errors import UsageError


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the policy of a step lies."""
    return folder / f"step_{step:06d}.safetensors"


def state_path(folder: Path, step: int) -> Path:
    """Where the state lies that a training continues from."""
    return folder / f"state_{step:06d}.safetensors"


def checkpoint_steps(steps: int, checkpoints: int) -> list[int]:
    """`checkpoints` steps at even distances, the last of them `steps`; step 0 alone where nothing is trained."""
    if steps == 0:
        return [0]
    if not 1 <= checkpoints <= steps:
        raise UsageError(f"train.checkpoints must be in [1, train.steps={steps}], got {checkpoints}")
    return [round(steps * (number + 1) / checkpoints) for number in range(checkpoints)]


def states(folder: Path) -> list[Path]:
    """The states there are, by step: numbers of more than six digits do not sort by name."""
    return sorted(folder.glob("state_*.safetensors"), key=step_of)


def step_of(path: Path) -> int:
    """The step in the name of a state or policy file."""
    return int(path.stem.rpartition("_")[2])


def resume_step(folder: Path) -> int:
    """The step that a training would continue from; 0 at the start."""
    found = states(folder)
    return step_of(found[-1]) if found else 0


def drop_old_states(folder: Path) -> None:
    """Keep the newest state only."""
    for old in states(folder)[:-1]:
        old.unlink()
