"""Agents: they learn, they resume exactly, features in buffers equal an encoder inside the agent."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from toy_environments import make_points

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.state import StateEncoder
from embodied.policies.rl import state
from embodied.policies.rl.bc_rl import BCRLAgent
from embodied.policies.rl.drqv2 import DrQv2Agent
from embodied.policies.rl.frozen_features import FrozenFeatures
from embodied.policies.rl.networks import ProjectedFeatures
from embodied.policies.rl.policy import RLPolicy
from embodied.policies.rl.ppo import PPOAgent
from embodied.policies.rl.sac import SACAgent
from embodied.policies.rl.schedules import StepSchedule
from embodied.policies.rl.vec_env import SlotVecEnv
from embodied.training.reinforce import reinforce

CPU = torch.device("cpu")
AGENTS = {
    "ppo": PPOAgent(rollout_steps=64, epochs=4, learning_rate=1e-3, initial_std=0.5),
    "scratch": PPOAgent(rollout_steps=64, epochs=4, learning_rate=1e-3, initial_std=0.5, image_size=16, shift=1),
    "sac": SACAgent(
        warmup_steps=100,
        batch_size=64,
        train_every=4,
        updates=6,
        hidden=(32, 32),
        n_step=3,
        learning_rate=2e-3,
        discount=0.9,
    ),
}


def observe(kind, slots):
    """The toy's state, or its frames for the agent that learns an encoder."""
    if kind == "scratch":
        return AGENTS[kind].see_frames(slots, camera="top")
    return FrozenFeatures(slots, StateEncoder(dim=2), camera="top", device=CPU)


def build(kind, total_steps, count=4):
    slots = SlotVecEnv(make_points(count, side=16, shows_goal=True), seed=0)
    agent, observed = AGENTS[kind], observe(kind, slots)
    network = agent.frames_network() if kind == "scratch" else agent.network(feature_dim=2, normalise=False)
    return agent.build(observed, network=network, total_steps=total_steps, seed=5, device=CPU), slots


def run(kind, folder, total_steps, checkpoint_every, log=None, stop_after=None):
    algorithm, slots = build(kind, total_steps)
    records = [] if log is None else log
    evaluations = []

    def evaluate(path):
        evaluations.append(path)
        if stop_after is not None and len(evaluations) >= stop_after:
            raise KeyboardInterrupt
        return {"measured": path.name}

    return (
        reinforce(
            algorithm,
            slots,
            state,
            total_steps=total_steps,
            checkpoint_every=checkpoint_every,
            seed=1,
            folder=folder,
            policy_tensors=lambda: {f"agent.{k}": v for k, v in algorithm.policy.state_dict().items()},
            metadata={},
            evaluate=evaluate,
            evaluated=False,
            log=records.append,
            reporter=SilentReporter(),
        ),
        algorithm,
        records,
    )


def rollout(algorithm, episodes=50, kind="ppo"):
    environments = observe(kind, SlotVecEnv(make_points(1, side=16, shows_goal=True), seed=77))
    observation, successes = environments.reset(), []
    while len(successes) < episodes:
        action, _ = algorithm.predict(observation, deterministic=True)
        observation, _, dones, infos = environments.step(action)
        successes += [infos[0]["is_success"]] if dones[0] else []
    return float(np.mean(successes))


@pytest.mark.parametrize(
    ("kind", "steps"), [("ppo", 8_192), ("sac", 3_000), pytest.param("scratch", 12_288, marks=pytest.mark.slow)]
)
def test_learns_to_reach_the_goal(kind, steps, tmp_path):
    untrained, _ = build(kind, steps)
    _, algorithm, records = run(kind, tmp_path, steps, checkpoint_every=steps)
    assert rollout(algorithm, kind=kind) > max(0.8, rollout(untrained, kind=kind) + 0.3)
    assert any("rollout/ep_rew_mean" in record for record in records)


@pytest.mark.parametrize("kind", sorted(AGENTS))
def test_a_killed_training_ends_with_the_same_bits(kind, tmp_path):
    whole, _, expected = run(kind, tmp_path / "whole", 1024, checkpoint_every=256)
    with pytest.raises(KeyboardInterrupt):
        run(kind, tmp_path / "killed", 1024, checkpoint_every=256, stop_after=3)
    resumed, algorithm, records = run(kind, tmp_path / "killed", 1024, checkpoint_every=256)
    assert algorithm.num_timesteps == 1024
    first, second = load_checkpoint(whole)[0], load_checkpoint(resumed)[0]
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert records == expected[-len(records) :]
    # The killed evaluation was made good, and the piece before it not learned again.
    assert [record["step"] for record in records if "measured" in record] == [768, 1024]
    assert records[0] == {"step": 768, "measured": "step_000768.safetensors"}
    assert [path.name for path in (tmp_path / "killed").glob("state_*")] == ["state_001024.safetensors"]


def test_a_replay_buffer_survives_whole(tmp_path):
    algorithm, _ = build("sac", 400)
    algorithm.learn(400)
    state.save_state(tmp_path / "s.safetensors", algorithm)
    other, _ = build("sac", 400)
    state.load_state(tmp_path / "s.safetensors", other)
    buffers = algorithm.replay_buffer, other.replay_buffer
    assert (buffers[0].pos, buffers[0].full) == (buffers[1].pos, buffers[1].full)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        assert np.array_equal(getattr(buffers[0], name), getattr(buffers[1], name)), name


def test_returns_never_reach_over_a_restart():
    algorithm, _ = build("sac", 400)
    algorithm.learn(120)
    last = algorithm.replay_buffer.pos - 1
    finished = algorithm.replay_buffer.dones[last].copy() > 0
    timed_out = algorithm.replay_buffer.timeouts[last].copy()
    state.end_running_episodes(algorithm)
    assert algorithm.replay_buffer.dones[last].tolist() == [1.0] * 4
    assert algorithm.replay_buffer.timeouts[last].tolist() == np.where(finished, timed_out, 1.0).tolist()


class EncoderInside(BaseFeaturesExtractor):
    """stable-baselines3's usual way: the encoder is part of the agent and runs at every update."""

    def __init__(self, observation_space, *, encoder, **arguments):
        inner = ProjectedFeatures(observation_space["flat"], **arguments)
        super().__init__(observation_space, features_dim=inner.features_dim)
        self.inner = inner
        self.hidden = [encoder]  # in a list: stable-baselines3 would draw its weights anew

    def forward(self, observations):
        encoder = self.hidden[0]
        with torch.no_grad():
            _, out = encoder(encoder.preprocess(observations["frames"].permute(0, 2, 3, 1)))
        flat = torch.cat([out["pooled"], observations["state"]], dim=1)
        return self.inner(flat)


def test_ppo_on_features_equals_ppo_with_the_encoder_inside(tmp_path):
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnvWrapper

    encoder = torch.nn.Module()
    torch.manual_seed(0)
    weight = torch.randn(192, 6) / 14
    encoder.modality = "image"
    encoder.preprocess = lambda frames: frames.float() / 255 if frames.dtype == torch.uint8 else frames
    encoder.forward = lambda images: (images, {"pooled": torch.tanh(images.flatten(1) @ weight)})

    class Raw(VecEnvWrapper):
        def __init__(self, venv):
            spaces = {
                "frames": gymnasium.spaces.Box(0, 255, (3, 8, 8), np.uint8),
                "state": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32),
                "flat": gymnasium.spaces.Box(-np.inf, np.inf, (7,), np.float32),
            }
            super().__init__(venv, observation_space=gymnasium.spaces.Dict(spaces))

        def convert(self, observation, batch=True):
            frames = np.moveaxis(observation["observation.images.top"], -1, -3).copy()
            lead = frames.shape[:-3]
            state_ = observation["observation.state"].copy()
            return {"frames": frames, "state": state_, "flat": np.zeros((*lead, 7), np.float32)}

        def reset(self):
            return self.convert(self.venv.reset())

        def step_wait(self):
            observation, rewards, dones, infos = self.venv.step_wait()
            for info in infos:
                if "terminal_observation" in info:
                    info["terminal_observation"] = self.convert(info["terminal_observation"])
            return self.convert(observation), rewards, dones, infos

    agent = PPOAgent(rollout_steps=32, epochs=2)
    slots = SlotVecEnv(make_points(4), seed=0)
    observed = FrozenFeatures(slots, encoder, camera="top", device=CPU)
    network = agent.network(feature_dim=6, normalise=True)
    outside = agent.build(observed, network=network, total_steps=512, seed=5, device=CPU)

    raw = Raw(SlotVecEnv(make_points(4), seed=0))
    arguments = {**network, "features_extractor_class": EncoderInside}
    arguments["features_extractor_kwargs"] = {**network["features_extractor_kwargs"], "encoder": encoder}
    schedule = StepSchedule(agent.learning_rate, shape="cosine", total_steps=512)
    inside = PPO(
        "MultiInputPolicy", raw, learning_rate=schedule, n_steps=32, batch_size=32, n_epochs=2, clip_range=0.1,
        clip_range_vf=0.1, vf_coef=1.0, max_grad_norm=1.0, policy_kwargs=arguments, seed=5, device="cpu",
    )  # fmt: skip
    schedule.algorithm = inside

    def weights(algorithm):
        return {name.replace(".inner", ""): value for name, value in algorithm.policy.state_dict().items()}

    inside.policy.load_state_dict(
        {name: weights(outside)[name.replace(".inner", "")] for name in inside.policy.state_dict()}
    )
    for algorithm, environments in ((outside, slots), (inside, raw.venv)):
        environments.restart(9)
        torch.manual_seed(3)
        np.random.seed(3)
        algorithm.learn(512)
    first, second = weights(outside), weights(inside)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-5), name


@pytest.mark.parametrize("kind", sorted(AGENTS))
def test_the_artifact_acts_like_the_agent(kind, tmp_path):
    algorithm, slots = build(kind, 400)
    algorithm.learn(256)
    settings = {name: getattr(AGENTS[kind], name) for name in type(AGENTS[kind]).__dataclass_fields__}
    learns = kind == "scratch"
    policy = RLPolicy(
        ConvEncoder() if learns else StateEncoder(dim=2), method="ppo" if learns else kind, settings=settings,
        camera="top", feature="pooled", feature_dim=0 if learns else 2, proprioception_dim=1, action_low=[-1.0],
        action_high=[1.0], frames_shape=[3, 16, 16] if learns else None,
    )  # fmt: skip
    policy.load_trained_tensors({f"agent.{k}": v for k, v in algorithm.policy.state_dict().items()})
    policy.eval()
    slots.restart(3)
    observation = {name: torch.from_numpy(values.copy()) for name, values in slots.reset().items()}
    _, chunk = policy.act(policy.initial(4), observation)
    slots.restart(3)
    expected, _ = algorithm.predict(algorithm.env.reset(), deterministic=True)
    assert chunk.shape == (4, 1, 1)
    assert np.allclose(chunk[:, 0].numpy(), expected, atol=1e-6)
    assert np.ptp(expected) > 0
    far = {name: 1e4 * tensor if "images" not in name else tensor for name, tensor in observation.items()}
    assert policy.act(policy.initial(4), far)[1].abs().max() <= 1


def test_schedules_follow_the_steps_of_all_pieces():
    class Algorithm:
        num_timesteps = 0

    schedule = StepSchedule(2.0, shape="cosine", total_steps=100)
    schedule.algorithm = Algorithm()
    found = []
    for steps in (0, 50, 100, 120):
        Algorithm.num_timesteps = steps
        found.append(schedule(1.0))
    assert found == pytest.approx([2.0, 1.0, 0.0, 0.0])
    with pytest.raises(UsageError, match="did you mean cosine"):
        StepSchedule(1.0, shape="cosin", total_steps=1)


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [
        (SACAgent, {"buffer_steps": 0}, "policy.buffer_steps must be a whole number of at least 1, got 0"),
        (SACAgent, {"updates": 0}, "policy.updates must be a whole number of at least 1, got 0"),
        (SACAgent, {"polyak": 0.0}, r"policy.polyak must be in \(0, 1\], got 0.0"),
        (SACAgent, {"hidden": (64, 0)}, r"policy.hidden must be a list of whole numbers of at least 1, got \[64, 0\]"),
        (DrQv2Agent, {"encoder": "dqrv2"}, "unknown policy.encoder 'dqrv2': did you mean drqv2"),
        (DrQv2Agent, {"shift": -1}, "policy.shift must be a whole number of at least 0, got -1"),
        (BCRLAgent, {"clone_batch": 0}, "policy.clone_batch must be a whole number of at least 1, got 0"),
        (BCRLAgent, {"clip": 0.0}, "policy.clip must be a number above 0, got 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_they_are_made(agent, settings, message):
    with pytest.raises(UsageError, match=message):
        agent(**settings)


def test_minibatches_must_divide_an_iteration():
    make = partial(PPOAgent(rollout_steps=5, minibatches=3).build, seed=0, device=CPU, total_steps=100)
    observed = FrozenFeatures(SlotVecEnv(make_points(2), seed=0), StateEncoder(dim=2), camera="top", device=CPU)
    with pytest.raises(UsageError, match=r"policy.minibatches=3 does not divide the 10 steps"):
        make(observed, network=PPOAgent().network(feature_dim=2, normalise=False))


def test_a_minibatch_of_one_step_is_refused():
    with pytest.raises(UsageError, match=r"policy.minibatches=4 leaves one of the 4 steps .*\(4 environments x 1\)"):
        PPOAgent(rollout_steps=1).check(4)
    PPOAgent(rollout_steps=2).check(4)


def test_returns_are_discounted_within_episodes():
    from embodied.policies.rl.bc_rl import discounted_returns

    assert discounted_returns(np.array([1.0, 1.0, 1.0, 4.0]), [3, 1], 0.5).tolist() == [1.75, 1.5, 1.0, 4.0]


def test_ppo_that_starts_from_demonstrations_acts_like_them():
    agent = BCRLAgent(rollout_steps=32, clone_steps=400, clone_batch=64)
    observed = FrozenFeatures(SlotVecEnv(make_points(2), seed=0), StateEncoder(dim=2), camera="top", device=CPU)
    network = agent.network(feature_dim=2, normalise=False)
    algorithm = agent.build(observed, network=network, total_steps=640, seed=5, device=CPU)
    random = np.random.default_rng(0)
    privileged = random.uniform(-1, 1, (600, 2)).astype(np.float32)
    observations = np.concatenate([privileged, privileged[:, :1]], axis=1)
    actions = np.clip((privileged[:, 1:] - privileged[:, :1]) / 0.3, -1, 1)
    rewards = -np.abs(privileged[:, 1] - privileged[:, 0])
    before = rollout(algorithm)
    arrays = {"observations": observations, "actions": actions, "rewards": rewards, "lengths": [1] * 600}
    errors = agent.clone(algorithm, **arrays, seed=0)
    assert errors["clone/action_error"] < 0.05
    assert rollout(algorithm) > max(0.9, before)
    algorithm.learn(256)  # PPO goes on from there
    assert rollout(algorithm) > 0.8
    with pytest.raises(UsageError, match="needs demonstrations"):
        agent.clone(algorithm, **{name: array[:0] for name, array in arrays.items()}, seed=0)


@pytest.mark.parametrize("kind", ["ppo", "scratch", "sac"])
def test_an_agent_that_diverges_ends_with_a_word_and_saves_nothing_of_it(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(AGENTS, kind, replace(AGENTS[kind], learning_rate=1e30))
    with pytest.raises(UserError, match=r"of the agent are not finite( after \d+ steps)?: lower policy.learning_rate"):
        run(kind, tmp_path, total_steps=1024, checkpoint_every=512)
    assert not list(tmp_path.glob("*.safetensors"))
