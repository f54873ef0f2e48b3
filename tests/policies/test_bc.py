"""Behaviour cloning: what the policy reads, and that acting equals what it was trained on."""

import pytest
import torch
from cloning_policies import make_observations, make_policy, rollout
from small_policies import HashedText

from embodied.core.errors import UsageError
from embodied.policies.assembly import assemble, head_options
from embodied.policies.head_kinds import KINDS
from embodied.policies.heads.registry import heads


def window(policy, observations, step):
    """Features and states of the last T observations, the first repeated."""
    seen = [observations[max(0, step - back)] for back in reversed(range(policy.history))]
    features = torch.stack([policy.see(observation) for observation in seen], dim=1)
    return features, torch.stack([observation["observation.state"] for observation in seen], dim=1)


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_acting_step_by_step_equals_predicting_from_the_window(head):
    policy = make_policy(head).eval()
    policy.normalizer.fit(torch.randn(50, 4) * torch.tensor([0.5, 1.0, 2.0, 0.0]) + 1)
    observations = make_observations(4)
    _, chunks = rollout(policy, observations)
    for step in range(4):
        assert chunks[step].shape == (2, 1, 4)
        torch.testing.assert_close(chunks[step], policy.predict(*window(policy, observations, step)))


@pytest.mark.parametrize("neck", ["attention", "spatial_softmax", "pooled"])
def test_necks_without_fusion_show_the_head_every_moment(neck):
    options = {"heads": 3} if neck == "attention" else {}
    policy = make_policy("gmm", history=2, neck=neck, neck_options=options).eval()
    observations = make_observations(3)
    _, chunks = rollout(policy, observations)
    features, states = window(policy, observations, 2)
    moved = states.clone()
    moved[:, 0] += 1
    mixtures = [policy.controller.head(policy.controller.fuse(features, seen)).means for seen in (states, moved)]
    assert not torch.equal(*mixtures)  # proprioception of the moment before is seen too
    assert chunks[0].shape == (2, 1, 4)


@pytest.mark.parametrize("head", ["diffusion", "flow", "vq_bet", "act"])
def test_a_chunk_is_executed_before_the_next_plan(head):
    options = {"chunk": 8, "execute": 3, "ensemble": False}
    policy = make_policy(head, history=1, **options).eval()
    observations = make_observations(7)
    _, chunks = rollout(policy, observations)
    assert chunks[0].shape == (2, 8, 4)
    for plan, later in ((0, 1), (0, 2), (3, 4), (3, 5)):
        ahead = later - plan
        assert torch.equal(chunks[later][:, : 8 - ahead], chunks[plan][:, ahead:])
        assert torch.equal(chunks[later][:, -1], chunks[plan][:, -1])  # what lies beyond the plan repeats its end
    assert not torch.equal(chunks[3][:, 0], chunks[2][:, 1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head": "flow", "history": 1, "chunk": 8, "execute": 3}, [True, False, False, True, False, False, True]),
        ({"head": "flow", "history": 2, "chunk": 8, "execute": 3}, [True, False, True, True, False, True, True]),
        ({"head": "flow", "history": 3, "chunk": 8, "execute": 3}, [True] * 7),
        ({"head": "act", "history": 1, "chunk": 8, "ensemble": 0.01}, [True] * 7),
        ({"head": "rnn_gmm"}, [True] * 7),
        ({"head": "mlp"}, [True] * 7),
    ],
)
def test_what_it_does_not_look_at_changes_nothing(options, expected):
    options = dict(options)
    policy = make_policy(options.pop("head"), **options).eval()
    observations = make_observations(7)
    _, chunks = rollout(policy, observations)
    carry = policy.initial(2)
    for observation, looks, chunk in zip(observations, expected, chunks, strict=True):
        assert policy.looks(carry).tolist() == [looks, looks]
        if not looks:
            observation = {
                name: torch.zeros_like(tensor) if "images" in name else tensor for name, tensor in observation.items()
            }
        carry, found = policy.act(carry, observation)
        assert torch.equal(found, chunk)


def test_a_plan_rests_on_the_moments_before_it_though_not_on_all():
    policy = make_policy("act", history=2, chunk=8, execute=5, ensemble=False).eval()
    observations = make_observations(6)
    _, chunks = rollout(policy, observations)
    torch.testing.assert_close(chunks[5], policy.predict(*window(policy, observations, 5)))


def test_each_environment_plans_at_a_step_of_its_own():
    policy = make_policy("flow", history=1, chunk=8, execute=3).eval()
    observations = make_observations(6)
    together, chunks = rollout(policy, observations[:2])
    fresh = policy.initial(2)
    rows = torch.tensor([False, True])
    carry = {
        name: torch.where(rows.view(-1, *[1] * (tensor.ndim - 1)), fresh[name], tensor)
        for name, tensor in together.items()
    }
    assert carry["left"].tolist() == [1, 0]
    _, restarted = rollout(policy, observations[2:], carry)
    torch.testing.assert_close(restarted[0][0, :-2], chunks[0][0, 2:])  # environment 0 goes on with its plan
    alone, expected = rollout(
        policy, [{name: t[1:] for name, t in observation.items()} for observation in observations[2:]]
    )
    for step in range(4):
        torch.testing.assert_close(restarted[step][1:], expected[step])
    assert alone["step"].tolist() == [4]


@pytest.mark.parametrize("head", ["gmm", "rnn_gmm", "diffusion", "flow", "vq_bet", "bins"])
def test_the_same_episode_draws_the_same_noise_whatever_runs_beside_it(head):
    policy = make_policy(head, history=None).eval()
    observations = make_observations(4, batch=3)
    _, first = rollout(policy, observations)
    torch.manual_seed(99)
    order = torch.tensor([2, 0])
    _, again = rollout(policy, [{name: t[order] for name, t in observation.items()} for observation in observations])
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one[order], other, rtol=1e-4, atol=1e-5)


def test_noise_differs_between_steps_and_episodes():
    policy = make_policy("flow", history=1, chunk=4, execute=1).eval()
    (observation,) = make_observations(1, batch=1)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in observation.items()}
    twice["observation.state"][1] += 1e-3
    _, chunks = rollout(policy, [twice, twice])
    assert (chunks[0] - chunks[1]).abs().max() > 1e-2
    assert (chunks[0][0] - chunks[0][1]).abs().max() > 1e-2


def test_a_recurrent_head_remembers_the_episode_and_forgets_at_its_history():
    policy = make_policy("rnn_gmm", history=3, head_options={"width": 16, "low_noise_eval": True}).eval()
    observations = make_observations(5)
    carry, chunks = rollout(policy, observations)
    assert chunks[0].shape == (2, 1, 4)
    assert carry["age"].tolist() == [2, 2]
    memory = policy.controller.head.initial(2)
    features = torch.stack([policy.see(observation) for observation in observations[3:]], dim=1)
    states = torch.stack([observation["observation.state"] for observation in observations[3:]], dim=1)
    for moment in policy.controller.fuse(features, states).unbind(1):
        memory, _ = policy.controller.head.step(memory, moment, noise=torch.zeros(2, 5))
    torch.testing.assert_close(carry["hidden"], memory.hidden)


def test_temporal_ensembling_averages_the_plans_for_a_step():
    policy = make_policy("act", history=1, chunk=4, ensemble=0.5).eval()
    observations = make_observations(3)
    _, chunks = rollout(policy, observations)
    plans = [policy.predict(*window(policy, observations, step)) for step in range(3)]
    weights = torch.exp(-0.5 * torch.arange(3.0))
    expected = sum(weight * plans[step][:, 2 - step] for step, weight in enumerate(weights)) / weights.sum()
    torch.testing.assert_close(chunks[2][:, 0], expected)


def test_act_does_not_change_the_carry_it_was_given():
    policy = make_policy("flow", history=2).eval()
    first, second = make_observations(2)
    carry, _ = policy.act(policy.initial(2), first)
    before = {name: tensor.clone() for name, tensor in carry.items()}
    _, once = policy.act(carry, second)
    _, twice = policy.act(carry, second)
    assert torch.equal(once, twice)
    assert all(torch.equal(before[name], carry[name]) for name in carry)


def test_features_of_several_cameras_lie_side_by_side():
    policy = make_policy(history=1, camera=["front", "wrist"], feature_shape=(6,)).eval()
    (observation,) = make_observations(1, cameras=("front", "wrist"))
    seen = policy.see(observation)
    torch.testing.assert_close(seen[:, 3:], policy.encode(observation["observation.images.wrist"]))
    _, chunk = policy.act(policy.initial(2), observation)
    assert chunk.shape == (2, 1, 4)


def test_frozen_encoder_is_left_out_of_the_checkpoint_and_a_trained_one_is_in():
    policy = make_policy()
    assert not any(name.startswith("encoder.") for name in policy.trained_tensors())
    policy.trainable_encoder = True
    assert "encoder.scale" in policy.trained_tensors()


def test_a_checkpoint_of_another_policy_is_refused():
    with pytest.raises(UsageError, match="another policy"):
        make_policy(history=3).load_trained_tensors(make_policy(history=2).trained_tensors())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 0}, "policy.history must be a whole number of at least 1, got 0"),
        ({"head": "flw"}, "unknown policy.head 'flw': did you mean flow"),
        ({"neck": "text_query", "feature_shape": (64, 3)}, "instruction's embedding: set policy.instruction"),
        (
            {"text_encoder": HashedText(), "instruction_width": 0},
            "policy.instruction_width must be a whole number of at least 1",
        ),
        ({"neck": "attention", "feature_shape": (3,)}, r"needs tokens \[N, D\], got a feature of shape \(3,\)"),
        ({"head": "diffusion", "actions": "zscore"}, r"within \[-1, 1\]: policy.actions must be minmax or quantile"),
        ({"head": "flow", "chunk": 4, "execute": 5}, r"policy.execute must be in \[1, policy.chunk=4\], got 5"),
        ({"head": "act", "ensemble": True, "execute": 2}, "policy.execute must be 1, got 2"),
        ({"head": "rnn_gmm", "chunk": 2}, "policy.chunk must be policy.history"),
        ({"head": "rnn_gmm", "neck": "flare"}, "one that fuses no history"),
        ({"head_options": {"depth": 3}}, "policy.head_options of mlp: .*depth"),
        ({"head": "act", "head_options": {"width": 15, "heads": 2}}, "width must be a multiple of heads=2, got 15"),
        ({"hidden": (8, -4)}, "policy.hidden must be a whole number of at least 1, got -4"),
        ({"channels": 0}, "policy.channels must be a whole number of at least 1, got 0"),
        ({"proprioception_width": 0}, "policy.proprioception_width must be a whole number of at least 1, got 0"),
        ({"head": "act", "ensemble": "often"}, "policy.ensemble must be a decay, true, false or null, got 'often'"),
        ({"ema": 3}, "policy.ema must be true, false or null, got 3"),
        ({"head": "gmm", "head_options": {"hidden": [-4]}}, "policy.head_options of gmm: .*negative dimension"),
        ({"head": "act", "head_options": {"heads": 0}}, "policy.head_options of act: .*zero"),
        (
            {"neck": "attention", "feature_shape": (64, 3), "neck_options": {"queries": 0, "heads": 3}},
            "policy.neck_options of attention: sizes must be at least 1, and queries would be empty",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make_policy(**options)


def test_every_head_has_its_defaults():
    assert {kind.module or name for name, kind in KINDS.items()} == set(heads())
    assert assemble("act").ensemble == 0.01 and assemble("act", execute=4).ensemble is None
    assert assemble("rnn_gmm").chunk == assemble("rnn_gmm").history == 10
    assert assemble("diffusion", chunk=4).execute == 4


def test_codes_get_a_share_of_the_steps_and_options_go_on_top_of_sizes():
    sizes = {"vq_bet": {"depth": 3}}
    arguments = {"sizes": sizes, "steps": 500, "codebook_share": 0.4}
    assert head_options({"head": "vq_bet"}, **arguments) == {"depth": 3, "codebook_steps": 200}
    given = {"head": "vq_bet", "head_options": {"depth": 1, "codebook_steps": 9}}
    assert head_options(given, **arguments) == {"depth": 1, "codebook_steps": 9}
    with pytest.raises(UsageError, match=r"learns its codes for 9 steps before it learns to act, and train.steps=9"):
        head_options(given, sizes=sizes, steps=9, codebook_share=0.4)
    assert head_options(given, sizes=sizes, steps=0, codebook_share=0.4)["codebook_steps"] == 9  # nothing is trained
