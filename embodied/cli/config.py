"""Composing a verb's configuration, with errors that name the setting and its neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import hydra
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embodied.core.errors import UsageError, unknown_name
from embodied.core.extensions import extension_conf

CONFIG_MODULE = "embodied.conf"
NOT_PART_OF_THE_RUN = (  # settings that change no result
    *("resume", "run", "root", "workers", "cache", "cache_gb"),
    *("probe", "probe_every", "probe_frames", "probe_target"),
    *("holdout_data", "holdout_every", "holdout_frames", "panels_every", "tracker"),
)
LATER = (
    "curate_entropy",
    "curate_loss",
    "data",
    "holdout",
    "mixing",
    "policy.action_frame",
    *("train.warmup_steps", "train.clip", "train.precision"),
)  # settings that did not exist at first: at null a run is the one it was
MAY_BE_NULL = ("cache_gb", "policy.bottleneck", "policy.value_clip")
"""Settings of `embodied train` whose null says something though their default is a value."""


def groups() -> dict[str, list[str]]:
    """Configuration groups and their options, `{"env": ["metaworld"], ...}`."""
    found: dict[str, set[str]] = {}
    for folder in (folder for root in (files(CONFIG_MODULE), *extension_conf()) for folder in root.iterdir()):
        if folder.is_dir() and folder.name not in ("__pycache__", "hydra", "replicate"):
            options = (entry.name for entry in folder.iterdir())
            names = {name.removesuffix(".yaml") for name in options if name.endswith(".yaml")}
            found[folder.name] = found.get(folder.name, set()) | names
    return {group: sorted(names) for group, names in found.items()}


def setting_file(group: str, option: str) -> Traversable:
    """The yaml of an option, the package's before an extension's."""
    places = (root.joinpath(group, f"{option}.yaml") for root in (files(CONFIG_MODULE), *extension_conf()))
    return next(place for place in places if place.is_file())


def compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    """Hydra's, which also looks into the extensions."""
    if own := extension_conf():
        quoted = ",".join("'file://" + str(folder).replace("'", "\\'") + "'" for folder in own)
        overrides = [*overrides, f"hydra.searchpath=[{quoted}]"]
    return hydra.compose(verb, overrides=list(overrides))


def compose_config(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a verb.

    Raises:
        UsageError: an override is malformed, misspelt, or of the wrong type.
    """
    overrides = normalize(overrides)
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise UsageError(
                f"{override.input_line}: several values need -m (one run each); "
                f"for a list write {override.key_or_group}='[a,b]'"
            )
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        check(verb, parsed)
        try:
            config = compose(verb, overrides)
            OmegaConf.resolve(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(f"{str(error).splitlines()[0]}: see {command(verb)} --help") from error
        check_types(verb, config, compose(verb, overrides=group_choices(parsed)), parsed)
    return config


def command(verb: str) -> str:
    """How a user calls the verb of a configuration: `robot_teleop_log.yaml` is that of `embodied robot teleop-log`."""
    return f"embodied {verb.replace('_', ' ', 1).replace('_', '-')}"


def given_names(overrides: Sequence[str]) -> list[str]:
    """Names of the settings that a command has."""
    return [override.key_or_group for override in parse(normalize(overrides))]


def normalize(overrides: Sequence[str]) -> list[str]:
    """Write `encoder=path=<folder>` in Hydra's grammar, which allows no second equals sign."""
    prefix = "encoder=path="
    return [
        f"encoder='{item[len(prefix) :]}'" if item.startswith(prefix) else item
        for item in (override.strip() for override in overrides)
    ]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides by Hydra's grammar."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        if text.startswith("-"):
            raise UsageError(f"unknown option {text!r}: options are --help, --debug and -m; settings are name=value")
        if "=" not in text and not text.startswith("~"):
            raise UsageError(f"{text!r} is not a setting: write name=value, for example task=hammer-v3")
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{text!r} cannot be read ({reason}): quote special characters, name='value'") from error
    return parsed


def check(verb: str, parsed: Sequence[Override]) -> None:
    """Names of settings and of group options, before Hydra sees them."""
    options = groups()
    for override in parsed:
        group = override.key_or_group
        if group in options and not override.is_sweep_override() and override.value() not in options[group]:
            raise unknown_name(group, str(override.value()), options[group])
    names = set(setting_names(compose(verb, overrides=group_choices(parsed))))
    for override in parsed:
        key = override.key_or_group
        if key not in names and not override.is_add() and not key.startswith("hydra."):
            raise unknown_name(f"setting of {command(verb)}", key, names)


def group_choices(parsed: Sequence[Override]) -> list[str]:
    """The overrides that choose an option of a configuration group, like `env=metaworld`."""
    options = groups()
    chosen = (item for item in parsed if item.key_or_group in options and not item.is_sweep_override())
    return [item.input_line for item in chosen if item.input_line]


def check_types(verb: str, config: DictConfig, defaults: DictConfig, parsed: Sequence[Override]) -> None:
    """A setting takes the kind of value that its default in the yaml has; one whose default is null is free."""
    options = groups()
    for override in parsed:
        key = override.key_or_group
        if key in options or key.startswith("hydra.") or override.is_add() or override.is_delete():
            continue
        default, value = OmegaConf.select(defaults, key), OmegaConf.select(config, key)
        never = key == "seed" or (verb == "train" and key not in MAY_BE_NULL)
        if value is None and never and is_single(default):
            raise UsageError(f"{key} must be {kind_of(default)}, got null: leave it out for {default}")
        if expected := wrong_type(default, value):
            raise UsageError(f"{key} must be {expected}, got {value!r}")


def is_single(default: Any) -> bool:
    """Whether a setting has one value, and has one if nothing is said."""
    return default is not None and not OmegaConf.is_config(default)


def kind_of(default: Any) -> str:
    """What the values of a setting are, in words."""
    return wrong_type(default, object()) or "a name"


def wrong_type(default: Any, value: Any) -> str | None:
    """What a value should have been, None when it fits its default."""
    if default is None or value is None:
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, int):
        return None if number and isinstance(value, int) else "a whole number"
    if isinstance(default, float):
        return None if number and math.isfinite(value) else "a finite number"
    for check, name in ((OmegaConf.is_list, "a list, '[a,b]'"), (OmegaConf.is_dict, "a group of settings")):
        if check(default) != check(value):
            return name if check(default) else "a single value"
    return None


def setting_names(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """All dotted names in a configuration, inner ones too."""
    for key in map(str, config):
        name = prefix + key
        yield name
        if OmegaConf.is_dict(config) and OmegaConf.is_dict(config._get_node(key)):
            yield from setting_names(config[key], prefix=f"{name}.")


def identity(config: DictConfig) -> dict[str, Any]:
    """The settings that decide the result of a run."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict), type(container)
    for name in LATER:
        group, _, last = name.rpartition(".")
        settings = container.get(group) if group else container
        if isinstance(settings, dict) and settings.get(last) is None:
            settings.pop(last, None)
    return {str(key): value for key, value in container.items() if key not in NOT_PART_OF_THE_RUN}


def positive(config: DictConfig, *names: str) -> None:
    """Check that settings are whole numbers of at least 1."""
    for name in names:
        value = OmegaConf.select(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, got {value!r}")
