"""`-m`: one run per combination of values, through Hydra's launchers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from embodied.cli.config import CONFIG_MODULE, compose_config, normalize, parse
from embodied.cli.main import guarded
from embodied.cli.runs import RunOnce


def run_all(verb: str, overrides: Sequence[str], run_once: RunOnce, *, debug: bool) -> int:
    """Run every combination; a failure is reported and the others go on.

    The launcher is Hydra's (`hydra/launcher=...`), one run after the other by default.

    Returns:
        0 when all succeeded, else the exit code of the last failure.
    """
    overrides = normalize(overrides)
    for combination in combinations(overrides):
        compose_config(verb, combination)  # a misspelling in the last combination shows before the first run
    codes: list[int] = []

    def task(config: DictConfig) -> None:
        chosen = [str(item) for item in HydraConfig.get().overrides.task]
        OmegaConf.resolve(config)
        codes.append(guarded(lambda: run_once(config, chosen), debug=debug))

    arguments = sys.argv
    sys.argv = ["embodied", *overrides, "--multirun"]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=verb)(task)()
    finally:
        sys.argv = arguments
    return max(codes, default=0)


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as single overrides; Hydra's own settings are left out."""
    choices = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        if override.key_or_group.startswith("hydra"):
            continue
        if override.is_sweep_override():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([text])
    return [list(combination) for combination in product(*choices)]
