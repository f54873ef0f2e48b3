"""Encoders and policies of GR-1: streaming equals batch, instructions, and the action head as it was pre-trained."""

import numpy as np
import pytest
import torch
from letters_text import LettersText
from tiny_gr1 import encoder, make_store
from tiny_sequences import CONTEXT, VIEW, episode

from embodied.bench.imitation_data import demonstrations, measure
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, FEATURES, INSTRUCTION, STATE
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint, freeze, load_artifact, save_encoder
from embodied.encoders.text.load import text_fingerprint
from embodied.models.sequence.gr1 import GR1Network
from embodied.policies.assembly import fill_for_sequence
from embodied.policies.bc import BCPolicy
from embodied.policies.export import export_policy
from embodied.policies.heads.gr1 import GR1Head

LENGTH, TASK = 9, "go round"


def made_encoder(**options):
    made = encoder(**{"gripper": 1, **options})
    if made.text is not None:
        made.text = {"spec": "letters", "fingerprint": text_fingerprint(LettersText())}
    if (head := made.network.action_head) is not None:
        scale = (torch.tensor([0.5, 2.0])[: head.action_dim], torch.tensor([2.0, 1.0])[: head.action_dim])
        head.scale.fit(ACTION, {ACTION: scale})
    return freeze(made)


def policy(made=None, *, text=True, **options):
    settings = {"head": "gr1", "chunk": 1, "proprioception_dim": 3, "action_dim": 2, "history": CONTEXT, **options}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BCPolicy(
            made or made_encoder(),
            camera="front",
            feature_shape=[5, 8],
            neck="sequence",
            feature="class_and_patches",
            text_encoder=LettersText() if text else None,
            **settings,
        )


def observations(seed=1):
    arrays = episode(seed, LENGTH)
    return {name: torch.from_numpy(arrays[name]) for name in (VIEW, STATE)}


@torch.no_grad()
def test_step_by_step_is_what_the_whole_episode_gives():
    made, seen, said = made_encoder(), observations(), torch.tensor([[1.0, 2.0, 3.0]])
    window = {name: values[None] for name, values in seen.items()}
    whole, out = made({**window, INSTRUCTION: said})
    assert whole.shape == (1, LENGTH, 32) and torch.equal(out["pooled"], whole[:, -1])
    assert out["actions"].shape == (1, LENGTH, 2) and set(out["actions"][0, :, 1].tolist()) <= {1.0, 3.0}
    latents = made.encode_frames(seen[VIEW])
    assert latents.shape == (LENGTH, 5, 8)
    for step in range(LENGTH):
        part = slice(max(0, step + 1 - CONTEXT), step + 1)
        streamed, _ = made({VIEW: latents[None, part], STATE: seen[STATE][None, part], INSTRUCTION: said})
        torch.testing.assert_close(streamed[:, -1], whole[:, step], rtol=1e-4, atol=1e-5)
    padded = {name: torch.cat([values[:1], values[:2]])[None] for name, values in seen.items()}
    away = torch.tensor([[True, False, False]])
    early, _ = made({**padded, **{f"{name}_is_pad": away for name in padded}, INSTRUCTION: said})
    torch.testing.assert_close(early[:, -1], whole[:, 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made(window)[0], whole)  # without words
    with pytest.raises(UsageError, match="window: expected some of"):
        made({INSTRUCTION: said})


def test_an_artifact_rebuilds_itself(tmp_path):
    made, seen = made_encoder(), observations()
    save_encoder(made, tmp_path / "encoder", card="gr1\n")
    window, again = {name: values[None] for name, values in seen.items()}, freeze(load_artifact(tmp_path / "encoder"))
    with torch.inference_mode():
        assert torch.equal(again(window)[1]["actions"], made(window)[1]["actions"])
    assert fingerprint(again) == fingerprint(made) and again.text == made.text


def test_the_pretrained_head_acts_without_any_training():
    """As the encoder says: what the policy does from frames is `actions` of the whole episode."""
    made, seen = made_encoder(), observations()
    trained, said = policy(made).eval(), LettersText().encode([TASK])
    with torch.inference_mode():
        window = {name: values[None] for name, values in seen.items()}
        expected = made({**window, INSTRUCTION: said})[1]["actions"][0]
        carry = trained.initial(1, instructions=[TASK])
        for step in range(LENGTH):
            carry, plan = trained.act(carry, {name: values[step][None] for name, values in seen.items()})
            torch.testing.assert_close(plan[0, 0], expected[step], rtol=1e-4, atol=1e-4)
    assert expected[:, 0].std() > 1e-3


def samples(path, made):
    store = EpisodeStore.open(path)
    latents = made.encode_frames(torch.from_numpy(store.read(VIEW, 0, store.num_frames))).numpy()
    return demonstrations(
        store, [latents], episodes=len(store), history=CONTEXT, chunk=1, forward=False, memories=True,
        text_encoder=LettersText(),
    )  # fmt: skip


@pytest.mark.parametrize("tune", ["frozen", "full", "lora"])
def test_it_goes_on_learning_from_where_it_was(tmp_path, tune):
    made = made_encoder()
    data = samples(make_store(tmp_path / "store"), made)
    trained = policy(made, tune=tune, tune_rank=2)
    before = {name: part.clone() for name, part in made.state_dict().items()}
    measure(trained, data, device=torch.device("cpu"))
    assert torch.equal(trained.normalizer.scale, torch.ones(2)) and not trained.normalizer.offset.any()
    head = trained.controller.head
    assert torch.equal(head.network.arm.weight, made.network.action_head.arm.weight)
    assert torch.equal(head.network.scale.mean, torch.tensor([0.5, 2.0]))
    optimizer = torch.optim.Adam([part for part in trained.parameters() if part.requires_grad], lr=3e-3)
    losses = []
    for step in range(40):
        loss, metrics = trained.train().loss(data.batch(np.arange(len(data))), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] and set(metrics) == {"action_error"}
    assert all(torch.equal(part, before[name]) for name, part in made.state_dict().items())
    again = policy(made, tune=tune, tune_rank=2)
    again.load_trained_tensors(trained.trained_tensors())
    batch = data.batch(np.array([4, 11]))
    plans = [
        each.eval().predict(batch[FEATURES], batch[STATE], instruction=batch[INSTRUCTION]) for each in (trained, again)
    ]
    assert torch.equal(*plans)


def test_instructions_reach_the_transformer_and_not_the_head_besides():
    trained = policy().eval()
    assert trained.controller.instruct is None and trained.controller.head.feature_dim == 32
    features, memories = torch.randn(2, CONTEXT, 5, 8), torch.randn(2, CONTEXT, 6)
    memories[..., -1] = LENGTH  # moments before
    one, other = (
        trained.predict(features, memories, instruction=LettersText().encode(words))
        for words in ([TASK, TASK], [TASK, "turn the other way"])
    )
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    with pytest.raises(UsageError, match="this policy follows instructions: give it their embeddings"):
        trained.predict(features, memories)
    silent = policy(text=False, neck_options={"leave_out": [INSTRUCTION]}).eval()
    assert silent.predict(features, memories).shape == (2, 1, 2)


def test_other_heads_read_the_same_feature_and_fresh_weights_keep_the_scale():
    made = made_encoder()
    other = policy(made, head="mlp", chunk=3, hidden=[16])
    assert other.controller.head.feature_dim == 32 and other.normalizer.kind == "zscore"
    fresh = policy(made, neck_options={"fresh": True}).controller
    assert not torch.equal(fresh.head.network.arm.weight, made.network.action_head.arm.weight)
    assert torch.equal(fresh.head.network.scale.std, made.network.action_head.scale.std)
    assert isinstance(fresh.neck.network, GR1Network)
    assert not torch.equal(fresh.neck.network.trunk.blocks[0].qkv.weight, made.sequence.trunk.blocks[0].qkv.weight)


def test_it_exports_as_a_graph(tmp_path):
    trained = policy().eval()
    trained.normalizer.fitted.fill_(True)
    written = export_policy(trained, tmp_path, format="torch", frame_shape=[16, 16, 3])
    assert sorted(written) == ["from_features.pt2", "from_frames.pt2"]


def test_the_head_masks_and_averages_what_is_real():
    torch.manual_seed(0)
    head = GR1Head(feature_dim=4, action_dim=3, gripper=2)
    features, actions = torch.randn(5, 1, 4), torch.randn(5, 1, 3)
    real = torch.tensor([[True], [True], [False], [True], [True]])
    mask = torch.tensor([True, False, True])
    loss, metrics = head.loss(features, actions, real, action_mask=mask)
    other = torch.where(real[..., None] & mask, actions, torch.full_like(actions, float("nan")))
    assert torch.equal(head.loss(features, other, real, action_mask=mask)[0], loss)
    kept = real[:, 0]
    predicted = head.network(features[kept, 0])
    errors = head.network.errors(predicted, actions[kept, 0])
    torch.testing.assert_close(loss, errors.arm[:, 0].mean() + 0.01 * errors.gripper.mean())
    assert head.sample(features, action_mask=mask)[..., 1].abs().max() == 0
    assert float(metrics["action_error"]) > 0
    with pytest.raises(UsageError, match=r"policy.chunk must be 1, got 4"):
        GR1Head(feature_dim=4, action_dim=3, horizon=4)


def test_what_is_left_open_goes_with_the_encoder():
    config = made_encoder().config()
    filled = fill_for_sequence({"head": "gr1", "history": None}, config)
    assert (filled["neck"], filled["history"], filled["feature"]) == ("sequence", CONTEXT, "class_and_patches")
    assert filled.get("chunk") is None
    assert fill_for_sequence({"head": "mlp", "history": None}, config)["chunk"] == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": False}, "pre-trained with instructions by policy.instruction=letters, this policy has none"),
        ({"action_dim": 3}, "the encoder's action head gives 2 values, this task takes 3"),
        ({"proprioception_dim": 4}, "pre-trained with 3 values of observation.state, this task has 4"),
        ({"actions": "zscore"}, "policy.head=gr1 has the scale of its pre-training"),
        ({"head": "mlp", "actions": "units"}, "policy.actions=units is for policy.head=gr1"),
        ({"chunk": 4}, "policy.chunk must be 1, got 4"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        policy(**options)


def test_the_head_is_for_encoders_that_have_one():
    with pytest.raises(
        UsageError, match=r"policy.head=gr1 is the action head that embodied pretrain objective=gr1 trains"
    ):
        policy(made_encoder(action_dim=0))
    made = made_encoder()
    made.text = {"spec": "clip", "fingerprint": "another"}
    with pytest.raises(UsageError, match=r"policy.instruction=clip, this policy has another text encoder"):
        policy(made)
