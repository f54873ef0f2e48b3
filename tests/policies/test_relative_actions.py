"""Heads that learn offsets from the present state: what they learn, and that what leaves a policy is absolute."""

import math

import numpy as np
import pytest
import torch
from small_policies import SMALL, TinyEncoder

from embodied.bench.imitation_data import learned_actions, measure
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.encoders.load import load_encoder
from embodied.policies.artifact import describe_policy, load_policy
from embodied.policies.bc import BCPolicy
from embodied.policies.frame_choice import FrameChoice, frame_words, match_actions, read_frame
from embodied.policies.relative_actions import relative_actions

SOURCE = [1, None, 0]  # the first action is a target of the second value of the state; the second one stays absolute
KINDS = ("relative", "delta")


def make_policy(head="mlp", *, kind="relative", history=1, **options):
    torch.manual_seed(0)
    frame = None if kind is None else {"kind": kind, "state": SOURCE}
    settings = {"camera": "front", "proprioception_dim": 2, "action_dim": 3, "feature_shape": (3,), "hidden": (8,)}
    policy = BCPolicy(
        TinyEncoder(), head=head, history=history, head_options=SMALL.get(head), action_frame=frame,
        **settings, **options,
    )  # fmt: skip
    return policy.eval()


def saying(policy, offset):
    """The policy, whose head now says `offset` whatever it sees."""
    policy.normalizer.scale.fill_(0)
    policy.normalizer.offset.copy_(torch.tensor(offset))
    return policy


def observations(steps):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "observation.images.front": torch.randint(0, 256, (2, 8, 8, 3), generator=generator, dtype=torch.uint8),
            STATE: torch.randn(2, 2, generator=generator),
        }
        for _ in range(steps)
    ]


def acted(policy, seen):
    carry, actions = policy.initial(2), []
    for observation in seen:
        carry, plan = policy.act(carry, observation)
        actions.append(plan[:, 0])
    return torch.stack(actions)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("mlp", {}),
        ("rnn_gmm", {"history": 3}),
        ("flow", {"chunk": 4, "execute": 3}),
        ("act", {"chunk": 4, "ensemble": 0.5}),
    ],
)
def test_a_policy_that_says_zero_offsets_holds_the_pose_that_it_saw(head, options, kind):
    seen = observations(6)
    poses = torch.stack([observation[STATE][:, [1, 0]] for observation in seen])  # (6, B, 2)
    if head == "flow":  # a plan is of the state that it was made from
        poses = poses[[0, 0, 0, 3, 3, 3]]
    if head == "act":  # plans of four states are averaged as targets, the oldest most
        ages = [torch.exp(-0.5 * torch.arange(min(step, 3) + 1)) for step in range(6)]
        sums = [torch.tensordot(age, poses[max(0, step - 3) : step + 1], 1) for step, age in enumerate(ages)]
        poses = torch.stack([total / age.sum() for total, age in zip(sums, ages, strict=True)])
    actions = acted(saying(make_policy(head, kind=kind, **options), [0.0, 7.0, 0.0]), seen)
    torch.testing.assert_close(actions[..., [0, 2]], poses)
    torch.testing.assert_close(actions[..., 1], torch.full((6, 2), 7.0))


def test_steps_add_up_over_a_chunk_and_offsets_do_not():
    (seen,) = observations(1)
    for kind, steps in (("relative", [1, 1, 1, 1]), ("delta", [1, 2, 3, 4])):
        policy = saying(make_policy("mlp", kind=kind, chunk=4, execute=4), [0.5, 7.0, -1.0])
        _, plan = policy.act(policy.initial(2), seen)
        way = torch.tensor(steps)[:, None] * torch.tensor([0.5, -1.0])
        torch.testing.assert_close(plan[..., [0, 2]], seen[STATE][:, None, [1, 0]] + way)


def samples(**options):
    """Two episodes, of three frames and of one."""
    state = np.array([[0, 0], [0, 1], [0, 3], [5, 5]], np.float32)
    action = np.array([[1, 9, 0], [2, 8, 0], [4, 7, 1], [6, 6, 6]], np.float32)
    features = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    return Demonstrations(features, state=state, action=action, lengths=[3, 1], **options)


@pytest.mark.parametrize(
    ("kind", "head", "expected"),
    [
        ("relative", "mlp", [[1, 9, 0], [2, 8, 0], [1, 8, 0], [3, 7, 1], [1, 7, 1], [1, 6, 1]]),
        ("delta", "mlp", [[1, 9, 0], [1, 8, 0], [1, 8, 0], [2, 7, 1], [1, 7, 1], [1, 6, 1]]),
        # Each moment from its own state: windows of frames 0 1, 1 2, 2, and 3.
        ("delta", "rnn_gmm", [[1, 9, 0], [1, 8, 0], [1, 8, 0], [1, 7, 1], [1, 7, 1], [1, 6, 1]]),
    ],
)
def test_statistics_are_those_of_converted_chunks_without_padding(kind, head, expected):
    recurrent = head == "rnn_gmm"
    policy = make_policy(head, kind=kind, history=2 if recurrent else 1, chunk=2, actions="minmax")
    data = samples(history=policy.history, chunk=2, forward=recurrent)
    expected = torch.tensor(expected, dtype=torch.float32)
    assert torch.equal(learned_actions(policy, data), expected)
    assert torch.equal(learned_actions(make_policy(kind=None), data), data.actions)  # as ever
    if not recurrent:
        measure(policy, data, device=torch.device("cpu"))
        low, high = expected.amin(dim=0), expected.amax(dim=0)
        torch.testing.assert_close(policy.normalizer.offset, (low + high) / 2)
        torch.testing.assert_close(policy.normalizer.scale, torch.where(high > low, (high - low) / 2, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_a_head_on_converted_chunks(kind):
    data = samples(history=1, chunk=2)
    batch = data.batch(np.arange(4))
    framed, plain = (make_policy(kind=each, chunk=2) for each in (kind, None))
    plain.load_state_dict(framed.state_dict())  # a frame saves nothing beside the weights
    converted = batch[ACTION].clone()
    place = batch[STATE][:, -1, [1, 0]]
    converted[..., [0, 2]] -= place[:, None]
    if kind == "delta":
        converted[:, 1, [0, 2]] = (batch[ACTION][:, 1] - batch[ACTION][:, 0])[:, [0, 2]]
    assert torch.equal(framed.loss(batch)[0], plain.loss({**batch, ACTION: converted})[0])


def test_a_joint_without_an_end_goes_the_shorter_way_round():
    frame = {"kind": "relative", "state": [0, 1], "turning": [1]}
    policy = BCPolicy(
        TinyEncoder(), camera="front", proprioception_dim=2, action_dim=2, feature_shape=(3,), action_frame=frame
    )
    state, action = torch.tensor([[[3.0, 3.0]]]), torch.tensor([[[-3.0, -3.0]]])
    learned = policy.learned(action, state)
    torch.testing.assert_close(learned, torch.tensor([[[-6.0, 2 * math.pi - 6.0]]]))
    near = torch.tensor([[[-3.0, 2 * math.pi - 3.0]]])  # the target that is near the state, in whatever turn
    torch.testing.assert_close(policy.restored(learned, state), near)
    torch.testing.assert_close(policy.executed(near), action)


def test_an_averaged_joint_without_an_end_does_not_cross_the_circle():
    """From 3.1 on, predictions beyond pi are near pi, not near its mean with -pi, 0."""
    policy = BCPolicy(
        TinyEncoder(), camera="front", proprioception_dim=1, action_dim=1, feature_shape=(3,), chunk=2, ensemble=0.0,
        action_frame={"kind": "relative", "state": [0], "turning": [0]},
    ).eval()  # fmt: skip
    policy.normalizer.fit(torch.tensor([[-0.1], [0.1]]))
    places = [3.04, 3.1, 3.16 - 2 * math.pi, 3.22 - 2 * math.pi]
    carry = policy.initial(1)
    for place in places:
        state = torch.tensor([[place]])
        carry, plan = policy.act(carry, {"observation.images.front": torch.zeros(1, 8, 8, 3).byte(), STATE: state})
        step = math.remainder(plan.item() - place, 2 * math.pi)
        assert abs(step) < 0.5 and abs(plan.item() - place) < 0.5


def test_it_comes_back_from_its_file(tmp_path):
    arguments = {
        "camera": "c", "proprioception_dim": 2, "action_dim": 3, "feature_shape": [3], "hidden": [4],
        "action_frame": {"kind": "delta", "state": SOURCE}, "head": "mlp", "chunk": 2,
    }  # fmt: skip
    policy = BCPolicy(load_encoder("state", state_dim=3), **arguments).eval()
    policy.normalizer.fit(torch.randn(9, 3))
    encoder = {"spec": "state", "seed": 0, "state_dim": 3, "fingerprint": ""}
    described = describe_policy("embodied.policies.bc.BCPolicy", arguments, encoder=encoder, env={})
    save_checkpoint(tmp_path / "p.safetensors", policy.trained_tensors(), described)
    loaded, metadata = load_policy(tmp_path / "p.safetensors", device=torch.device("cpu"))
    seen = {"observation.environment_state": torch.randn(2, 3), STATE: torch.randn(2, 2)}
    assert metadata["arguments"]["action_frame"] == {"kind": "delta", "state": SOURCE}
    assert torch.equal(loaded.act(loaded.initial(2), seen)[1], policy.act(policy.initial(2), seen)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_frame": {"kind": "relativ", "state": [0, 1, 1]}}, "did you mean relative"),
        ({"action_frame": {"kind": "delta", "state": [None] * 3}}, "measured by the state, got none"),
        ({"action_frame": {"kind": "delta", "state": [0, 1]}}, r"for each of 3 actions, got \[0, 1\]"),
        ({"action_frame": {"kind": "delta", "state": [0, 1, 2]}}, "a state of 2"),
    ],
)
def test_frames_that_do_not_fit_the_policy_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        BCPolicy(TinyEncoder(), camera="c", proprioception_dim=2, action_dim=3, feature_shape=(3,), **options)
    sizes = {"action_dim": 1, "proprioception_dim": 1}
    with pytest.raises(UsageError, match="head=gr1 learned actions as they are"):
        relative_actions({"kind": "delta", "state": [0]}, head="gr1", by_moment=False, **sizes)


def test_a_choice_is_read_and_actions_are_found_by_name():
    assert read_frame(None) is None and read_frame("absolute") is None
    assert read_frame("delta") == FrameChoice(kind="delta")
    choice = read_frame({"kind": "relative", "keep": ["left"], "turning": ["yaw"]})
    action = ("left.x", "yaw", "x", "Gripper.pos", "jaw", "z")
    state = ("z", "jaw", "x", "yaw", "left.x", "Gripper.pos", "z")
    found = match_actions(choice, action=action, state=state, gripper=[4], where="arm")
    assert found == {"kind": "relative", "state": [None, 3, 2, None, None, None], "turning": [1]}
    assert frame_words(found, action) == (
        "2 of 6 learned as offsets from the present state; absolute: left.x, Gripper.pos, jaw, z"
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("relativ", "unknown policy.action_frame 'relativ': did you mean relative"),
        (3, "must be absolute, relative, delta, or a group"),
        ({"keep": ["x"]}, "must be absolute, relative, delta, or a group"),
        ({"kind": "delta", "kept": ["x"]}, "did you mean keep"),
        ({"kind": "delta", "keep": "x"}, "policy.action_frame.keep must be a list"),
        ({"kind": "delta", "keep": ["y"]}, "unknown action in policy.action_frame.keep 'y'"),
        ({"kind": "delta", "keep": ["x"]}, "are hand.dx, x, gripper, its state is x, gripper; x, gripper stay"),
    ],
)
def test_choices_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        names = {"action": ("hand.dx", "x", "gripper"), "state": ("x", "gripper")}
        match_actions(read_frame(setting), **names, gripper=(), where="arm")
