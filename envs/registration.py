"""Registers the environments with Gymnasium: importing this module is enough, and cheap.

`gymnasium.make("embodied.envs.registration:embodied/metaworld-hammer-v3")` imports it by itself.
"""

from __future__ import annotations

import gymnasium

from embodied.envs.registry import load_suite, suite_names

NAMESPACE = "embodied"


def register() -> None:
    """Register `embodied/<suite>-<task>` for every task and set of tasks of every suite; twice does no harm."""
    for suite in suite_names():
        for task in (*load_suite(suite).instructions, *load_suite(suite).groups):
            name = f"{NAMESPACE}/{suite}-{task}"
            if name not in gymnasium.registry:
                gymnasium.register(
                    name,
                    entry_point="embodied.envs.task_env:TaskEnv",
                    kwargs={"suite": suite, "task": task},
                    order_enforce=True,
                    disable_env_checker=True,  # tests run the checker; at every construction it would cost a rendering
                )


register()
