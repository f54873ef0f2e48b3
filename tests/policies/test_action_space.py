"""Actions on a head's scale and back; what they are measured from; policies and environments that do not fit."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.policies.action_frames import (
    from_delta,
    from_relative,
    rotation_from_delta,
    rotation_from_relative,
    rotation_to_delta,
    rotation_to_relative,
    to_delta,
    to_relative,
    wrap,
)
from embodied.policies.action_space import ActionNormalizer, ActionSpace, check_same_actions, pad_actions
from embodied.policies.artifact import describe_policy, load_policy

SPACE = ActionSpace(low=(-1.0, -1.0, 0.0), high=(1.0, 1.0, 1.0), names=("x", "y", "gripper"), gripper=(2,))
ACTIONS = torch.tensor([[0.0, 5.0, 0.25], [1.0, 5.0, 0.5], [2.0, 5.0, 0.75], [3.0, 5.0, 0.25]])


def test_zscore_is_the_mean_and_the_biased_deviation_and_a_constant_keeps_its_scale():
    normalizer = ActionNormalizer(action_dim=3, space=SPACE)
    normalizer.fit(ACTIONS)
    assert normalizer.offset.tolist() == [1.5, 5.0, 0.4375]
    assert normalizer.scale.tolist() == pytest.approx([1.25**0.5, 1.0, 0.2073], abs=1e-4)
    assert not normalizer.bounded


def test_minmax_fills_the_range_and_leaves_the_gripper_to_its_space():
    normalizer = ActionNormalizer(action_dim=3, kind="minmax", space=SPACE)
    normalizer.fit(ACTIONS)
    assert normalizer.normalize(ACTIONS).tolist() == [
        [-1.0, 0.0, -0.5],
        pytest.approx([-1 / 3, 0.0, 0.0]),
        pytest.approx([1 / 3, 0.0, 0.5]),
        [1.0, 0.0, -0.5],
    ]


def test_a_gripper_within_one_stays_as_it_is():
    space = ActionSpace(low=(-1.0, -1.0), high=(1.0, 1.0), gripper=(1,))
    normalizer = ActionNormalizer(action_dim=2, kind="quantile", space=space)
    actions = torch.tensor([[0.1, -0.3], [0.4, 0.2]])
    normalizer.fit(actions)
    assert torch.equal(normalizer.normalize(actions)[:, 1], actions[:, 1])


def test_quantiles_ignore_and_clip_outliers():
    normalizer = ActionNormalizer(action_dim=1, kind="quantile")
    actions = torch.arange(1001.0)[:, None] / 1000
    actions[-1] = 50.0
    normalizer.fit(actions)
    assert normalizer.offset.item() == pytest.approx(0.5, abs=1e-3)
    assert normalizer.scale.item() == pytest.approx(0.49, abs=1e-3)
    assert normalizer.normalize(actions).abs().max() == 1.0


@pytest.mark.parametrize("kind", ["zscore", "minmax", "quantile"])
def test_restoring_undoes_normalising(kind):
    normalizer = ActionNormalizer(action_dim=3, kind=kind, space=SPACE)
    actions = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    normalizer.fit(actions)
    inside = actions[(actions.abs() < 1).all(dim=1) & (actions[:, 2] > 0)]
    assert len(inside) > 20
    torch.testing.assert_close(normalizer.restore(normalizer.normalize(inside)), inside)


def test_unknown_kinds_and_foreign_demonstrations_are_refused():
    with pytest.raises(UsageError, match=r"unknown policy\.actions 'minmx': did you mean minmax"):
        ActionNormalizer(action_dim=3, kind="minmx")
    with pytest.raises(UserError, match="have 7 values per action, the environment takes 3"):
        ActionNormalizer(action_dim=7, space=SPACE)
    with pytest.raises(UsageError, match="gripper must name dimensions below 1"):
        ActionSpace(low=(0.0,), high=(1.0,), gripper=(1,))


def test_a_space_survives_its_record():
    assert ActionSpace.of(SPACE.record()) == SPACE


def test_an_environment_with_other_actions_is_refused():
    where = {"policy": "p.safetensors", "environment": "the environment pushing"}
    check_same_actions(SPACE, (-1, -1, 0), (1, 1, 1), **where)
    with pytest.raises(UserError, match=r"p.safetensors gives 3 values per action \(x, y, gripper\), the env.*takes 2"):
        check_same_actions(SPACE, (-1, -1), (1, 1), **where)
    with pytest.raises(UserError, match=r"trained for action y in \[-1, 1\], the environment pushing takes \[-2, 1\]"):
        check_same_actions(SPACE, (-1, -2, 0), (1, 1, 1), **where)


def test_padding_names_the_dimensions_a_robot_has():
    padded, mask = pad_actions(torch.ones(2, 5, 3), 4)
    assert padded.shape == (2, 5, 4) and padded[..., 3].eq(0).all()
    assert mask.tolist() == [True, True, True, False]
    with pytest.raises(UsageError, match="at least the robot's 3, got 2"):
        pad_actions(torch.ones(3), 2)


STATE = torch.tensor([1.0, 3.0, 0.5])
TARGETS = torch.tensor([[1.5, -3.0, 0.0], [2.5, -2.0, 1.0]])
JOINTS, TURNING = torch.tensor([True, True, False]), torch.tensor([False, True, False])


def test_relative_and_delta_of_literal_targets():
    assert to_relative(TARGETS, STATE, converted=JOINTS).tolist() == [[0.5, -6.0, 0.0], [1.5, -5.0, 1.0]]
    assert to_delta(TARGETS, STATE, converted=JOINTS).tolist() == [[0.5, -6.0, 0.0], [1.0, 1.0, 1.0]]
    turned = to_relative(TARGETS, STATE, converted=JOINTS, angles=TURNING)[:, 1]
    torch.testing.assert_close(turned, torch.tensor([2 * math.pi - 6, 2 * math.pi - 5]))


@pytest.mark.parametrize("pair", [(to_relative, from_relative), (to_delta, from_delta)])
@pytest.mark.parametrize("converted", [None, JOINTS])
@pytest.mark.parametrize("angles", [None, TURNING])
def test_conversions_are_undone_by_their_inverse(pair, converted, angles):
    there, back = pair
    found = there(TARGETS, STATE, converted=converted, angles=angles)
    restored = back(found, STATE, converted=converted)
    torch.testing.assert_close(wrap(restored, TURNING), TARGETS)
    assert angles is None or restored[:, 1].sub(STATE[1]).abs().max() < math.pi  # near the state, past pi if need be
    batched = there(TARGETS.expand(4, 2, 3), STATE.expand(4, 3), converted=converted, angles=angles)
    torch.testing.assert_close(batched[3], found)


def test_a_state_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"state: expected \[3\] for actions \[2, 3\], got \[2\]"):
        to_delta(TARGETS, STATE[:2])


def test_orientations_are_composed_as_scipy_composes_them():
    rotations = Rotation.random(4, random_state=0)
    now, targets = rotations[0], rotations[1:]
    state = torch.from_numpy(now.as_matrix())
    absolute = torch.from_numpy(targets.as_matrix())
    torch.testing.assert_close(
        rotation_to_relative(absolute, state), torch.from_numpy((now.inv() * targets).as_matrix())
    )
    torch.testing.assert_close(
        rotation_to_delta(absolute, state)[1], torch.from_numpy((targets[0].inv() * targets[1]).as_matrix())
    )
    torch.testing.assert_close(rotation_from_relative(rotation_to_relative(absolute, state), state), absolute)
    torch.testing.assert_close(rotation_from_delta(rotation_to_delta(absolute, state), state), absolute)


def test_a_policy_file_without_statistics_is_refused(tmp_path):
    from embodied.encoders.load import load_encoder
    from embodied.policies.bc import BCPolicy

    arguments = {
        "camera": "c",
        "proprioception_dim": 0,
        "action_dim": 2,
        "feature_shape": [3],
        "hidden": [4],
    }
    policy = BCPolicy(load_encoder("state", state_dim=3), **arguments)
    metadata = describe_policy(
        "embodied.policies.bc.BCPolicy",
        arguments,
        encoder={"spec": "state", "seed": 0, "state_dim": 3, "fingerprint": ""},
        env={},
    )
    path = tmp_path / "p.safetensors"
    save_checkpoint(path, policy.trained_tensors(), metadata)
    with pytest.raises(UserError, match="holds no statistics of the actions"):
        load_policy(path, device=torch.device("cpu"))
    policy.normalizer.fit(torch.randn(5, 2))
    save_checkpoint(path, policy.trained_tensors(), metadata)
    loaded, _ = load_policy(path, device=torch.device("cpu"))
    assert torch.equal(loaded.normalizer.scale, policy.normalizer.scale)
    tensors, _ = load_checkpoint(path)
    save_checkpoint(path, {**tensors, "normalizer.scale": torch.tensor([1.0, math.nan])}, metadata)
    with pytest.raises(UserError, match="no finite numbers"):
        load_policy(path, device=torch.device("cpu"))
