"""A policy on a robot acts as it does in evaluation."""

import numpy as np
import pytest
import torch
from robot_policies import make_policy, policy_metadata
from small_policies import SMALL, HashedText
from toy_worlds import BEADS, SIDE, SPACE, BeadWorld, bead_policy, pictures
from toy_worlds import KEY as BEAD_KEY

from embodied.core.errors import UsageError
from embodied.core.protocols import STATE
from embodied.encoders.load import load_encoder
from embodied.policies.artifact import build_policy
from embodied.real_robot.policy.inference import Inference

CPU = torch.device("cpu")
KEY = "observation.images.corner4"


def observations(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {KEY: rng.integers(0, 256, (1, 64, 64, 3), np.uint8), STATE: rng.standard_normal((1, 4)).astype(np.float32)}
        for _ in range(count)
    ]


def evaluated(policy, seen):
    """Actions as `training.evaluate` takes them: the first of each plan, clipped."""
    carry, actions = policy.initial(1), []
    for observation in seen:
        carry, plan = policy.act(carry, {name: torch.from_numpy(array) for name, array in observation.items()})
        actions.append(np.clip(plan[0, 0].numpy(), -1, 1))
    return np.array(actions)


@pytest.mark.parametrize("head", ["mlp", "act", "flow", "diffusion", "rnn_gmm", "bins"])
def test_first_actions_are_those_of_evaluation(head):
    policy, metadata = make_policy(head=head, spread=0.5, action=(0.0,) * 4)
    inference = Inference(policy, metadata, device=CPU)
    seen = observations(10)
    assert np.ptp(evaluated(policy, seen), axis=0).max() > 1e-4  # it does look
    plans = [inference(observation) for observation in seen]
    np.testing.assert_allclose([plan[0] for plan in plans], evaluated(policy, seen), atol=1e-6)
    inference.restart()
    np.testing.assert_allclose(inference(seen[0]), plans[0], atol=1e-6)


def test_plans_are_whole_chunks():
    policy, metadata = make_policy(head="flow", spread=0.5)
    inference = Inference(policy, metadata, device=CPU)
    assert policy.assembly.execute == 8
    seen = observations(9)
    plans = [inference(observation) for observation in seen]
    assert {plan.shape for plan in plans} == {(16, 4)}
    np.testing.assert_array_equal(plans[3][0], plans[0][3])  # between plans the rest of the last one
    assert np.abs(plans[8][0] - plans[0][8]).max() > 0


def test_an_ensembling_policy_also_plans_the_steps_to_come():
    policy, metadata = make_policy(head="act", spread=0.1, action=(0.0,) * 4)
    inference = Inference(policy, metadata, device=CPU)
    first, second = (inference(observation) for observation in observations(2))
    assert first.shape == second.shape == (16, 4)
    # One prediction so far: the plan is that chunk. Of two, the second step's is their mean with weights 1, exp(-0.01).
    inference.restart()
    alone = inference(observations(2)[1])
    weights = np.exp(-0.01 * np.arange(2))
    np.testing.assert_allclose(second[0], (weights @ np.stack([first[1], alone[0]])) / weights.sum(), atol=1e-5)
    np.testing.assert_allclose(second[5], (weights @ np.stack([first[6], alone[5]])) / weights.sum(), atol=1e-5)


def test_actions_stay_within_the_action_space():
    policy, metadata = make_policy(action=(3.0, -3.0, 0.0, 0.0))
    plan = Inference(policy, metadata, device=CPU)(observations(1)[0])
    assert plan[0] == pytest.approx([1.0, -1.0, 0.0, 0.0], abs=1e-5) and plan.max() == 1 and plan.min() == -1


def test_warming_up_leaves_no_trace_and_tells_what_it_took():
    policy, metadata = make_policy(head="diffusion", spread=0.5)
    inference = Inference(policy, metadata, device=CPU)
    taken = inference.warm_up(8)
    assert {"upload", "encode", "policy", "work"} <= set(taken) and inference.stages.count == 0
    np.testing.assert_allclose(inference(observations(1)[0])[0], evaluated(policy, observations(1))[0], atol=1e-6)


def test_a_slow_policy_is_warm_after_fewer_plans(monkeypatch):
    policy, metadata = make_policy()
    inference, plans = Inference(policy, metadata, device=CPU), []
    act = inference._act
    monkeypatch.setattr(inference, "_act", lambda *given, **more: plans.append(1) or act(*given, **more))
    monkeypatch.setattr("embodied.real_robot.policy.inference._WARM_S", -1.0)
    assert inference.warm_up(16)["work"]["p50"] > 0 and len(plans) == 4


def test_a_policy_that_follows_instructions_must_be_told():
    metadata = policy_metadata()
    policy = build_policy(metadata, load_encoder("default"), HashedText()).eval()
    policy.normalizer.fitted.fill_(True)
    with pytest.raises(UsageError, match="say what to do"):
        Inference(policy, metadata, device=CPU)
    told = [Inference(policy, metadata, device=CPU, instruction=text)(observations(1)[0]) for text in ("a", "b")]
    assert np.abs(told[0] - told[1]).max() > 0


def test_unknown_back_ends_are_named():
    policy, metadata = make_policy()
    with pytest.raises(UsageError, match="unknown backend 'onx': did you mean onnx"):
        Inference(policy, metadata, device=CPU, backend="onx")


@pytest.mark.slow
@pytest.mark.parametrize("head", ["mlp", "flow"])
def test_onnx_runtime_gives_the_same_actions(head):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    few = {"head_options": {**SMALL["flow"], "sample_steps": 3}} if head == "flow" else {}  # a graph repeats them all
    policy, metadata = make_policy(head=head, spread=0.5, action=(0.0,) * 4, **few)
    inference = Inference(policy, metadata, device=CPU, backend="onnx")
    seen = observations(3)
    assert inference.how == "onnx on cpu: encoder CPU, head CPU"
    np.testing.assert_allclose([inference(observation)[0] for observation in seen], evaluated(policy, seen), atol=1e-4)


@pytest.mark.parametrize("head", ["flow", "diffusion"])
def test_guided_plans_go_on_from_the_one_before(head):
    policy, metadata = make_policy(head=head, spread=0.3, action=(0.0,) * 4)
    seen, jumps = observations(17), {}
    for period_s in (None, 1000.0):  # planning takes far less than a step: one is frozen
        inference = Inference(policy, metadata, device=CPU, guidance_period_s=period_s)
        inference.warm_up(4)
        plans = [inference(observation) for observation in seen]
        ends = [(plans[step - 1][1:], plans[step]) for step in (8, 16)]
        jumps[period_s] = np.mean([np.abs(new[1:4] - old[1:4]).mean() for old, new in ends])
        frozen = [np.abs(new[0] - old[0]).max() for old, new in ends]
        assert (max(frozen) < 1e-6) == (period_s is not None)
    if head == "flow":  # an untrained denoiser leads nowhere in particular; trained ones: test_prefix_guidance.py
        assert jumps[1000.0] < 0.8 * jumps[None]


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_guided_plans_go_on_as_targets_though_the_state_is_another(kind):
    frame = {"kind": kind, "state": [2, 0, 1, None]}
    policy, metadata = make_policy(head="flow", spread=0.1, action=(0.0,) * 4, action_frame=frame)
    policy.normalizer.space = None
    metadata["arguments"]["action_space"] = None  # offsets from random states would leave the bounds
    inference = Inference(policy, metadata, device=CPU, guidance_period_s=1000.0)
    inference.warm_up(2)
    plans = [inference(observation) for observation in observations(9)]
    assert np.abs(plans[8][1] - plans[0][9]).max() > 1e-3
    np.testing.assert_allclose(plans[8][0], plans[0][8], atol=1e-5)  # frozen, to the new state's offset and back


def test_guidance_is_refused_where_it_cannot_be_had():
    for options, reason in (
        ({"head": "mlp"}, "head=flow or diffusion"),
        ({"head": "flow", "execute": 16}, "to their end"),
    ):
        policy, metadata = make_policy(**options)
        with pytest.raises(UsageError, match=reason):
            Inference(policy, metadata, device=CPU, guidance_period_s=0.05)


def test_a_planner_plans_as_in_evaluation_but_not_with_a_simulator():
    policy, metadata = bead_policy(), {"arguments": {"action_space": SPACE.record()}, "env": {"image_size": SIDE}}
    inference = Inference(policy, metadata, device=CPU)
    assert inference.needs.keys == (BEAD_KEY,) and not inference.needs.reads_state
    seen = [{BEAD_KEY: pictures(torch.full((1, BEADS), place)).numpy()} for place in (0.0, 0.3)]
    plans = [inference(observation) for observation in seen]
    np.testing.assert_allclose([plan[0] for plan in plans], evaluated(policy, seen), atol=1e-6)
    world = BeadWorld()
    world.privileged = True
    with pytest.raises(UsageError, match="it plans in simulation, not on a robot"):
        Inference(bead_policy(world), metadata, device=CPU)
