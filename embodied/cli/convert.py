"""Convert an encoder between formats: to an artifact of this project, or to a folder that transformers loads.

What is written is loaded again and compared with the original on frames of noise; where the patch tokens differ by more
than rounding, nothing is kept. to=transformers takes the first model type that can hold the encoder; a model type
(vit_mae, dinov2, ...) asks for that one. Released files of weights and models of the hub become artifacts that need no
transformers, whose layers can be read and which training can go on from.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from embodied.cli.config import compose_config
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import atomic_path, write_text
from embodied.encoders.artifact import CARD, load_artifact, save_encoder
from embodied.encoders.hf_convert import format_names, from_hf, to_hf
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import VECTORS
from embodied.encoders.spec import BUILTIN, split_layers

ARTIFACT, TRANSFORMERS = "embodied", "transformers"
ROUNDING = 1e-3  # of the largest value: float32 through some dozens of layers stays a hundred times below
_HUB = "hf:"


@dataclass(frozen=True)
class Difference:
    """How far one output is from the original's.

    Attributes:
        output: `patch tokens`, `pooled` or `cls`.
        largest: absolute difference.
        size: the original's largest absolute value.
    """

    output: str
    largest: float
    size: float

    @property
    def is_rounding(self) -> bool:
        """Whether it is the same but for rounding; not a number is not."""
        return self.largest <= ROUNDING * self.size


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied convert`."""
    config = compose_config("convert", arguments)
    names = [ARTIFACT, TRANSFORMERS, *format_names()]
    if config.to not in names:
        raise unknown_name("format", str(config.to), names)
    out = output_folder(config)
    spec = within_a_run(str(config.encoder))
    original = seeing_encoder(spec, seed=int(config.seed))
    encoder = own_form(spec, original)
    command = shlex.join(["embodied", "convert", *arguments])
    with atomic_path(out) as temporary:
        kind, again = written(encoder, temporary, to=str(config.to))
        found = differences(original, again, seed=int(config.seed))
        if not found[0].is_rounding:
            raise UserError(
                f"{kind} gives other patch tokens than {spec} (by {found[0].largest:.1e}, of values up to "
                f"{found[0].size:.1f}): nothing was written"
            )
        write_text(temporary / CARD, card(spec, kind, found, command=command))
    show(spec, kind, out, found)
    return 0


def output_folder(config: DictConfig) -> Path:
    """Where to write, which must not exist.

    Raises:
        UsageError: no folder is given.
        UserError: it exists.
    """
    if not config.out:
        raise UsageError("where to write? give out=<folder>")
    out = Path(str(config.out)).expanduser()
    if out.exists():
        raise UserError(f"{out} exists already: choose another folder, or delete it first")
    return out


def within_a_run(spec: str) -> str:
    """The artifact in a run folder of `embodied pretrain`, where the run is named; else the same."""
    name, layers = split_layers(spec)
    inner = Path(name).expanduser() / "encoder"
    if name in BUILTIN or not inner.is_dir():
        return spec
    return f"{inner}@{'+'.join(map(str, layers))}" if layers else str(inner)


def seeing_encoder(spec: str, *, seed: int) -> nn.Module:
    """The encoder as every command takes it, in eval mode.

    Raises:
        UsageError: it looks at no single frames, or has no weights of its own.
        UserError: it is one of timm's, or cannot be loaded.
    """
    if spec.startswith("timm:"):
        raise UserError(
            f"{spec} is a model of timm, which is not converted: save its state dict as a file, and give mae:<file> or "
            "dinov2:<file>, whose layouts are timm's"
        )
    if spec in VECTORS or spec == "scratch":
        raise UsageError(f"encoder={spec} has no trained weights to convert: choose one that does")
    encoder = load_encoder(spec, seed=seed).eval()
    if encoder.modality != "image":
        raise UsageError(f"encoder={spec} reads a {encoder.modality} and no single pictures: no format here holds it")
    return encoder


def own_form(spec: str, original: nn.Module) -> nn.Module:
    """The encoder without the library that it came with: a model of transformers as our vision transformer.

    Raises:
        UserError: it has no form of ours.
    """
    name, layers = split_layers(spec)
    if not name.startswith(_HUB):
        return original
    encoder = from_hf(name.removeprefix(_HUB))
    return (LayersEncoder(encoder=encoder, layers=layers) if layers else encoder).eval()


def written(encoder: nn.Module, folder: Path, *, to: str) -> tuple[str, nn.Module]:
    """Write the encoder; the format that was written, and the encoder that is loaded from there."""
    if to == ARTIFACT:
        save_encoder(encoder, folder, card="")
        return "an artifact", load_artifact(folder).eval()
    kind = to_hf(encoder, folder, model_type=None if to == TRANSFORMERS else to)
    return kind, load_encoder(f"{_HUB}{folder}")


@torch.no_grad()
def differences(original: nn.Module, other: nn.Module, *, seed: int) -> list[Difference]:
    """What both make of the same frames, patch tokens first.

    Raises:
        UserError: they have different numbers of tokens or widths.
    """
    frames = noise_frames(original, seed=seed)
    (tokens, out), (tokens_again, out_again) = (
        encoder(encoder.preprocess(frames))  # type: ignore[operator]
        for encoder in (original, other)
    )
    if tokens.shape != tokens_again.shape:
        raise UserError(f"patch tokens are {list(tokens_again.shape)}, were {list(tokens.shape)}: nothing was written")
    pairs = {"patch tokens": (tokens, tokens_again)}
    pairs |= {name: (out[name], out_again[name]) for name in ("pooled", "cls") if name in out and name in out_again}
    return [
        Difference(name, float((one - two).abs().max()), float(one.abs().max())) for name, (one, two) in pairs.items()
    ]


def noise_frames(encoder: nn.Module, *, seed: int) -> torch.Tensor:
    """Two frames uint8 [2, H, W, 3], noise and a smooth one, of the size that the encoder takes where it says one."""
    height, width = getattr(getattr(encoder, "normalize", None), "size", (128, 128))
    generator = torch.Generator().manual_seed(seed)
    sharp = torch.rand(1, 3, height, width, generator=generator)
    smooth = nn.functional.interpolate(sharp[..., ::16, ::16], size=(height, width), mode="bilinear")
    return (torch.cat([sharp, smooth]) * 255).to(torch.uint8).permute(0, 2, 3, 1)


def card(spec: str, kind: str, found: Sequence[Difference], *, command: str) -> str:
    """README.md of the folder."""
    lines = [f"- {each.output}: {each.largest:.1e} (of values up to {each.size:.1f})" for each in found]
    return "\n".join(
        [
            f"# {spec} as {kind}",
            "",
            "Made by",
            "",
            f"    {command}",
            "",
            "Largest difference to the original on two frames of noise:",
            "",
            *lines,
            "",
        ]
    )


def show(spec: str, kind: str, out: Path, found: Sequence[Difference]) -> None:
    """The comparison, and how to use what was written."""
    console = Console()
    table = Table(title=escape(f"{spec} as {kind}"), title_justify="left")
    for name in ("output", "largest difference", "of values up to"):
        table.add_column(name)
    for each in found:
        table.add_row(
            each.output,
            f"{each.largest:.1e}" + ("" if each.is_rounding else " (another thing in this format)"),
            f"{each.size:.1f}",
        )
    console.print(table)
    use = f"encoder=path={out}" if kind == "an artifact" else f"encoder=hf:{out}, or AutoModel.from_pretrained('{out}')"
    console.print(escape(f"use it: {use}"), highlight=False, soft_wrap=True)
