"""`sequence.start=<run>` of `embodied pretrain objective=gr1`: the same weights on other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, STATE, image_key
from embodied.encoders.artifact import fingerprint
from embodied.models.sequence.gr1 import FUTURE
from embodied.models.sequence.gr1_stems import module_name
from embodied.objectives.video.gr1 import GR1

EXPORT = "gr1.safetensors"  # in the run folder: what was trained, the decoder of frames with it
FROZEN = "encoder.frames."
SCALES = {STATE: "encoder.sequence.state_scale.mean", ACTION: "encoder.sequence.action_head.scale.mean"}


def export(objective: GR1, path: Path) -> None:
    """Write all weights but those of the frozen image encoder, which is named by its fingerprint."""
    encoder = objective.encoder
    tensors = {name: tensor for name, tensor in objective.state_dict().items() if not name.startswith(FROZEN)}
    described = {
        "frames": fingerprint(encoder.frames),
        "text": encoder.text,
        "cameras": list(encoder.cameras),
    }
    save_checkpoint(path, tensors, described)


def start_from(config: DictConfig, objective: GR1, *, note: Callable[[str], None]) -> list[str]:
    """Give a fresh objective the weights of an earlier run, as far as they fit.

    Args:
        config: of the verb: `sequence.start`, the run folder, and `sequence.start_views`, its camera for each of ours.
        objective: changed in place.
        note: told what starts anew.

    Returns:
        The keys whose scale came with the weights.

    Raises:
        UsageError: images or instructions were encoded by other encoders, or a camera is unknown.
        UserError: the run holds no such weights.
    """
    if config.sequence.start is None:
        return []
    folder = Path(str(config.sequence.start)).expanduser()
    path = folder / EXPORT
    if not path.is_file():
        raise UserError(
            f"sequence.start={folder} holds no {EXPORT}: give the folder of a finished run of objective=gr1"
        )
    tensors, described = load_checkpoint(path)
    _check_encoders(described, objective, folder)
    views = {str(ours): str(theirs) for ours, theirs in (config.sequence.start_views or {}).items()}
    renamed = _renamed(tensors, objective.encoder.cameras, described["cameras"], views)
    ours = objective.state_dict()
    fitting = {name: tensor for name, tensor in renamed.items() if name in ours and ours[name].shape == tensor.shape}
    trained = dict(objective.named_parameters())
    fresh = [name for name, weight in trained.items() if weight.requires_grad and name not in fitting]
    if len(fresh) == sum(weight.requires_grad for weight in trained.values()):
        raise UsageError(f"sequence.start={folder}: none of its weights fits, choose the same encoder.size and width")
    objective.load_state_dict(fitting, strict=False)
    parts = sorted({_part(name) for name in fresh})
    note(f"started from {folder}; anew: {', '.join(parts) if parts else 'nothing'}")
    return [key for key, name in SCALES.items() if name in fitting]


def _check_encoders(described: Mapping[str, Any], objective: GR1, folder: Path) -> None:
    encoder = objective.encoder
    if described["frames"] != fingerprint(encoder.frames):
        raise UsageError(
            f"sequence.start={folder} was trained on another image encoder (fingerprint "
            f"{str(described['frames'])[:12]}): give the same sequence.image_encoder"
        )
    theirs = described["text"]
    if encoder.text is not None and theirs is not None and theirs["fingerprint"] != encoder.text["fingerprint"]:
        raise UsageError(
            f"sequence.start={folder} was trained with another text encoder, {theirs['spec']}: give the same "
            "sequence.text_encoder"
        )


def _renamed(
    tensors: Mapping[str, Tensor], ours: Sequence[str], theirs: Sequence[str], views: Mapping[str, str]
) -> dict[str, Tensor]:
    """Their weights by our names: a camera's parts by the name of ours that starts from it."""
    for name, known in (*((name, ours) for name in views), *((name, theirs) for name in views.values())):
        if name not in known:
            raise UsageError(f"sequence.start_views: no camera {name!r}, expected some of {', '.join(known)}")
    chosen = {camera: views.get(camera, camera) for camera in ours}
    if not views and len(ours) == len(theirs) == 1:
        chosen = {ours[0]: theirs[0]}
    own = {name for name in tensors for camera in theirs if _suffix(name, camera) is not None}
    found = {name: tensor for name, tensor in tensors.items() if name not in own}
    for camera, source in chosen.items():
        for name, tensor in tensors.items():
            if (rest := _suffix(name, source)) is not None:
                found[_prefixes(camera)[rest[0]] + rest[1]] = tensor
    return found


def _prefixes(camera: str) -> tuple[str, ...]:
    """What the names of weights begin with that cameras do not share."""
    name = module_name(camera)
    kinds = [f"encoder.sequence.stems.{kind}.{name}" for kind in ("patches", "frames")]
    return (*kinds, f"encoder.sequence.queries.{module_name(FUTURE + image_key(camera))}")


def _suffix(name: str, camera: str) -> tuple[int, str] | None:
    """Which of a camera's prefixes a name has, and what follows it; None where it is another's."""
    for number, prefix in enumerate(_prefixes(camera)):
        rest = name.removeprefix(prefix)
        if rest != name and (not rest or rest.startswith(".")):
            return number, rest
    return None


def _part(name: str) -> str:
    """`encoder.sequence.action_head.arm.weight` -> `action_head`."""
    parts = name.removeprefix("encoder.sequence.").split(".")
    return ".".join(parts[:2]) if parts[0] in ("stems", "queries") else parts[0]
