"""`embodied data import`: another format's episodes into a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.cli.data import format_options, required_path
from embodied.cli.episode_numbers import episode_numbers
from embodied.cli.frames_reporter import FramesReporter
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import write_text
from embodied.core.run_folder import Stopwatch
from embodied.datasets.episode_source import EpisodeSource
from embodied.datasets.formats import open_source, option_defaults
from embodied.datasets.importing import ImportPlan, ImportReport, plan_import
from embodied.datasets.importing import run_import as fill_store
from embodied.datasets.key_casting import ImageOptions
from embodied.datasets.key_mapping import KeyMapping, mapping_yaml, revise
from embodied.datasets.key_proposal import hints, propose

_MAP_HEADER = """\
# Which key of the source becomes which name in the store; null leaves a key out.
# A list joins vectors end to end: observation.state: [joint_positions, gripper_width]
"""


class InterruptedImport(UserError):
    """The user stopped an import."""

    exit_code = 130


def run_import(config: DictConfig) -> int:
    """Import a dataset.

    Keys get this project's names by rules on name, dtype and shape, which are printed as YAML where they change
    anything. Change them with map='{foreign_key: name, other_key: null}', or edit the file that map_file= writes.
    An import that was stopped or killed goes on with the same command; a store never mixes sources or mappings.

    With robot=, a recording made with embodied robot record or deploy gives cameras, state and actions as that
    robot's policies have them, and an episode for each that a simulated robot had.
    """
    console = Console()
    path = required_path(config, "source", "what to import?")
    if config.on_error not in ("raise", "skip"):
        raise UsageError(f"on_error must be raise or skip, got {config.on_error}")
    images = ImageOptions(codec=str(config.images), layout=str(config.layout), float_images=config.float_images)
    options = format_options(config) | ({} if config.fps is None else {"fps": config.fps})
    to = None if config.dry_run else required_path(config, "to", "where to write the store?")
    name, source = open_recorded(config, path, options)
    if config.robot is not None:
        options = {**options, "robot": source.robot}
    with closing(source):
        console.print(
            f"[bold]{escape(path)}[/]: {name}, {len(source)} episodes, {source.fps:g} frames/s"
            + (f", robot {escape(source.robot)}" if source.robot else ""),
            highlight=False,
            soft_wrap=True,
        )
        mapping = choose_mapping(config, source, images, console)
        plan = plan_import(source, format=name, path=path, mapping=mapping, options=options, images=images)
        if to is None:
            console.print("dry run: nothing was imported")
            return 0
        return fill(config, source, plan, to, console)


def open_recorded(config: DictConfig, path: str, options: Mapping[str, Any]) -> tuple[str, EpisodeSource]:
    """The format's name and the source; with robot=, a recording in the names and units of that robot's policies."""
    if config.robot is None:
        return open_source(path, format=str(config.format), options=options)
    from embodied.datasets.importers import rosbag
    from embodied.real_robot.description.reading import load_robot
    from embodied.real_robot.recording.episodes import open_recording

    if config.format not in ("auto", "rosbag"):
        raise UsageError(f"robot= is for ROS recordings, not for format={config.format}")
    robot = load_robot(str(config.robot))
    takes = {**option_defaults(rosbag.open_source), **option_defaults(open_recording)}
    for option in options:
        if option not in takes:
            raise unknown_name("option of a robot's recording", option, takes)
    return "rosbag", open_recording(Path(path), robot, **options)


def choose_mapping(config: DictConfig, source: EpisodeSource, images: ImageOptions, console: Console) -> KeyMapping:
    """The proposal with the changes of map_file= and map=; printed where it changes anything."""
    mapping = propose(source.keys, images=images, unfamiliar=str(config.unfamiliar))
    file = None if config.map_file is None else Path(config.map_file).expanduser()
    if file is not None and file.exists():
        mapping = revise(mapping, source.keys, read_yaml(file.read_text(encoding="utf-8"), str(file)))
    if config.map is not None:
        mapping = revise(mapping, source.keys, read_yaml(str(config.map), "map"))
    text = mapping_yaml(mapping, source.keys, images)
    if config.dry_run or mapping.changes(source.keys, images):
        console.print("keys (change them with map= or map_file=):")
        console.print(
            "".join(f"  {line}\n" for line in text.splitlines()), end="", highlight=False, markup=False, soft_wrap=True
        )
    for hint in hints(source.keys, images):
        console.print(f"[yellow]note:[/] {escape(hint)}", highlight=False, soft_wrap=True)
    if file is not None and not file.exists():
        write_text(file, _MAP_HEADER + text)
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    return mapping


def read_yaml(text: str, where: str) -> Mapping[str, Any]:
    """The changes in a mapping's YAML.

    Raises:
        UsageError: it is no YAML, or no mapping.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{where} cannot be read as YAML ({reason}): write '{{foreign_key: name}}'") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{where} must be like '{{foreign_key: name}}', got {text.strip()[:80]!r}")
    return value


def fill(config: DictConfig, source: EpisodeSource, plan: ImportPlan, to: str, console: Console) -> int:
    """Import, and say what happened."""
    console.print(f"writes to [bold]{escape(to)}[/]", highlight=False, soft_wrap=True)
    numbers = None if config.episodes is None else episode_numbers(config.episodes, len(source))
    watch = Stopwatch()
    try:
        report = fill_store(
            source, plan, to, reporter=FramesReporter(console), episodes=numbers, on_error=config.on_error
        )
    except KeyboardInterrupt as error:
        raise InterruptedImport("interrupted; the same command goes on after the last whole episode") from error
    describe(report, to, watch.seconds, console)
    return 0


def describe(report: ImportReport, to: str, seconds: float, console: Console) -> None:
    """The closing lines."""
    added = report.store.episodes[len(report.store) - report.added :]
    frames = sum(info.length for info in added)
    rate = f" in {seconds:.1f} s ({frames / seconds:,.0f} frames/s)" if frames else ""
    before = f"; {report.present} were there already" if report.present else ""
    console.print(
        f"[green]✓[/] {report.added} episodes, {frames:,} frames{rate}{before}", highlight=False, soft_wrap=True
    )
    if report.skipped:
        console.print(
            f"[yellow]{len(report.skipped)} episodes were left out, see above[/]", highlight=False, soft_wrap=True
        )
    console.print(
        f"[bold]{escape(to)}[/]: {len(report.store)} episodes, {report.store.num_frames:,} frames; "
        f"embodied data info {escape(to)}",
        highlight=False,
        soft_wrap=True,
    )
