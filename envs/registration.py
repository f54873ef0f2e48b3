"""Registers the environments with Gymnasium: importing this module is enough, and cheap.

`gymnasium.make("embodied.envs.registration:embodied/metaworld-hammer-v3")` imports it by itself.
"""

from __future__ import annotations

import gymnasium

NAMESPACE = "embodied"
_METAWORLD = (
    "assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press "
    "button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open "
    "door-unlock drawer-close drawer-open faucet-close faucet-open hammer hand-insert handle-press-side handle-press "
    "handle-pull-side handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place "
    "pick-place-wall plate-slide-back-side plate-slide-back plate-slide-side plate-slide push-back push push-wall "
    "reach reach-wall shelf-place soccer stick-pull stick-push sweep-into sweep window-close window-open"
)
# Written out, since asking metaworld would import MuJoCo; a test holds the list equal to the library's.
METAWORLD_TASKS = tuple(f"{name}-v3" for name in _METAWORLD.split())


def register() -> None:
    """Register `embodied/metaworld-<task>` for every task; doing it twice does no harm."""
    for task in METAWORLD_TASKS:
        name = f"{NAMESPACE}/metaworld-{task}"
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="embodied.envs.metaworld:MetaWorldEnv",
                kwargs={"task": task},
                order_enforce=True,
                disable_env_checker=True,  # a test runs the checker; at every construction it would cost a rendering
            )


register()
