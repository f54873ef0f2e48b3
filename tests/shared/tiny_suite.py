"""A suite of seconds."""

import copy

import yaml

TINY = {
    "description": "one task, short",
    "seeds": 1,
    "demos": [2],
    "variants": ["static"],
    "tasks": [{"env": "metaworld", "task": "drawer-close-v3"}],
    "controllers": {"mlp": {"policy": "bc", "policy.head": "mlp"}},
    "baselines": {"state": "all", "proprioception": "all", "pixels": "all", "random": "all", "scratch": "all"},
    "settings": {
        "env.horizon": 20,
        "env.image_size": 32,
        "collect.only_successes": False,
        "episodes": 2,
        "train.steps": 20,
        "train.batch_size": 16,
        "train.checkpoints": 2,
        "evaluate.selection_episodes": 1,
        "policy.hidden": [16],
    },
    "exceptions": {"scratch": {"train.steps": 30}},
}


def tiny(**changes):
    """The suite with some entries changed; None takes one away."""
    content = {**copy.deepcopy(TINY), **changes}
    return {key: value for key, value in content.items() if value is not None}


def write_suite(folder, name="tiny", **changes):
    """Its file."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tiny(**changes)))
    return path
