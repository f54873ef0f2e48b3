"""Behaviour cloning: what the policy reads, and that acting equals what it was trained on."""

import numpy as np
import pytest
import torch
from small_policies import PLAIN_HEADS, SMALL, HashedText, TinyEncoder

from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.core.seeding import numpy_generator
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.policies.assembly import assemble, head_options
from embodied.policies.bc import BCPolicy
from embodied.policies.controller import feature_scales
from embodied.policies.head_kinds import KINDS
from embodied.policies.heads.registry import heads
from embodied.training.imitate import Training, imitate


def make_policy(head="mlp", history=3, *, feature_shape=None, **options):
    torch.manual_seed(0)
    shape = (64, 3) if head == "conv" or options.get("neck") in ("attention", "spatial_softmax") else (3,)
    settings = {
        "camera": "front",
        "proprioception_dim": 2,
        "action_dim": 4,
        "hidden": (16, 16),
        "channels": 8,
        "bottleneck": None,
        "head_options": SMALL.get(head),
    }
    return BCPolicy(
        TinyEncoder(), feature_shape=feature_shape or shape, head=head, history=history, **{**settings, **options}
    )


def make_observations(steps, batch=2, cameras=("front",), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            **{
                f"observation.images.{camera}": torch.randint(
                    0, 256, (batch, 8, 8, 3), generator=generator, dtype=torch.uint8
                )
                for camera in cameras
            },
            "observation.state": torch.randn(batch, 2, generator=generator),
        }
        for _ in range(steps)
    ]


def rollout(policy, observations, carry=None):
    carry = policy.initial(len(observations[0]["observation.state"])) if carry is None else carry
    chunks = []
    for observation in observations:
        carry, chunk = policy.act(carry, observation)
        chunks.append(chunk)
    return carry, chunks


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


def make_batch(policy, batch=8):
    generator = torch.Generator().manual_seed(2)
    made = policy.assembly
    return {
        "features": torch.randn(batch, made.history, *policy.feature_shape, generator=generator),
        "observation.state": torch.randn(batch, made.history, 2, generator=generator),
        "action": torch.rand(batch, made.chunk, 4, generator=generator) * 2 - 1,
        "pad_mask": torch.ones(batch, made.chunk, dtype=torch.bool),
    }


@pytest.mark.parametrize("reduced", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("head", PLAIN_HEADS)
def test_every_head_learns_by_its_defaults_and_leaves_a_frozen_encoder_alone(head, reduced):
    policy = make_policy(head, history=None)
    policy.normalizer.fit(torch.rand(50, 4) * 2 - 1)
    batch = make_batch(policy)
    optimizer = torch.optim.Adam(
        [p for name, p in policy.named_parameters() if not name.startswith("encoder")], lr=1e-2
    )
    losses = []
    for step in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss, metrics = policy.loss(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert policy.encoder.scale.grad is None
    assert metrics


def test_padded_steps_change_nothing():
    policy = make_policy("flow", history=1, chunk=4)
    batch = make_batch(policy)
    batch["pad_mask"][:, 2:] = False
    other = {**batch, "action": batch["action"].clone()}
    other["action"][:, 2:] = 5.0
    losses = [policy.loss(each, torch.Generator().manual_seed(0))[0] for each in (batch, other)]
    assert torch.equal(*losses)


def test_dimensions_a_robot_lacks_reach_neither_loss_nor_action():
    policy = make_policy("mlp", history=1, action_mask=[True, True, False, True])
    batch = make_batch(policy)
    other = {**batch, "action": batch["action"].clone()}
    other["action"][..., 2] = 9.0
    assert torch.equal(*(policy.eval().loss(each)[0] for each in (batch, other)))
    _, chunk = policy.act(policy.initial(2), make_observations(1)[0])
    assert chunk[..., 2].eq(0).all() and chunk[..., [0, 1, 3]].ne(0).all()


def test_averaged_weights_are_evaluated_and_saved():
    policy = make_policy("flow", history=1)
    before = rollout(policy.eval(), make_observations(1))[1][0]
    policy.train()
    for parameter in policy.controller.parameters():
        parameter.data.add_(1.0)
    torch.testing.assert_close(rollout(policy.eval(), make_observations(1))[1][0], before)  # the average stands still
    policy.after_step()
    assert not torch.allclose(rollout(policy.eval(), make_observations(1))[1][0], before)
    copy = make_policy("flow", history=1)
    copy.load_trained_tensors(policy.trained_tensors())
    assert torch.equal(rollout(copy.eval(), make_observations(1))[1][0], rollout(policy, make_observations(1))[1][0])


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


def test_scales_bring_differences_and_features_to_unit_variance():
    generator = torch.Generator().manual_seed(0)
    frames = 5 + 0.1 * torch.randn(2000, 1, 4, generator=generator)
    windows = torch.cat([frames, frames + 1e-4 * torch.randn(2000, 1, 4, generator=generator)], dim=1)
    difference, present = feature_scales(windows)
    assert difference.item() == pytest.approx(1e4, rel=0.05)
    assert present.item() == pytest.approx(10, rel=0.05)
    assert [scale.item() for scale in feature_scales(torch.ones(3, 1, 2))] == [1.0, 1.0]


def test_heads_with_batch_norm_see_raw_values_and_others_centred_ones():
    generator = torch.Generator().manual_seed(0)
    windows, states = 5 + torch.randn(500, 1, 3, generator=generator), 7 + 3 * torch.randn(500, 2, generator=generator)
    for head, mean in (("mlp", 5.0), ("gmm", 0.0)):
        controller = make_policy(head, history=1).controller
        controller.fit_features(windows)
        controller.fit_state(states)
        fused = controller.fuse(windows, states[:, None])
        assert fused[..., :3].mean().item() == pytest.approx(mean * controller.feature_scale[1].item(), abs=0.1)
        assert fused[..., 3:].mean().item() == pytest.approx(7.0 if mean else 0.0, abs=0.3)


def test_scaling_leaves_present_features_last():
    policy = make_policy(history=2, proprioception_dim=0)
    policy.controller.feature_scale.copy_(torch.tensor([10.0, 2.0]))
    fused = policy.controller.fuse(torch.tensor([[[2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]]), None)
    assert fused.tolist() == [[[10.0, 10.0, 10.0, 6.0, 8.0, 10.0]]]


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


@pytest.mark.parametrize("head", ["mlp", "flow"])
def test_differences_of_tokens_are_those_of_all_their_values(head):
    policy = make_policy(head=head, neck="flare", feature="tokens", feature_shape=(4, 3), history=2)
    batch = make_batch(policy)
    policy.controller.fit_features(batch["features"])
    flat = make_policy(head=head, neck="flare", feature="pooled", feature_shape=(12,), history=2)
    flat.load_state_dict(policy.state_dict())
    loss, same = (
        made.loss({**batch, "features": batch["features"].flatten(start)}, torch.Generator().manual_seed(0))[0]
        for made, start in ((policy, 3), (flat, 2))
    )
    assert torch.isfinite(loss) and torch.equal(loss, same)


def test_batch_norm_needs_two_samples():
    policy = make_policy(history=1)
    with pytest.raises(UsageError, match=r"train\.batch_size must be at least 2"):
        policy.loss(make_batch(policy, batch=1))


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


# Of the protocol before heads and necks were parts: the same seeds must go on giving the same training.
RECORDED = {
    ("mlp", 1): [0.9988957643508911, 1.160629153251648, 1.3333444595336914, 0.7286217212677002, 0.6283708214759827],
    ("mlp", 3): [0.9734135866165161, 1.136605978012085, 1.3330135345458984, 0.7258038520812988, 0.598767876625061],
    ("conv", 1): [0.8336573243141174, 1.210797905921936, 1.0984200239181519, 0.8248589038848877, 1.0838067531585693],
    ("conv", 2): [0.8213979005813599, 1.1275728940963745, 1.0828582048416138, 0.7515356540679932, 1.0151809453964233],
}


@pytest.mark.parametrize(("head", "history"), list(RECORDED))
def test_the_protocol_trains_as_it_did_before(head, history, tmp_path):
    rng = numpy_generator(0, "bc")
    shape = (64, 3) if head == "conv" else (5,)
    samples = Demonstrations(
        rng.normal(size=(40, *shape)).astype(np.float32) + 1,
        state=rng.normal(size=(40, 2)).astype(np.float32),
        action=rng.normal(size=(40, 3)).astype(np.float32),
        lengths=[15, 25],
        history=history,
    )
    torch.manual_seed(11)
    options = {"head": head, "hidden": (16, 16), "channels": 8, "bottleneck": 4, "history": history}
    policy = BCPolicy(TinyEncoder(), camera="front", proprioception_dim=2, action_dim=3, feature_shape=shape, **options)
    policy.encoder.requires_grad_(False)
    policy.normalizer.fit(samples.actions)
    policy.controller.fit_state(samples.states)
    policy.controller.fit_features(samples.batch(np.arange(40))["features"])
    records = []
    imitate(
        policy,
        samples,
        Training(steps=6, batch_size=14, learning_rate=1e-2, weight_decay=0.01, checkpoints=1),
        seed=3,
        checkpoint_folder=tmp_path,
        metadata={},
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        log_every=1,
    )
    assert [record["loss"] for record in records[:5]] == pytest.approx(RECORDED[head, history], rel=1e-5)


def test_learns_to_read_the_feature():
    policy = make_policy(history=1)
    generator = torch.Generator().manual_seed(0)
    features, state = torch.randn(256, 1, 3, generator=generator), torch.zeros(256, 1, 2)
    action = torch.cat([features[:, 0], features[:, 0, :1] * 2], dim=1)[:, None]
    batch = {
        "features": features,
        "observation.state": state,
        "action": action,
        "pad_mask": torch.ones(256, 1, dtype=torch.bool),
    }
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        loss, _ = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trivial = action.var(dim=0).mean()
    assert loss.item() < 0.1 * trivial.item()
