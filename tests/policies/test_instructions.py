"""Policies that follow instructions: one picture, as many actions as there are things to do."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from small_policies import PLAIN_HEADS, SMALL, HashedText, TinyEncoder

from embodied.bench.imitation_data import demonstrations, measure
from embodied.bench.policy_episodes import instructions_of
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.text.load import load_text_encoder, text_fingerprint
from embodied.envs.vector import reset_slots
from embodied.policies.artifact import build_policy, describe_policy, load_policy
from embodied.policies.bc import BCPolicy
from embodied.training.evaluate import evaluate
from embodied.training.imitate import Training, imitate

LEFT, RIGHT = "go left", "go right"
GOALS = {LEFT: -0.8, RIGHT: 0.8}
CAMERA = "observation.images.front"


def make_policy(head="mlp", *, text_encoder, **options):
    torch.manual_seed(0)
    tokens = head == "conv" or options.get("neck") == "text_query"
    settings = {
        "feature_shape": (64, 3) if tokens else (3,),
        "hidden": (16,),
        "channels": 4,
        "bottleneck": None,
        "instruction_width": 4,
        "head_options": SMALL.get(head),
        "neck_options": {"heads": 3} if options.get("neck") == "text_query" else None,
        **options,
    }
    return BCPolicy(
        TinyEncoder(),
        camera="front",
        proprioception_dim=1,
        action_dim=1,
        head=head,
        text_encoder=text_encoder,
        **settings,
    )


def make_batch(policy, instruction):
    generator = torch.Generator().manual_seed(1)
    made, rows = policy.assembly, len(instruction)
    return {
        "features": torch.randn(rows, made.history, *policy.feature_shape, generator=generator),
        "observation.state": torch.zeros(rows, made.history, 1),
        "action": torch.rand(rows, made.chunk, 1, generator=generator) * 2 - 1,
        "pad_mask": torch.ones(rows, made.chunk, dtype=torch.bool),
        "instruction": instruction,
    }


def picture(rows):
    """The same for every row."""
    frames = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return {CAMERA: frames.expand(rows, -1, -1, -1).clone(), "observation.state": torch.zeros(rows, 1)}


@pytest.mark.parametrize(
    ("head", "neck"), [*((head, None) for head in PLAIN_HEADS), ("mlp", "text_query"), ("rnn_gmm", "text_query")]
)
def test_the_loss_reaches_the_instruction_only_where_the_policy_follows_it(head, neck):
    instruction = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    policy = make_policy(head, neck=neck, text_encoder=HashedText())
    policy.normalizer.fit(torch.rand(50, 1) * 2 - 1)
    loss, _ = policy.loss(make_batch(policy, instruction), torch.Generator().manual_seed(0))
    loss.backward()
    assert instruction.grad.abs().max() > 0
    if neck is None:
        deaf, unseen = make_policy(head, text_encoder=None), instruction.detach().requires_grad_()
        deaf.normalizer.fit(torch.rand(50, 1) * 2 - 1)
        loss, _ = deaf.loss(make_batch(deaf, unseen), torch.Generator().manual_seed(0))
        loss.backward()
        assert unseen.grad is None
        assert not [name for name in deaf.state_dict() if "instruct" in name]


@pytest.mark.parametrize("head", PLAIN_HEADS)
def test_rows_of_a_batch_follow_their_own_instruction(head):
    policy = make_policy(head, text_encoder=HashedText()).eval()
    texts = [LEFT, RIGHT, "stop", LEFT]
    carry = policy.initial(4, instructions=texts)
    carry, together = policy.act(carry, picture(4))
    _, again = policy.act(carry, picture(4))
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(together[0], together[3])
    for row, text in enumerate(texts[:3]):
        alone, first = policy.act(policy.initial(1, instructions=[text]), picture(1))
        torch.testing.assert_close(first[0], together[row], rtol=1e-4, atol=1e-5)
        _, second = policy.act(alone, picture(1))
        torch.testing.assert_close(second[0], again[row], rtol=1e-4, atol=1e-5)


def test_acting_encodes_every_distinct_instruction_once_and_needs_one_per_episode():
    text = HashedText()
    policy = make_policy(text_encoder=text).eval()
    carry = policy.initial(3, instructions=[LEFT, RIGHT, LEFT])
    for _ in range(3):
        carry, _ = policy.act(carry, picture(3))
    policy.initial(2, instructions=[RIGHT, LEFT])
    assert text.asked == [LEFT, RIGHT]
    assert carry["instruction"].shape == (3, 6)
    for given, message in ((None, "got none"), ([LEFT], "got 1")):
        with pytest.raises(UsageError, match=r"initial\(2, instructions=\[...\]\) needs 2, " + message):
            policy.initial(2, instructions=given)
    with pytest.raises(UsageError, match=r"give it their embeddings"):
        policy.predict(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1))


class Place(gymnasium.Env):
    """The same picture whatever is to be done; success is an action near the instruction's."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, task):
        self.task_description = task
        self.action_space = Box(-1, 1, (1,), np.float32)
        self._seen = {name: tensor[0].numpy() for name, tensor in picture(1).items()}
        self.observation_space = gymnasium.spaces.Dict(
            {CAMERA: Box(0, 255, (8, 8, 3), np.uint8), "observation.state": Box(-1, 1, (1,), np.float32)}
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen, {"success": False, "success_once": False, "score": 0.0}

    def step(self, action):
        success = bool(abs(action[0] - GOALS[self.task_description]) < 0.2)
        return self._seen, 0.0, True, False, {"success": success, "success_once": success, "score": float(success)}


def make_store(path, tasks, episodes=8):
    """Episodes of each task in turn: the same frames, the task's own action."""
    seen = {name: tensor[0].numpy() for name, tensor in picture(1).items()}
    keys = {
        CAMERA: KeySpec(shape=(8, 8, 3), dtype="uint8"),
        "observation.state": KeySpec(shape=(1,), dtype="float32"),
        "action": KeySpec(shape=(1,), dtype="float32"),
    }
    store = EpisodeStore.create(path, keys=keys, fps=10)
    for number in range(episodes):
        task = tasks[number % len(tasks)]
        action = np.full((4, 1), GOALS.get(task, 0.0), np.float32)
        store.append({**{name: np.stack([row] * 4) for name, row in seen.items()}, "action": action}, task=task)
    return store


def train(policy, store, folder, text_encoder):
    made = policy.assembly
    frames = torch.from_numpy(store.read(CAMERA, 0, store.num_frames))
    with torch.no_grad():
        features = policy.encode(frames).numpy()
    samples = demonstrations(
        store,
        [features],
        episodes=len(store),
        history=made.history,
        chunk=made.chunk,
        forward=made.recurrent,
        text_encoder=text_encoder,
    )
    policy.encoder.requires_grad_(False)
    measure(policy, samples, device=torch.device("cpu"))
    imitate(
        policy,
        samples,
        Training(steps=300, batch_size=16, learning_rate=1e-2, weight_decay=0.0, checkpoints=1),
        seed=0,
        checkpoint_folder=folder,
        metadata={},
        device=torch.device("cpu"),
        log=lambda record: None,
        reporter=SilentReporter(),
    )
    return policy.eval()


def success_by_task(policy, tasks):
    """Of one vector of environments with a task each, every slot playing several episodes."""
    simulators = SyncVectorEnv(
        [lambda task=task: Place(task) for task in tasks], copy=False, autoreset_mode=AutoresetMode.DISABLED
    )
    follows = policy.instructions is not None
    outcomes = evaluate(
        policy,
        simulators,
        reset_slots,
        range(2 * len(tasks)),
        device=torch.device("cpu"),
        reporter=SilentReporter(),
        read_instructions=instructions_of if follows else None,
    )
    return np.mean([outcome.success for outcome in outcomes])


@pytest.mark.parametrize(
    ("head", "options"),
    [("mlp", {}), ("mlp", {"neck": "text_query"}), ("gmm", {"history": 2, "head_options": {"low_noise_eval": True}})],
)
def test_one_policy_does_two_tasks_in_front_of_the_same_picture_if_it_is_told_which(head, options, tmp_path):
    store, text = make_store(tmp_path / "store", [LEFT, RIGHT]), HashedText()
    policy = train(make_policy(head, text_encoder=text, **options), store, tmp_path / "run", text)
    assert success_by_task(policy, [LEFT, RIGHT, RIGHT]) == 1.0
    assert text.asked == [LEFT, RIGHT, LEFT, RIGHT]  # once for the demonstrations, and once for the episodes


def test_a_policy_that_is_not_told_cannot(tmp_path):
    store = make_store(tmp_path / "store", [LEFT, RIGHT])
    policy = train(make_policy(text_encoder=None), store, tmp_path / "run", None)
    chunks = [policy.act(policy.initial(1, instructions=[text]), picture(1))[1] for text in (LEFT, RIGHT)]
    assert torch.equal(*chunks)
    assert success_by_task(policy, [LEFT, RIGHT]) <= 0.5


def test_an_episode_without_an_instruction_is_named(tmp_path):
    store = make_store(tmp_path / "store", [LEFT, "", RIGHT, " "])
    arguments = {"episodes": 8, "history": 1, "chunk": 1, "forward": False}
    features = [np.zeros((store.num_frames, 3), np.float32)]
    with pytest.raises(UserError, match=r"store: episode 1 \(and 3 more\) has no instruction"):
        demonstrations(store, features, text_encoder=HashedText(), **arguments)
    assert "instruction" not in demonstrations(store, features, **arguments).batch(np.array([0]))


def test_a_policy_file_names_its_text_encoder_and_refuses_another(tmp_path):
    pytest.importorskip("wordllama")
    text = load_text_encoder("wordllama")
    arguments = {
        "camera": "front",
        "proprioception_dim": 1,
        "action_dim": 2,
        "feature_shape": [768],
        "instruction_width": 4,
    }
    encoder = {"spec": "pixels", "seed": 0, "state_dim": 1, "fingerprint": ""}
    for name, mark in (("right", text_fingerprint(text)), ("wrong", "0" * 64)):
        metadata = describe_policy(
            "embodied.policies.bc.BCPolicy",
            arguments,
            encoder=encoder,
            env={},
            text_encoder={"spec": "wordllama", "fingerprint": mark},
        )
        policy = build_policy(metadata, TinyEncoder(), text)
        policy.normalizer.fit(torch.rand(5, 2))
        save_checkpoint(tmp_path / name, policy.trained_tensors(), metadata)
    assert not [name for name in policy.trained_tensors() if "table" in name]  # the text encoder is named, not kept
    loaded, _ = load_policy(tmp_path / "right", device=torch.device("cpu"))
    torch.testing.assert_close(loaded.initial(1, instructions=["open it"])["instruction"], text.encode(["open it"]))
    with pytest.raises(UserError, match=r"text encoder 'wordllama' is not the one that .* fingerprint 000000000000"):
        load_policy(tmp_path / "wrong", device=torch.device("cpu"))
