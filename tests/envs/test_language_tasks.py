"""Several Meta-World tasks in one environment: words, placements, chains."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from embodied.core.errors import UsageError
from embodied.envs.experts.behaviours import make_expert
from embodied.envs.rollout import collect_episodes
from embodied.envs.suites._metaworld_placements import cut
from embodied.envs.suites._metaworld_tasks import plan_of
from embodied.envs.suites._metaworld_words import HELDOUT, MT10, TRAIN, draw_instruction
from embodied.envs.suites.metaworld import INSTRUCTIONS
from embodied.envs.task_env import TaskEnv
from embodied.envs.vector import make_vector_env, reset_slots

pytestmark = [pytest.mark.sim, pytest.mark.filterwarnings("ignore:.*Box observation space.*")]
ENVIRONMENT_STATE, IMAGE = "observation.environment_state", "observation.images.corner4"
EASY = ("reach-v3", "drawer-close-v3")  # whose experts never fail


def make(**options):
    return TaskEnv(**{"task": "mt10", "images": False, **options})


def words(text):
    return re.findall("[a-z]+", text)


def test_the_ten_tasks_are_the_librarys():
    from metaworld.env_dict import MT10_V3

    assert set(MT10) == set(MT10_V3) == set(TRAIN) == set(HELDOUT)


def test_every_instruction_is_a_sentence_of_its_own():
    texts = [text for part in (TRAIN, HELDOUT) for task in MT10 for text in part[task]]
    assert len(texts) == len(set(texts)) == 60 + 30
    assert all(len(words(text)) >= 3 and text == text.lower() and text[-1].isalpha() for text in texts)
    assert {task: INSTRUCTIONS[task] in TRAIN[task] for task in MT10} == dict.fromkeys(MT10, True)


def test_held_out_instructions_say_it_in_other_words():
    for task in MT10:
        known = [set(words(text)) for text in TRAIN[task]]
        for text in HELDOUT[task]:
            new = set(words(text))
            assert not any(new <= each or each <= new for each in known), text
            assert len(new - set.union(*known)) >= 2, text  # words that no training instruction of the task has


def test_words_are_drawn_by_the_seed():
    drawn = [draw_instruction("reach-v3", "train", seed) for seed in range(60)]
    assert set(drawn) == set(TRAIN["reach-v3"])
    assert drawn == [draw_instruction("reach-v3", "train", seed) for seed in range(60)]
    assert {draw_instruction("reach-v3", "all", seed) for seed in range(200)} == {
        *TRAIN["reach-v3"],
        *HELDOUT["reach-v3"],
    }


def test_ten_seeds_in_a_row_have_each_task_once():
    env = make(instructions="heldout")
    told = []
    for seed in range(20, 30):
        env.reset(seed=seed)
        told.append((env.spec_of_task.task, env.task_description))
    assert [task for task, _ in told] == list(MT10)
    assert all(text in HELDOUT[task] for task, text in told)


def test_the_same_seed_is_the_same_episode_after_any_others():
    env, fresh = make(), make()
    for seed in (0, 4, 7, 3):
        env.reset(seed=seed)
        env.step(np.ones(4, np.float32))
    assert np.array_equal(env.reset(seed=13)[0][ENVIRONMENT_STATE], fresh.reset(seed=13)[0][ENVIRONMENT_STATE])
    single = make(task="door-open-v3")
    for each in (env, single):
        each.reset(seed=13)
    assert np.array_equal(*(each.step(np.ones(4, np.float32))[0][ENVIRONMENT_STATE] for each in (env, single)))


def test_held_out_placements_lie_where_no_training_placement_does():
    for task in MT10:
        axis, placed = 0, {}
        for positions in ("train", "heldout"):
            env = make(task=task, positions=positions)
            space = env.simulation.library._random_reset_space
            axis = int(np.flatnonzero(space.high > space.low)[0]) if task != "reach-v3" else 3  # the goal's x
            vectors = []
            for seed in range(30):
                env.reset(seed=seed)
                vectors.append(env.simulation.library._last_rand_vec)
            placed[positions] = np.stack(vectors)
            assert (placed[positions] >= space.low - 1e-12).all() and (placed[positions] <= space.high + 1e-12).all()
        edge = space.low[axis] + 0.75 * (space.high - space.low)[axis]
        assert placed["train"][:, axis].max() <= edge < placed["heldout"][:, axis].min(), task
        assert np.ptp(placed["train"][:, axis]) > 0.6 * (edge - space.low[axis]), task


def test_the_goal_of_reaching_is_held_out_and_not_the_puck_beside_it():
    goals, pucks = {}, {}
    for positions in ("train", "heldout"):
        env = make(task="reach-v3", positions=positions)
        for seed in range(20):
            env.reset(seed=seed)
            goals.setdefault(positions, []).append(env.simulation.library._target_pos[0])
            pucks.setdefault(positions, []).append(env.simulation.library._last_rand_vec[0])
    assert max(goals["train"]) <= 0.05 < min(goals["heldout"])  # metres, of -0.1 to 0.1
    assert all(min(each) < -0.05 and max(each) > 0.05 for each in pucks.values())


def test_the_part_is_drawn_from_evenly():
    low, high = np.array([0.0, 1.0, 5.0]), np.array([0.0, 3.0, 5.0])
    draws = np.random.default_rng(0).uniform(low, high, (4000, 3))
    train = np.stack([cut(each, low, high, "train", axis=1) for each in draws])
    held = np.stack([cut(each, low, high, "heldout", axis=1) for each in draws])
    assert train[:, [0, 2]].tolist() == draws[:, [0, 2]].tolist()
    assert train[:, 1].mean() == pytest.approx(1.75, abs=0.03) and train[:, 1].std() == pytest.approx(0.433, abs=0.02)
    assert held[:, 1].mean() == pytest.approx(2.75, abs=0.03) and held[:, 1].min() >= 2.5


def test_a_varied_start_is_elsewhere_and_reproducible():
    home, varied = make(task="reach-v3"), make(task="reach-v3", hand="varied")
    starts = [varied.reset(seed=seed)[0]["observation.state"][:3] for seed in range(6)]
    fixed = [home.reset(seed=seed)[0]["observation.state"][:3] for seed in range(6)]
    assert np.ptp(fixed, axis=0).max() < 0.01 < np.ptp(starts, axis=0).min()
    assert np.array_equal(varied.reset(seed=3)[0]["observation.state"][:3], starts[3])


def test_a_chain_has_each_task_once_before_any_twice():
    order, seeds = plan_of(MT10, 5, 3)
    assert len(set(order)) == 5 and len(set(seeds)) == 5
    order, _ = plan_of(EASY, 5, 3)
    assert set(order[:2]) == set(order[2:4]) == set(EASY)
    assert len({plan_of(MT10, 5, seed)[0] for seed in range(20)}) > 15


def test_a_chain_begins_the_next_task_where_the_arm_is():
    env = make(task=EASY, chain=3, instructions="train")
    expert = make_expert("scripted", env.simulation)
    observation, info = env.reset(seed=1)
    expert.reset(1)
    told, scores, jumps, over = [env.task_description], [], [], False
    while not over:
        before = observation["observation.state"][:3]
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        if info.get("tasks_begun", 1) > len(told):
            told.append(env.task_description)
            scores.append(info["score"])
            at_home = np.allclose(env.simulation.current.library.hand_init_pos, env.simulation.current._home)
            jumps.append((at_home, np.linalg.norm(observation["observation.state"][:3] - before)))
            assert not info["success"]
        over = terminated or truncated
    assert info["success"] and info["score"] == 1 and scores == pytest.approx([1 / 3, 2 / 3])
    assert [text in TRAIN[task] for text, task in zip(told, env.simulation._order, strict=True)] == [True] * 3
    assert jumps and all(at_home or jump < 0.06 for at_home, jump in jumps)
    assert not all(at_home for at_home, _ in jumps)


def test_a_chain_ends_at_the_first_task_that_takes_too_long():
    env = make(task=EASY, chain=5, horizon=130)
    expert = make_expert("scripted", env.simulation)
    observation, _ = env.reset(seed=0)
    expert.reset(0)
    steps, begun, since, over = 0, 1, 0, False
    while not over:
        action = expert.act(observation) if begun < 3 else np.zeros(4, np.float32)
        observation, _, terminated, over, info = env.step(action)
        steps, since = steps + 1, since + 1
        if info.get("tasks_begun", 1) > begun:
            begun, since = info["tasks_begun"], 0
        assert not terminated and steps < 600
    assert (begun, since, info["score"]) == (3, 130, pytest.approx(0.4))


def test_frames_follow_the_task_also_under_shifts_and_when_nobody_looked():
    env = make(task=EASY, chain=2, images=True, image_size=32, shift="light", shift_strength=2)
    expert = make_expert("scripted", env.simulation)
    observation, info = env.reset(seed=1)
    expert.reset(1)
    env.looking = False
    while info.get("tasks_begun", 1) == 1:
        before = observation[IMAGE]
        observation, _, _, _, info = env.step(expert.act(observation))
    assert (observation[IMAGE] != before).mean() > 0.1
    assert np.array_equal(observation[IMAGE], env.render())
    env.close()


def test_episodes_of_a_store_have_their_own_instructions():
    options = {"task": EASY, "images": False, "instructions": "train"}
    found = list(collect_episodes(options, "scripted", range(4)))
    assert [episode.task in TRAIN[EASY[number % 2]] for number, episode in enumerate(found)] == [True] * 4
    assert all(episode.success for episode in found)


def test_a_vector_tells_what_is_to_be_done_in_each_slot():
    environment = make_vector_env({"task": "mt10", "images": False}, num_envs=2, workers=0)
    reset_slots(environment, [6, 9])
    assert list(environment.call("task_description")) == [INSTRUCTIONS[MT10[6]], INSTRUCTIONS[MT10[9]]]
    environment.close()


def test_gymnasiums_checker_passes():
    made = gymnasium.make("embodied.envs.registration:embodied/metaworld-mt10", image_size=32)
    check_env(made.unwrapped)
    made.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "mt11"}, "did you mean mt10"),
        ({"task": "reach-v3+pusch-v3"}, "push-v3"),
        ({"task": "reach-v3+reach-v3"}, "names a task twice"),
        ({"instructions": "held"}, "heldout"),
        ({"task": "hammer-v3", "instructions": "train"}, "hammer-v3 has one sentence only"),
        ({"task": "hammer-v3+reach-v3", "instructions": "train"}, "hammer-v3 has one sentence only"),
        ({"positions": "heldoud"}, "heldout"),
        ({"hand": "away"}, "home"),
        ({"chain": 0}, "env.chain must be a whole number from 1 to 20, got 0"),
        ({"protocol": "cortex", "task": "hammer-v3+assembly-v3"}, "cortex"),
        ({"protocol": "cortex", "task": "hammer-v3", "chain": 2}, "is of single tasks"),
        ({"suite": "dmc", "task": "walker_walk+walker_stand"}, "dmc has one task in an environment"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make(**options)
