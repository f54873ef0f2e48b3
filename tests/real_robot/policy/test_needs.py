"""What a policy needs of a robot: cameras, state, actions; everything that does not fit is said at once."""

import pytest
from robot_policies import SPACE, make_policy

from embodied.core.errors import UsageError
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.policies.action_space import ActionSpace
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.policy.needs import Needs, check_fits, needs_of

SIM = load_robot("sim")


def needs(**changes):
    fields = {"keys": ("observation.images.corner4",), "image_size": 64, "state_dim": 4, "action_dim": 4}
    space = {name: tuple(values) for name, values in SPACE.items()}
    return Needs(**{**fields, "actions": ActionSpace(**space), **changes})


def test_a_policy_of_the_simulated_robot_fits_it():
    found = needs_of(*make_policy())
    assert found == needs()
    assert found.looks and found.reads_state
    check_fits(found, SIM)


def test_everything_that_does_not_fit_is_told_together():
    with pytest.raises(UsageError) as error:
        check_fits(needs(keys=("observation.images.corner",), state_dim=7), SIM)
    text = str(error.value)
    assert "does not fit robot sim" in text
    assert "it sees observation.images.corner, and the robot has observation.images.corner4" in text
    assert "it reads 7 values, and the robot gives 4 (hand.x, hand.y, hand.z, gripper)" in text


def test_a_policy_that_reads_the_simulator_is_refused():
    with pytest.raises(UsageError, match="which no robot has"):
        check_fits(needs(keys=(ENVIRONMENT_STATE,)), SIM)


def test_another_number_of_actions_is_refused():
    with pytest.raises(UsageError, match=r"gives 3 values per action, and the robot has 4 axes"):
        check_fits(needs(action_dim=3, actions=None), SIM)


def test_axes_in_another_order_are_refused_unless_only_names_differ():
    space = needs().actions
    swapped = type(space)(low=space.low, high=space.high, names=("hand.dy", "hand.dx", "hand.dz", "gripper"))
    with pytest.raises(UsageError, match="put them in that order, or say same_names=false"):
        check_fits(needs(actions=swapped), SIM)
    check_fits(needs(actions=swapped), SIM, same_names=False)


def test_a_gripper_that_the_policy_cannot_close_is_refused():
    space = needs().actions
    small = type(space)(low=(-1.0,) * 3 + (0.0,), high=space.high, names=space.names, gripper=(3,))
    with pytest.raises(UsageError, match=r"gripper.action: \[-1.0, 1.0\] is outside of what it gives, 0 to 1"):
        check_fits(needs(actions=small), SIM)
    other = type(space)(low=space.low, high=space.high, names=space.names, gripper=(0,))
    with pytest.raises(UsageError, match=r"its gripper is action \[0\], and the robot's is axis 3"):
        check_fits(needs(actions=other), SIM)
