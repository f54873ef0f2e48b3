"""An environment that takes other actions than a policy gives is refused, whatever trained the policy."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.spaces import Box

from embodied.bench.policy_episodes import check_actions
from embodied.core.errors import UserError

ENV = {"suite": "dmc", "task": "walker_walk"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"action_space": {"low": [-1.0, -1.0], "high": [1.0, 1.0]}},
        {"action_low": [-1.0, -1.0], "action_high": [1.0, 1.0]},
    ],
)
def test_cloned_policies_and_agents_name_what_differs(arguments):
    path, metadata = Path("step_1.safetensors"), {"arguments": arguments, "env": ENV}
    check_actions(path, metadata, SimpleNamespace(single_action_space=Box(-1, 1, (2,), np.float32)))
    with pytest.raises(UserError, match="gives 2 values per action, the environment dmc walker_walk takes 6"):
        check_actions(path, metadata, SimpleNamespace(single_action_space=Box(-1, 1, (6,), np.float32)))
    with pytest.raises(UserError, match=r"trained for action 0 in \[-1, 1\], .* takes \[-2, 2\]"):
        check_actions(path, metadata, SimpleNamespace(single_action_space=Box(-2, 2, (2,), np.float32)))
