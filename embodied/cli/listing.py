"""List what can be named in a command.

Kinds: envs, tasks, cameras, encoders, text_encoders, objectives, policies, heads, necks, experts, shifts, formats,
suites.
--json is for machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.cli.config import groups, setting_file
from embodied.core.errors import UsageError, unknown_name
from embodied.envs.experts.behaviours import expert_names
from embodied.envs.registry import load_suite, suite_names

Listing = dict[str, str]  # name -> one line


def first_comment(group: str) -> Listing:
    """Options of a configuration group, described by the first line of their yaml that is not for Hydra."""
    found = {}
    for option in groups()[group]:
        lines = setting_file(group, option).read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if line and not line.startswith("# @"))
        found[option] = first.removeprefix("#").strip()
    return found


def tasks() -> Listing:
    found: Listing = {}
    for name in suite_names():
        suite = load_suite(name)
        found |= {f"env={name} task={task}": text for task, text in suite.instructions.items()}
        found |= {
            f"env={name} task={group}": f"one of {len(names)} tasks in every episode: {', '.join(names)}"
            for group, names in suite.groups.items()
        }
    return found


def cameras() -> Listing:
    found: dict[str, list[str]] = {}
    for name in suite_names():
        for camera in load_suite(name).cameras:
            found.setdefault(camera, []).append(name)
    return {camera: ", ".join(names) for camera, names in found.items()}


def encoders() -> Listing:
    from embodied.encoders.spec import BUILTIN, LAYOUTS

    return {
        **BUILTIN,
        "path=<folder>": "an encoder artifact, as embodied pretrain writes it",
        "hf:<folder or repo>": "any vision model of transformers (extra: hf)",
        "timm:<name>": "any model of timm (extra: timm)",
        **{f"{layout}:<file>": f"a file of released weights: {what}" for layout, what in LAYOUTS.items()},
        "<any of these>@3+6": "its patch tokens after layers 3 and 6",
    }


def heads() -> Listing:
    from embodied.policies.head_kinds import head_kinds

    return {name: kind.text for name, kind in head_kinds().items()}


def necks() -> Listing:
    from embodied.policies.necks.registry import necks as found

    return {name: (neck.__doc__ or "").splitlines()[0] for name, neck in found().items()}


def text_encoders() -> Listing:
    from embodied.encoders.text.load import BUILTIN

    return {**BUILTIN, "hf:<folder or repo>": "any text model of transformers: CLIP, SigLIP, T5, BERT-like (extra: hf)"}


def experts() -> Listing:
    found: dict[str, list[str]] = {}
    for name in suite_names():
        for kind, text in expert_names(load_suite(name)).items():
            found.setdefault(kind, []).append(f"{name}: {text}")
    return {kind: "; ".join(texts) for kind, texts in found.items()}


def shifts() -> Listing:
    from embodied.envs.visuals.draw import SHIFTS

    return dict(SHIFTS)


def formats() -> Listing:
    from embodied.datasets import formats as found

    both = {direction: found.formats(direction) for direction in found.DIRECTIONS}
    names = dict.fromkeys(name for listed in both.values() for name in sorted(listed))
    return {
        name: f"{' and '.join(d for d in both if name in both[d])}: "
        + next(listed[name].help for listed in both.values() if name in listed)
        for name in names
    }


def format_table(direction: Literal["import", "export"]) -> Table:
    """The formats of `embodied data import` or `export`, with their options and defaults."""
    from embodied.datasets import formats as found

    table = Table(title="formats", title_justify="left", title_style="bold", box=None, show_header=False)
    for name, format in found.formats(direction).items():
        options = ", ".join(found.described_options(direction, name))
        table.add_row(
            f"  [cyan]{name}[/]", escape(format.help) + (f"\n[dim]options: {escape(options)}[/]" if options else "")
        )
    return table


KINDS: dict[str, Callable[[], Listing]] = {
    "envs": lambda: first_comment("env"),
    "tasks": tasks,
    "cameras": cameras,
    "encoders": encoders,
    "text_encoders": text_encoders,
    "objectives": lambda: first_comment("objective"),
    "policies": lambda: first_comment("policy"),
    "heads": heads,
    "necks": necks,
    "experts": experts,
    "shifts": shifts,
    "formats": formats,
    "suites": lambda: first_comment("suite"),
}


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied list`."""
    as_json = "--json" in arguments
    kinds = [argument for argument in arguments if argument != "--json"]
    for kind in kinds:
        if kind.startswith("-"):
            raise UsageError(f"unknown option {kind!r}: embodied list takes --json")
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
    found = {kind: KINDS[kind]() for kind in kinds or KINDS if kinds or kind != "tasks"}
    if as_json:
        print(json.dumps(found[kinds[0]] if len(kinds) == 1 else found, indent=2))
        return 0
    console = Console()
    for kind, entries in found.items():
        table = Table(title=kind, title_justify="left", title_style="bold", box=None, show_header=False)
        for name, text in entries.items():
            table.add_row(f"  [cyan]{escape(name)}[/]", escape(text))
        console.print(table)
    if not kinds:
        console.print("[bold]tasks[/]\n  embodied list tasks shows those of every suite", highlight=False)
    return 0
