"""An inspection from the encoder to its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from embodied.bench.inspection.features import LOOKED_AT, flat_patches, raw_pixels, read_tokens, seconds_per_frame
from embodied.bench.inspection.health import complaints, health, patch_cosine
from embodied.bench.inspection.measure import checked_features, probe_table, why_no_probe
from embodied.bench.inspection.page import Facts, facts_record, inspection_page
from embodied.bench.inspection.panels import (
    attention_panel,
    colours_panel,
    correspondence_panel,
    neighbours_panel,
    reconstruction_panel,
)
from embodied.bench.inspection.samples import Part, spaced
from embodied.core.errors import UsageError, UserError
from embodied.core.files import write_json, write_text
from embodied.core.protocols import Reporter
from embodied.core.run_folder import versions
from embodied.encoders.artifact import fingerprint

PAGE, NUMBERS = "report.html", "numbers.json"


def inspect_encoder(
    encoder: nn.Module,
    spec: str,
    parts: Sequence[Part],
    folder: Path,
    *,
    target: str,
    command: str,
    reporter: Reporter,
) -> Facts:
    """Measure, draw, and write `report.html` and `numbers.json` to `folder`.

    Args:
        encoder: in eval mode, on its device.
        spec: how it was written.
        parts: the frames, at least two in all.
        folder: made if need be.
        target: the key of `Part.states`.
        command: that made this.
        reporter: shows progress.

    Raises:
        UsageError: the folder cannot be made.
        UserError: too few frames; or the features are no finite numbers, or the same for all frames.
    """
    if sum(map(len, parts)) < 2:
        raise UserError("one frame is not enough to judge an encoder by: give data with more of them")
    with reporter.phase("features"):
        features = checked_features(encoder, parts, spec)
    pooled = np.concatenate([each["pooled"] for each in features])
    some = parts[0].frames[spaced(len(parts[0]), LOOKED_AT)]
    reasons = [why_no_probe(part, target) for part in parts]
    with reporter.phase("probes"):
        probes = [
            probe_table(part, found)
            for part, found, reason in zip(parts, features, reasons, strict=True)
            if reason is None
        ]
    numbers = health(pooled)
    pixels = health(np.concatenate([raw_pixels(part.frames) for part in parts]))
    device = next((str(parameter.device) for parameter in encoder.parameters()), "cpu")
    facts = Facts(
        encoder=spec,
        fingerprint=fingerprint(encoder),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        width=int(encoder.width),  # type: ignore[arg-type]
        grid=encoder.grid,  # type: ignore[arg-type]
        sources=[(part.name, len(part)) for part in parts],
        health=numbers,
        pixel_health=pixels,
        patch_cosine=patch_cosine(read_tokens(encoder, some)),
        flat_patches=flat_patches(encoder, some),
        seconds=seconds_per_frame(encoder, some),
        device=device,
        target=target,
        probes=probes,
        no_probe={part.name: reason for part, reason in zip(parts, reasons, strict=True) if reason is not None},
        complaints=complaints(numbers, pixels),
    )
    with reporter.phase("pictures"):
        panels = [
            colours_panel(encoder, parts),
            neighbours_panel(parts, features),
            attention_panel(encoder, parts),
            correspondence_panel(encoder, parts),
            reconstruction_panel(reconstructions(spec)),
        ]
    make_folder(folder)
    write_text(folder / PAGE, inspection_page(facts, panels, command=command, versions=versions()))
    write_json(folder / NUMBERS, facts_record(facts))
    return facts


def make_folder(folder: Path) -> None:
    """For the page; raises UsageError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"to={folder} cannot be made ({error.strerror}): choose another folder") from error


def reconstructions(spec: str) -> Path | None:
    """The pictures in the run folder of an artifact `<run>/encoder`; None where there are none."""
    found = Path(spec).expanduser().resolve().parent / "plots" / "reconstructions.png"
    return found if Path(spec).expanduser().is_dir() and found.is_file() else None
