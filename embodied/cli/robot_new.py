"""`embodied robot new`: the description of a robot, begun from one that comes along."""

from __future__ import annotations

import json
import re
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.cli.data import required_path
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.real_robot.description.reading import shipped_robot, shipped_robots

SUFFIXES = (".yaml", ".yml")


def run_new(config: DictConfig) -> int:
    """Write a description that comes along, with its comments, as the beginning of one's own.

    Only its name is another: that of the file. docs/robot.md says what each section means. A file that exists is never
    replaced.
    """
    templates = shipped_robots()
    if config.template is None:
        raise UsageError(
            f"which template? one of {', '.join(templates)}: embodied robot new {templates[0]} to=mine.yaml"
        )
    template = str(config.template)
    if template not in templates:
        raise unknown_name("template", template, templates)
    path = Path(required_path(config, "to", "which file to write?"))
    if path.suffix not in SUFFIXES:
        raise UsageError(f"to must end in .yaml, got {path}")
    write_new(template, path)
    Console().print(
        f"[green]✓[/] [bold]{escape(str(path))}[/], as {template}: change what differs from your robot, then "
        f"embodied robot check {escape(str(path))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def write_new(template: str, path: Path) -> None:
    """Write the template to `path`, with the name of the file as the robot's.

    Raises:
        UsageError: there is something at `path`.
        UserError: it cannot be written.
    """
    text = shipped_robot(template).read_text(encoding="utf-8")
    name = f"name: {json.dumps(path.stem, ensure_ascii=False)}"  # quoted, since a file may be called 7.yaml
    text, count = re.subn(rf"^name: {template}$", lambda found: name, text, flags=re.MULTILINE)
    assert count == 1, template
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:  # x: not over what somebody else writes meanwhile, either
            file.write(
                f"# From the template {template}: change what differs, then `embodied robot check {path.name}`.\n"
            )
            file.write(text)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise UsageError(f"{path} exists already: choose another name, or delete it") from error
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
