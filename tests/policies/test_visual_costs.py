"""What predicted futures cost, where goals come from, and the head that reads rewards."""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_worlds import BEADS, GOAL, KEY, SIDE, BeadWorld, bead_policy, moved, pictures, run_beads

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, REWARD, SUCCESS
from embodied.core.seeding import torch_generator
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.models.sequence.world_model import Rollout
from embodied.policies.visual_planning.costs import FeatureCost, PixelCost, RewardCost
from embodied.policies.visual_planning.goals import goals_from_image, goals_from_store
from embodied.policies.visual_planning.reward_head import (
    RewardHead,
    RewardSamples,
    explained,
    frame_worth,
    success_to_go,
)

FRAMES = torch.randint(0, 256, (2, 3, 4, 8, 8, 3), generator=torch_generator(0), dtype=torch.uint8)  # (B, K, F, ...)
WANTED = torch.randint(0, 256, (2, 8, 8, 3), generator=torch_generator(1), dtype=torch.uint8)


def write_store(path, *, episodes=6, length=8, success=True, keys=(KEY, ACTION, REWARD, SUCCESS), wild=False):
    """Beads go straight to `GOAL`, or anywhere; the reward is minus the mean distance after the action."""
    specs = {
        KEY: KeySpec("uint8", (SIDE, SIDE, 3)),
        ACTION: KeySpec("float32", (BEADS,)),
        REWARD: KeySpec("float32", ()),
        SUCCESS: KeySpec("bool", ()),
    }
    with EpisodeStore.create(path, keys={key: specs[key] for key in keys}, fps=10.0) as store:
        for seed in range(episodes):
            random = np.random.default_rng(seed)
            there = torch.from_numpy(random.uniform(-1.3, 1.3, BEADS)).float()
            rows = []
            for _ in range(length):
                action = ((GOAL - there) / 0.3).clamp(-1, 1)
                if wild:
                    action = torch.from_numpy(random.uniform(-1, 1, BEADS)).float()
                after = moved(there, action)
                gap = (after - GOAL).abs()
                rows.append(
                    (pictures(there).numpy(), action.numpy(), np.float32(-float(gap.mean())), float(gap.max()) < 0.15)
                )
                there = after
            arrays = dict(zip((KEY, ACTION, REWARD, SUCCESS), map(np.stack, zip(*rows, strict=True)), strict=True))
            done = success and bool(arrays[SUCCESS][-1])
            store.append({key: arrays[key] for key in keys}, task="beads", seed=seed, success=done)
    return path


def test_pixels_cost_their_squared_errors_as_in_vp2():
    scaled = (FRAMES.double() - WANTED[:, None, None].double()) / 255
    wanted = scaled.square().sum(dim=(2, 3, 4, 5))
    assert torch.allclose(PixelCost()(Rollout(frames=FRAMES), WANTED).double(), wanted)
    last = scaled[:, :, -1].square().sum(dim=(2, 3, 4))
    assert torch.allclose(PixelCost(over="last")(Rollout(frames=FRAMES), WANTED).double(), last)
    same = WANTED[:, None, None].expand(FRAMES.shape)
    assert torch.equal(PixelCost()(Rollout(frames=same), WANTED), torch.zeros(2, 3))


@pytest.mark.parametrize("distance", ["l1", "squared", "cosine"])
def test_features_cost_their_distance(distance):
    def featurize(frames):
        return frames.flatten(1).float() / 255

    cost = FeatureCost(featurize=featurize, distance=distance, over="all")
    goal = cost.goal(BeadWorld(), WANTED)
    found = cost(Rollout(frames=FRAMES), goal)
    for row in range(2):
        for candidate in range(3):
            each = []
            for frame in FRAMES[row, candidate]:
                one, other = frame.flatten().double() / 255, WANTED[row].flatten().double() / 255
                each.append(
                    {
                        "l1": (one - other).abs().mean(),
                        "squared": (one - other).square().mean(),
                        "cosine": 1 - (one @ other) / one.norm() / other.norm(),
                    }[distance]
                )
            assert found[row, candidate].item() == pytest.approx(sum(each).item() / 4, rel=1e-4)


def test_rewards_cost_less_the_more_there_are_of_them():
    rewards = torch.tensor([[[1.0, 2.0], [0.0, 5.0]]])
    assert RewardCost()(Rollout(rewards=rewards), torch.zeros(1, 0)).tolist() == [[-1.5, -2.5]]
    read = RewardCost(worth=lambda frames: frames.flatten(1).float().mean(dim=1), over="last")
    assert torch.allclose(read(Rollout(frames=FRAMES), WANTED), -FRAMES[:, :, -1].float().mean(dim=(2, 3, 4)))
    with pytest.raises(UsageError, match="looks at what this model does not predict"):
        read(Rollout(rewards=rewards), WANTED)


def test_goals_are_the_ends_of_successful_episodes(tmp_path):
    store = EpisodeStore.open(write_store(tmp_path / "store"))
    goals = goals_from_store(store, camera="front", image_size=SIDE, episodes=4)
    assert goals.frames.shape == goals.starts.shape == (4, SIDE, SIDE, 3)
    assert np.array_equal(goals.frames[1].numpy(), store.read_episode(1)[KEY][-1])
    assert np.array_equal(goals.starts[1].numpy(), store.read_episode(1)[KEY][0])
    assert goals_from_store(store, camera="front", image_size=8, episodes=9).frames.shape == (6, 8, 8, 3)
    with pytest.raises(UserError, match="holds no frames of camera 'side'"):
        goals_from_store(store, camera="side", image_size=SIDE, episodes=4)
    failed = EpisodeStore.open(write_store(tmp_path / "failed", success=False))
    with pytest.raises(UserError, match=r"no episode of .* is known to have succeeded"):
        goals_from_store(failed, camera="front", image_size=SIDE, episodes=4)


def test_a_picture_is_the_goal_of_every_episode(tmp_path):
    picture = pictures(GOAL).numpy().repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(picture).save(tmp_path / "goal.png")
    goals = goals_from_image(tmp_path / "goal.png", SIDE)
    assert goals.starts is None
    assert np.abs(goals.frames[0].numpy().astype(int) - pictures(GOAL).numpy()).max() < 32
    with pytest.raises(UserError, match="there is no picture at"):
        goals_from_image(tmp_path / "other.png", SIDE)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read as an image"):
        goals_from_image(tmp_path / "text.png", SIDE)


def test_the_worth_of_a_frame_is_the_reward_that_led_to_it_or_how_near_success_is(tmp_path):
    store = EpisodeStore.open(write_store(tmp_path / "store", episodes=2))
    worth, known = frame_worth(store, episodes=2, target="reward", discount=0.9)
    first, second = (store.read_episode(number)[REWARD] for number in range(2))
    assert known.tolist() == [False, *[True] * 7, False, *[True] * 7]
    assert np.array_equal(worth[known].numpy(), np.concatenate([first[:-1], second[:-1]]))
    assert success_to_go(np.array([False, False, True, False]), 0.5).tolist() == [0.125, 0.25, 0.5, 1.0]
    assert success_to_go(np.zeros(3, bool), 0.5).tolist() == [0, 0, 0]
    near, known = frame_worth(store, episodes=1, target="success", discount=0.5)
    assert known.all()
    assert np.array_equal(near.numpy(), success_to_go(store.read_episode(0)[SUCCESS], 0.5))
    bare = EpisodeStore.open(write_store(tmp_path / "bare", keys=(KEY, ACTION)))
    with pytest.raises(UserError, match=r"holds no next\.reward"):
        frame_worth(bare, episodes=1, target="reward", discount=0.9)
    with pytest.raises(UsageError, match="did you mean reward"):
        frame_worth(store, episodes=1, target="rewards", discount=0.9)


def trained_head(features, worth, steps=300):
    torch.manual_seed(0)
    head = RewardHead(width=features.shape[1], hidden=(64,))
    head.fit(worth)
    samples = RewardSamples(features, worth)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    random = np.random.default_rng(0)
    for _ in range(steps):
        loss, _ = head.loss(samples.batch(random.integers(0, len(samples), 64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def test_a_head_beats_the_mean_on_episodes_that_it_has_not_seen_and_is_planned_with(tmp_path):
    """Beads that wander: rewards vary, and only the picture tells them."""
    store = EpisodeStore.open(write_store(tmp_path / "store", episodes=200, length=10, wild=True))
    worth, known = frame_worth(store, episodes=200, target="reward", discount=0.9)
    policy = bead_policy(cost="reward", goals=0, reward_hidden=[64], feature_width=16 * 16 * 3)
    features = policy.features(torch.from_numpy(store.read(KEY, 0, 2000)))
    number = torch.arange(2000)
    trained, held = known & (number < 1600), known & (number >= 1600)
    head = trained_head(features[trained], worth[trained])
    with torch.inference_mode():
        share = explained(head(features[held]), worth[held])
    assert share is not None
    assert share > 0.6  # 0: what the mean of the held out targets reaches
    policy.head.load_state_dict(head.state_dict())
    left = [distance for *_, distance in run_beads(policy, [0, 1, 2])]
    aimless = bead_policy(planner="shooting", planner_options={"samples": 1})
    assert max(left) < 0.6 * min(distance for *_, distance in run_beads(aimless, [0, 1, 2]))
    assert any(name.startswith("head.") for name in policy.trained_tensors())


def test_a_head_with_nothing_to_learn_says_so():
    with pytest.raises(UserError, match="all 5 frames are worth the same"):
        RewardHead(width=3).fit(torch.full((5,), 2.0))
    assert explained(torch.zeros(3), torch.ones(3)) is None
    assert explained(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])) == 1
    assert explained(torch.full((3,), 2.0), torch.tensor([1.0, 2.0, 3.0])) == 0
