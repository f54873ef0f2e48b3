"""Planning policies in closed loop, with a world model that makes no mistake."""

import pytest
import torch
from toy_worlds import BEADS, GOAL, KEY, BeadWorld, bead_policy, pictures, places, run_beads

from embodied.core.errors import UsageError, UserError
from embodied.policies.visual_planning.goals import Goals, nearest_goal

SEEDS = list(range(6))


def look(*rows):
    """Frames with the first beads at these places, a row each, and the others in the middle."""
    there = torch.zeros(len(rows), BEADS)
    for row, found in zip(there, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    return {KEY: pictures(there)}


def successes(policy):
    return sum(success for success, *_ in run_beads(policy, SEEDS))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cost": "features", "feature": "pooled", "distance": "squared", "over": "all"},
        {"planner": "mppi", "planner_options": {"iterations": 3, "samples": 48, "standardise": True, "gamma": 10.0}},
        {"execute": 2, "horizon": 4},
    ],
    ids=["cem", "features", "mppi", "two at a time"],
)
def test_an_exact_model_solves_what_random_shooting_does_not(settings):
    assert successes(bead_policy(**settings)) >= len(SEEDS) - 1
    blind = bead_policy(planner="shooting", planner_options={"samples": 144})  # as many candidates as of the others
    assert successes(blind) == 0


def test_rewards_of_the_model_need_no_goal():
    policy = bead_policy(BeadWorld(rewards=True), cost="reward", goals=0)
    assert successes(policy) >= len(SEEDS) - 1


def test_a_problem_of_one_step_is_solved_as_well_as_can_be():
    """The best action is known: the one that leads to the goal, or as far as it goes."""
    start = GOAL + torch.tensor([0.2, -0.25, -0.9, -0.05, 0.1, 0.6, -0.15, 0.0])
    options = {"samples": 300, "iterations": 12, "elites": 15}
    policy = bead_policy(horizon=1, planner_options=options)
    _, chunk = policy.act(policy.initial(1), {KEY: pictures(start)[None]})
    best = ((GOAL - start) / 0.3).clamp(-1, 1)
    assert chunk.shape == (1, 1, BEADS)
    assert torch.allclose(chunk[0, 0], best, atol=0.06)


def test_the_same_episode_has_the_same_actions_whatever_runs_beside_it():
    together = run_beads(bead_policy(), SEEDS[:3])
    assert together == run_beads(bead_policy(), SEEDS[:3])
    assert together == [run_beads(bead_policy(), [seed])[0] for seed in SEEDS[:3]]


def test_plans_stay_inside_the_bounds_and_are_moved_on():
    policy = bead_policy(execute=2, horizon=4)
    carry, first = policy.act(policy.initial(1), look([-1.3, 1.3, -1.3, 1.3]))
    assert (first.abs() <= 1).all()
    assert torch.equal(carry["mean"][0], torch.stack([first[0, 2], first[0, 3], first[0, 3], first[0, 3]]))
    assert carry["left"].item() == 1
    assert not policy.looks(carry).any()
    carry, second = policy.act(carry, look([0.0, 0.0, 0.0, 0.0]))
    assert torch.equal(second[0, 0], first[0, 1])
    assert policy.looks(carry).all()
    assert carry["step"].item() == 2


def test_the_model_is_told_the_last_frames_and_actions():
    world = BeadWorld(history=3)
    policy = bead_policy(world, planner_options={"samples": 12, "iterations": 1})
    assert policy.looks(policy.initial(1)).all()
    carry, frames, actions = policy.initial(1), [], []
    for step in range(4):
        frames.append(look([0.1 * step, 0.0, 0.0, 0.0])[KEY])
        carry, chunk = policy.act(carry, {KEY: frames[-1]})
        actions.append(chunk[:, 0])
    contexts = [context for context, _ in world.asked]
    assert torch.equal(contexts[0].frames[0], torch.stack([frames[0][0]] * 3))  # the first frame again
    assert torch.equal(contexts[0].actions, torch.zeros(1, 2, BEADS))
    assert torch.equal(contexts[1].actions[0], torch.cat([torch.zeros(1, BEADS), actions[0]]))
    assert torch.equal(contexts[3].frames[0], torch.cat(frames[1:]))
    assert torch.equal(contexts[3].actions[0], torch.cat(actions[1:3]))
    assert [context.steps.item() for context in contexts] == [0, 1, 2, 3]
    assert len({context.keys.item() for context in contexts}) == 1


def test_an_episode_that_is_over_is_not_planned_for():
    world = BeadWorld()
    policy = bead_policy(world)
    observation = look([0.0] * 4, [1.0] * 4)
    carry, _ = policy.act(policy.initial(2), observation)
    world.asked.clear()
    carry = policy.rest(carry, torch.tensor([False, True]))
    carry, chunk = policy.act(carry, observation)
    assert {len(context.frames) for context, _ in world.asked} == {1}
    assert chunk.shape == (2, 4, BEADS)


def test_the_goal_is_that_of_the_demonstration_that_began_most_alike():
    starts = pictures(torch.tensor([[-1.0] * BEADS, [0.0] * BEADS, [1.0] * BEADS]))
    ends = pictures(torch.stack([GOAL, -GOAL, 0 * GOAL]))
    policy = bead_policy(goals=3, starts=True)
    policy.set_goals(Goals(frames=ends, starts=starts))
    carry, _ = policy.act(policy.initial(2), look([0.9] * BEADS, [0.1, 0.0, 0.0, 0.2]))
    assert carry["goal"].tolist() == [2, 1]
    carry, _ = policy.act(carry, look([-1.0] * BEADS, [-1.0] * BEADS))
    assert carry["goal"].tolist() == [2, 1]  # for the whole episode
    with pytest.raises(UsageError, match="3 goals, and nothing to choose one by"):
        nearest_goal(ends[:1], starts[:0], goals=3)


def test_a_policy_file_holds_goals_but_neither_encoder_nor_model():
    policy = bead_policy()
    tensors = policy.trained_tensors()
    assert set(tensors) == {"goals", "starts"}
    other = bead_policy()
    other.goals.zero_()
    other.load_trained_tensors(tensors)
    assert torch.equal(other.goals, policy.goals)
    with pytest.raises(UsageError, match="belongs to another policy: it differs in goals"):
        bead_policy(goals=2).load_trained_tensors(tensors)


def test_the_toy_inverts_its_pictures():
    there = torch.rand(50, BEADS) * 2.6 - 1.3
    assert (places(pictures(there)) - there).abs().max() < 0.02


class Privileged(BeadWorld):
    privileged = True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goals": 0}, "policy.cost=pixels needs a goal"),
        ({"cost": "tokens"}, "policy.cost=tokens compares codes"),
        ({"cost": "pixel"}, "unknown policy.cost 'pixel': did you mean pixels"),
        ({"over": "first"}, "unknown policy.over 'first'"),
        ({"cost": "features", "distance": "l2"}, "unknown policy.distance 'l2': choose one of cosine, l1, squared"),
        ({"horizon": 0}, "policy.horizon must be a whole number of at least 1"),
        ({"execute": 5}, r"policy.execute must be in \[1, policy.horizon=4\], got 5"),
        ({"action_space": {"low": [-1.0], "high": [float("inf")]}}, "a planner searches between bounds"),
    ],
)
def test_settings_that_make_no_sense_are_explained(settings, message):
    with pytest.raises(UsageError, match=message):
        bead_policy(**settings)


def test_what_does_not_fit_is_explained_when_it_is_met():
    with pytest.raises(UsageError, match="expected 8 values per step, got 2"):
        policy = bead_policy(action_space={"low": [-1.0] * 2, "high": [1.0] * 2})
        policy.act(policy.initial(1), look([0.0] * 4))
    with pytest.raises(UsageError, match=r"frames of 16 x 16 pixels, got \[8, 8, 3\]"):
        policy = bead_policy()
        policy.act(policy.initial(1), {KEY: torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})
    with pytest.raises(UserError, match="predicts no numbers"):
        policy = bead_policy(BeadWorld(broken=True), cost="reward", goals=0)
        policy.act(policy.initial(1), look([0.0] * 4))
    with pytest.raises(UsageError, match="gives no rewards, and there is no head"):
        policy = bead_policy(cost="reward", goals=0)
        policy.act(policy.initial(1), look([0.0] * 4))
    with pytest.raises(UsageError, match="plans in simulation, not on a robot"):
        bead_policy(Privileged()).initial(1)
    with pytest.raises(UsageError, match=r"policy.feature must be one of pooled, tokens.*got 'cls'"):
        policy = bead_policy(cost="features", feature="cls")
        policy.act(policy.initial(1), look([0.0] * 4))
    with pytest.raises(UsageError, match="nothing to learn"):
        bead_policy().loss({})
