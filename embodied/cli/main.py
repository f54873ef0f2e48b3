"""The `embodied` command: finds the verb, runs it, and turns errors into one message."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.core.allocator import keep_freed_memory
from embodied.core.errors import UserError, unknown_name
from embodied.core.extensions import check_extensions

FIXABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


@dataclass(frozen=True)
class Verb:
    """A sub-command: the module `embodied.cli.<module>` has `main(arguments, *, debug) -> exit code`."""

    module: str
    help: str
    example: str
    config: str | None = None  # the yaml in embodied/conf whose settings it takes
    own_help: bool = False  # the module prints its help itself


VERBS = {
    "train": Verb(
        "train", "Train a controller on an encoder and evaluate it.", "env=metaworld task=hammer-v3", "train"
    ),
    "evaluate": Verb("evaluate", "Evaluate a trained run again.", "run=runs/... episodes=100", "evaluate"),
    "export": Verb("export", "Export a trained policy as a graph.", "run=runs/... format=onnx", "export"),
    "bench": Verb(
        "bench", "Compare encoders under one protocol.", "suite=quick encoders='[default]'", "bench", own_help=True
    ),
    "replicate": Verb("replicate", "Test a paper's headline claim again.", "mvp", "replicate", own_help=True),
    "collect": Verb("collect", "Collect episodes into a store.", "env=metaworld task=hammer-v3 episodes=25", "collect"),
    "pretrain": Verb("pretrain", "Pre-train an encoder.", "objective=mae data=path/to/images", "pretrain"),
    "inspect": Verb(
        "inspect", "Make a page to judge an encoder by.", "encoder=runs/.../encoder data=path/to/store", "inspect"
    ),
    "predict": Verb(
        "predict", "Look at what a video model predicts.", "run=runs/pretrain-maskvit-seed0 episodes=16", "predict"
    ),
    "convert": Verb(
        "convert", "Convert an encoder to another format.", "encoder=runs/... to=transformers out=folder", "convert"
    ),
    "data": Verb(
        "data",
        "Import, look at, check, edit and export datasets.",
        "import path/to/dataset to=stores/mine",
        own_help=True,
    ),
    "deploy": Verb("deploy", "Run a trained policy on a robot, safely.", "run=runs/... robot=sim live=true", "deploy"),
    "serve": Verb(
        "serve", "Serve a trained policy to a robot elsewhere.", "run=runs/... token_file=robot.token", "serve"
    ),
    "robot": Verb("robot", "Check, record, replay and simulate a robot.", "check robot=my_arm.yaml", own_help=True),
    "list": Verb("listing", "List envs, tasks, encoders, objectives, policies, ...", "tasks --json"),
    "doctor": Verb("doctor", "Check this machine and say how to fix it.", "--json"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script and of `python -m embodied`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if debug:
        logging.getLogger("embodied").setLevel(logging.DEBUG)
    return guarded(lambda: dispatch(arguments, debug=debug), debug=debug)


def dispatch(arguments: Sequence[str], *, debug: bool) -> int:
    """Run the verb that the arguments name."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print_help()
        return 0
    if arguments[0] in ("--version", "-V"):
        import embodied

        Console().print(f"embodied {embodied.__version__}", highlight=False)
        return 0
    name, rest = arguments[0], list(arguments[1:])
    if name not in VERBS:
        raise unknown_name("command", name, VERBS)
    if ("--help" in rest or "-h" in rest) and not VERBS[name].own_help:
        print_verb_help(name)
        return 0
    check_extensions()
    keep_freed_memory()
    module = import_module(f"embodied.cli.{VERBS[name].module}")
    code = int(module.main(rest, debug=debug))
    leave_process_group()
    return code


def leave_process_group() -> None:
    """Of several processes that a launcher started, let each end its threads before it ends itself.

    torch asks for it ("Shutdown" in the documentation of torch.distributed): a process may hang at its end otherwise.
    After an error nothing is waited for: the launcher ends the others.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def guarded(action: Callable[[], int], *, debug: bool) -> int:
    """Run `action`; what goes wrong becomes a message on stderr and an exit code (2 usage, 1 failure)."""
    console = Console(stderr=True)
    try:
        return action()
    except BrokenPipeError:
        return 141
    except (Exception, KeyboardInterrupt) as error:
        message, code = explain(error)
        if debug:
            console.print_exception()
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return code


def explain(error: BaseException) -> tuple[str, int]:
    """What to tell the user about an error, and the exit code."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command with resume=true goes on", 130
    if isinstance(error, OSError) and error.errno in FIXABLE:
        where = f" at {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}: free some space or choose another place (root=, cache=)", 1
    return f"{type(error).__name__}: {error}\nThis is a bug in embodied; --debug shows where.", 1


def print_help() -> None:
    """`embodied --help`."""
    console = Console()
    console.print("[bold]embodied[/]: pre-train encoders, freeze them, control with them.\n", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, verb in VERBS.items():
        table.add_row(f"[bold cyan]{name}[/]", verb.help, f"[dim]embodied {name} {escape(verb.example)}[/]")
    console.print(table)
    console.print(
        "\nSettings are [cyan]name=value[/]; [cyan]-m[/] with several values (seed=0,1,2) makes one run each."
    )
    console.print("[cyan]embodied <command> --help[/] shows its settings; [cyan]--debug[/] shows tracebacks.")


def print_verb_help(name: str) -> None:
    """`embodied <verb> --help`: the settings with their comments, as they stand in the yaml files."""
    verb, console = VERBS[name], Console()
    module = import_module(f"embodied.cli.{verb.module}")
    console.print(f"[bold]embodied {name}[/]: {verb.help}\n", highlight=False)
    console.print(f"  embodied {name} {verb.example}\n", highlight=False, markup=False)
    if module.__doc__ and "\n" in module.__doc__.strip():
        console.print(module.__doc__.strip().split("\n", 1)[1].strip() + "\n", highlight=False, markup=False)
    if verb.config is not None:
        print_settings(console, verb.config)


def print_settings(console: Console, config: str) -> None:
    """The settings in a verb's yaml and in those of its groups, with their comments."""
    from embodied.cli.config import groups

    for title, path in config_files(config, groups()):
        console.print(f"[bold]{title}[/]", highlight=False)
        text = files("embodied.conf").joinpath(path).read_text(encoding="utf-8")
        console.print("\n".join("  " + line for line in settings_text(text)), highlight=False, markup=False)


def config_files(config: str, groups: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Titles and paths of the yaml files behind a verb: its own, then one per option of each group it uses."""
    text = files("embodied.conf").joinpath(f"{config}.yaml").read_text(encoding="utf-8")
    found = [("Settings", f"{config}.yaml")]
    for group, options in groups.items():
        if f"- {group}: " in text:
            found += [(f"{group}={option}  ({group}.<name>=...)", f"{group}/{option}.yaml") for option in options]
    return found


def settings_text(text: str) -> list[str]:
    """The lines of a yaml file that a user needs: without its defaults list and `_target_`s."""
    lines, inside_defaults = [], False
    for line in text.splitlines():
        if line.startswith("defaults:"):
            inside_defaults = True
        elif inside_defaults and line.startswith("  "):
            continue
        else:
            inside_defaults = False
            if not line.lstrip().startswith(("_target_", "# @package")):
                lines.append(line)
    return lines
