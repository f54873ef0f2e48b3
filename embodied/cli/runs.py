"""What verbs that make runs share: one run or a multirun, a new run folder or the one to resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from embodied.cli.config import compose_config, identity
from embodied.core.errors import UsageError
from embodied.core.run_folder import RunFolder, config_hash, latest_run, next_run_path

RunOnce = Callable[[DictConfig, Sequence[str]], int]


def run_verb(verb: str, arguments: Sequence[str], run_once: RunOnce, *, debug: bool) -> int:
    """One run with the settings in `arguments`; with `-m` one per combination of values."""
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    if len(overrides) < len(arguments):
        from embodied.cli.multirun import run_all

        return run_all(verb, overrides, run_once, debug=debug)
    return run_once(compose_config(verb, overrides), overrides)


def open_run(config: DictConfig, name: str, *, command: str) -> RunFolder:
    """The run folder: `run=`, else a new one under `root`; with `resume` the newest made with the same settings."""
    decisive = config_hash(identity(config))
    root = Path(config.root).expanduser()
    chosen = Path(config.run).expanduser() if config.run else None
    if config.resume:
        found = chosen or latest_run(root, name, decisive)
        if found is not None and found.exists():
            run = RunFolder.open(found)
            run.require(decisive)
            return run
    path = chosen or next_run_path(root, name)
    if path.exists() and any(path.iterdir()):
        raise UsageError(f"{path} exists already: continue it with resume=true, or choose another run=")
    return RunFolder.create(path, config_yaml=OmegaConf.to_yaml(config), config_hash=decisive, command=command)
