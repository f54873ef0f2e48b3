"""How an encoder is written in a command or a suite. No torch in here: finished benchmarks are shown without it.

default | random | pixels | state | proprioception | scratch     built in
runs/my-run/encoder                                              a folder with an artifact
hf:facebook/dinov2-small | hf:folder                             a model of transformers
timm:vit_small_patch16_224.augreg_in21k                          a model of timm
weights.pth | mvp:weights.pth                                    a file of released weights, with its layout
<any of these>@3+6                                               its patch tokens after layers 3 and 6
"""

from __future__ import annotations

import re
from pathlib import Path

from embodied.core.errors import unknown_name

BUILTIN = {
    "default": "small ViT, masked autoencoding on Meta-World frames and photographs; shipped with the package",
    "random": "the default's architecture with random weights",
    "pixels": "16x16 raw pixels",
    "state": "privileged simulator state: the oracle, no encoder",
    "proprioception": "nothing: the controller has the robot's own state and no picture",
    "scratch": "small conv net trained along with the controller, with random shifts (learning from scratch)",
}
LAYOUTS = {
    "mae": "MAE's and timm's vision transformers",
    "mvp": "the same with 12 heads in a ViT-S",
    "vc1": "VC-1, which is MAE's",
    "dinov2": "DINOv2's own files, with registers or without",
    "r3m": "R3M's residual networks",
    "resnet": "torchvision's residual networks",
}
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")  # of files of weights
_CHOICE = re.compile(r"(.+)@(\d+(?:\+\d+)*)")


def split_layers(spec: str) -> tuple[str, list[int]]:
    """`default@3+6` as `default` and [3, 6]; no numbers where none are chosen, or the whole is a file or folder."""
    found = _CHOICE.fullmatch(spec)
    if found is None or Path(spec).expanduser().exists():
        return spec, []
    return found[1], [int(number) for number in found[2].split("+")]


def split_layout(spec: str) -> tuple[str | None, str]:
    """`mvp:weights.pth` as `mvp` and `weights.pth`; None where no layout is said."""
    layout, _, file = spec.partition(":")
    return (layout, file) if layout in LAYOUTS and file else (None, spec)


def absolute_spec(spec: str) -> str:
    """The same encoder from any working folder: files and folders become absolute.

    Raises:
        UsageError: it is no built-in name, and does not look like a folder, a file of weights, `hf:` or `timm:`.
    """
    name, layers = split_layers(spec)
    if layers:
        return f"{absolute_spec(name)}@{'+'.join(map(str, layers))}"
    if spec in BUILTIN or spec.startswith("timm:"):
        return spec
    if spec.startswith("hf:"):
        folder = Path(spec.removeprefix("hf:")).expanduser()
        return f"hf:{folder.resolve()}" if folder.is_dir() else spec
    layout, file = split_layout(spec)
    path = Path(file).expanduser()
    if layout is not None:
        return f"{layout}:{path.resolve()}"
    if path.is_dir() or "/" in file or file.startswith((".", "~")) or file.endswith(SUFFIXES):
        return str(path.resolve())
    raise unknown_name("encoder", spec, BUILTIN)
