"""The evaluation loop: right seeds, right order, the policy's memory set back at every start."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from embodied.core.reporting import SilentReporter
from embodied.training.evaluate import Lane, evaluate, evaluate_lanes


class CountingEnvironments:
    """Slot i of seed s ends after s steps, successfully if s is even; it observes how many steps it has taken."""

    single_action_space = Box(-1.0, 1.0, (1,), dtype=np.float32)

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.seeds, self.steps = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.actions = []

    def observe(self):
        frames = np.repeat(self.seeds[:, None], 3, 1)[:, None, None].astype(np.uint8)
        history = np.stack([np.zeros_like(frames), frames], axis=1)
        return {"count": self.steps.astype(np.float32)[:, None], "frame": frames, "frames": history}

    def step(self, actions):
        self.actions.append(actions.copy())
        self.steps += 1
        ended = self.steps >= self.seeds
        success = ended & (self.seeds % 2 == 0)
        infos = {"success": success, "success_once": success, "score": success * 0.5}
        return self.observe(), self.steps * 1.0, success, ended & ~success, infos


def reset_slots(environment, seeds):
    for slot, seed in enumerate(seeds):
        if seed is not None:
            environment.seeds[slot], environment.steps[slot] = seed, 0
    return environment.observe()


class RememberingPolicy:
    """Remembers how often it has acted in the episode, and checks that against the observation."""

    def initial(self, batch_size):
        return {"acted": torch.zeros(batch_size, 1)}

    def act(self, carry, observation):
        active = observation["count"] < 100
        assert torch.equal(carry["acted"][active], observation["count"][active])
        return {"acted": carry["acted"] + 1}, torch.full((len(observation["count"]), 1, 1), 5.0)


def run(num_envs, seeds, record_key=None, enough=None):
    environment = CountingEnvironments(num_envs)
    outcomes = evaluate(
        RememberingPolicy(),
        environment,
        reset_slots,
        seeds,
        device=torch.device("cpu"),
        reporter=SilentReporter(),
        record_key=record_key,
        enough=enough,
    )
    return environment, outcomes


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_outcomes_follow_the_seeds_whatever_the_number_of_slots(num_envs):
    _, outcomes = run(num_envs, [4, 1, 6, 3, 2])
    assert [(o.seed, o.success, o.steps) for o in outcomes] == [
        (4, True, 4),
        (1, False, 1),
        (6, True, 6),
        (3, False, 3),
        (2, True, 2),
    ]
    assert outcomes[0].total_reward == 1 + 2 + 3 + 4


def test_actions_are_clipped_to_the_space():
    environment, _ = run(1, [2])
    assert np.array_equal(environment.actions[0], [[1.0]])


def test_records_the_first_success_and_the_first_failure_only():
    _, outcomes = run(2, [4, 1, 6, 3], record_key="frame")
    recorded = [outcome for outcome in outcomes if outcome.frames is not None]
    assert [(outcome.seed, outcome.frames.shape) for outcome in recorded] == [(4, (4, 1, 1, 3)), (1, (1, 1, 1, 3))]
    assert (recorded[0].frames == 4).all()
    assert "frames" not in recorded[0].record()


def test_records_the_present_moment_of_a_history():
    _, outcomes = run(2, [4, 1], record_key="frames")
    assert [outcome.frames.shape for outcome in outcomes] == [(4, 1, 1, 3), (1, 1, 1, 3)]
    assert (outcomes[0].frames == 4).all()


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_enough_is_asked_in_the_order_of_the_seeds_and_ends_with_these(num_envs):
    """Seed 1 ends first and fails; that it is early must not count before the seeds in front of it."""
    asked = []

    def enough(outcomes):
        asked.append([outcome.seed for outcome in outcomes])
        return len(outcomes) == 3

    environment, outcomes = run(num_envs, [6, 1, 4, 2, 9, 9, 9], enough=enough)
    assert [outcome.seed for outcome in outcomes] == [6, 1, 4]
    assert asked == [[6], [6, 1], [6, 1, 4]]
    assert len(environment.actions) <= 11  # the nines have not been run to their end


def test_lanes_give_what_each_policy_gives_alone():
    """Also where one lane ends long before the other, and where one has seen enough."""
    seeds = {"short": [2, 1], "long": [4, 1, 6, 3, 2], "stopped": [5, 8, 2, 4]}
    slots = {"short": 1, "long": 2, "stopped": 2}
    enough = {"short": None, "long": None, "stopped": lambda outcomes: len(outcomes) == 2}
    lanes = [
        Lane(policy=RememberingPolicy(), seeds=seeds[name], slots=slots[name], enough=enough[name], record_key="frame")
        for name in seeds
    ]
    environment = CountingEnvironments(5)
    found = evaluate_lanes(lanes, environment, reset_slots, device=torch.device("cpu"), reporter=SilentReporter())
    for name, outcomes in zip(seeds, found, strict=True):
        _, alone = run(slots[name], seeds[name], enough=enough[name], record_key="frame")
        assert outcomes == alone
        assert [o.frames is None for o in outcomes] == [o.frames is None for o in alone]
    assert [len(outcomes) for outcomes in found] == [2, 5, 2]
    assert (environment.actions[-1][0] == 0).all()  # nobody acts where the lane is over


class SparingEnvironments(CountingEnvironments):
    """Slots in which nobody looks show a frame of 255."""

    def __init__(self, num_envs):
        super().__init__(num_envs)
        self.looks, self.shown = np.ones(num_envs, bool), []

    def look(self, slots):
        self.looks = slots.copy()

    def step(self, actions):
        observation, *rest = super().step(actions)
        self.shown.append(self.looks)
        observation["frame"][~self.looks] = 255
        return observation, *rest


class SparingPolicy(RememberingPolicy):
    """Looks at every third step of an episode."""

    def looks(self, carry):
        return carry["acted"][:, 0] % 3 == 0

    def act(self, carry, observation):
        looking = self.looks(carry)
        assert (observation["frame"][looking] < 255).all()
        return super().act(carry, observation)


def test_nothing_is_shown_to_a_policy_that_will_not_look():
    seeds, options = [4, 1, 6, 3], {"device": torch.device("cpu"), "reporter": SilentReporter()}
    environment = SparingEnvironments(2)
    outcomes = evaluate(SparingPolicy(), environment, reset_slots, seeds, **options)
    assert outcomes == run(2, seeds)[1]
    steps = sum(seeds)
    # of a slot's first episode, steps 3, 6, ... are followed by a look; where an episode ends, nobody has one more
    assert sum(shown.sum() for shown in environment.shown) < steps / 2
    evaluate(SparingPolicy(), environment, reset_slots, seeds, record_key="frame", **options)
    assert sum(shown.sum() for shown in environment.shown[-6:]) > steps / 2  # who films looks all the time


class SeededPolicy(RememberingPolicy):
    """Is told the seeds, and which of its episodes are over."""

    told_seeds = True

    def __init__(self):
        self.told, self.resting = [], []

    def initial(self, batch_size, *, seeds=None):
        self.told.append(list(seeds))
        return {**super().initial(batch_size), "seed": torch.tensor(seeds)}

    def rest(self, carry, resting):
        self.resting.append(resting.tolist())
        return carry

    def act(self, carry, observation):
        running = ~torch.tensor(self.resting[-1])
        assert torch.equal(carry["seed"][running], observation["frame"][running, 0, 0, 0].long())
        acted, chunk = super().act(carry, observation)
        return {**carry, **acted}, chunk


def test_a_policy_that_plans_with_the_simulator_is_told_seeds_and_which_episodes_are_over():
    policy = SeededPolicy()
    outcomes = evaluate(
        policy,
        CountingEnvironments(2),
        reset_slots,
        [2, 4, 1],
        device=torch.device("cpu"),
        reporter=SilentReporter(),
    )
    assert [outcome.steps for outcome in outcomes] == [2, 4, 1]
    assert policy.told == [[2, 4], [1, 0]]  # the second slot goes on
    assert policy.resting == [[False, False]] * 3 + [[True, False]]
