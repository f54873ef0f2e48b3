"""Policies on a sequence encoder: streaming equals batch, the past is recalled as it was, what learns and what not."""

import numpy as np
import pytest
import torch
from small_policies import SMALL
from tiny_sequences import CONTEXT, VIEW, encoder, episode, make_store

from embodied.bench.imitation_data import demonstrations, measure, recalled
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, FEATURES, PAD_MASK, STATE
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.policies.assembly import fill_for_sequence
from embodied.policies.bc import BCPolicy
from embodied.policies.export import export_policy

LENGTHS = (7, 9, 6)
HEADS = {"mlp": {"hidden": [16]}, "flow": {"head_options": SMALL["flow"], "chunk": 4}}


def policy(made=None, *, seed=2, head="mlp", chunk=3, execute=1, **options):
    made = made or encoder()
    settings = {"head": head, "chunk": chunk, "execute": execute, "history": CONTEXT, **HEADS[head], **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BCPolicy(
            made,
            camera="front",
            feature_shape=[8],
            **{"neck": "sequence", "proprioception_dim": 3, "action_dim": 2, **settings},
        )


def samples(path, made, *, history=CONTEXT, chunk=3):
    """Demonstrations of a store whose frames are encoded here."""
    store = EpisodeStore.open(path)
    with torch.inference_mode():
        latents = made.encode_frames(torch.from_numpy(store.read(VIEW, 0, store.num_frames))).numpy()
    return demonstrations(
        store, [latents], episodes=len(store), history=history, chunk=chunk, forward=False, memories=True
    )


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", lengths=LENGTHS)


def observe(arrays, step):
    return {name: torch.from_numpy(arrays[name][step])[None] for name in (VIEW, STATE)}


def test_memories_are_the_state_the_action_before_and_the_age():
    state, action = np.arange(10, dtype=np.float32).reshape(5, 2), np.arange(5, dtype=np.float32)[:, None] + 1
    expected = [[0, 1, 0, 0], [2, 3, 1, 1], [4, 5, 0, 0], [6, 7, 3, 1], [8, 9, 4, 2]]
    assert recalled(state, action, [2, 3]).tolist() == expected


@pytest.mark.parametrize(("head", "execute"), [("mlp", 1), ("mlp", 3), ("flow", 2)])
def test_streaming_equals_batch_and_encodes_every_image_once(store, monkeypatch, head, execute):
    made = encoder()
    data, trained = samples(store, made), policy(made, head=head, execute=execute)
    measure(trained, data, device=torch.device("cpu"))
    trained.eval()
    encoded, planned = [], []
    see, predict = BCPolicy.encode, BCPolicy.predict
    monkeypatch.setattr(BCPolicy, "encode", lambda self, frames: encoded.append(len(frames)) or see(self, frames))

    def record(self, features, state, **more):
        planned.append((features.clone(), state.clone()))
        return predict(self, features, state, **more)

    monkeypatch.setattr(BCPolicy, "predict", record)
    arrays, first = episode(1, LENGTHS[1]), LENGTHS[0]
    carry = trained.initial(1)
    for step in range(LENGTHS[1]):
        carry, _ = trained.act(carry, observe(arrays, step))
        carry = carry | {"acted": torch.from_numpy(arrays[ACTION][step])[None]}  # the demonstrator acts
    assert encoded == [1] * LENGTHS[1]
    assert len(planned) == len(range(0, LENGTHS[1], execute))
    for (features, state), step in zip(planned, range(0, LENGTHS[1], execute), strict=True):
        batch = data.batch(np.array([first + step]))
        torch.testing.assert_close(features, batch[FEATURES], atol=1e-5, rtol=1e-4)
        assert torch.equal(state, batch[STATE])
        torch.testing.assert_close(
            trained.acting.fuse(features, state),
            trained.acting.fuse(batch[FEATURES], batch[STATE]),
            atol=1e-5,
            rtol=1e-4,
        )


def test_the_window_is_that_of_the_encoder_whatever_stands_before_the_episode(store):
    """The neck's moment is the encoder's `pooled` for the window, in which what was not yet is padding."""
    made = encoder()
    data, trained = samples(store, made), policy(made).eval()
    arrays = episode(1, LENGTHS[1])
    for step in range(LENGTHS[1]):
        batch = data.batch(np.array([LENGTHS[0] + step]))
        window, first = {}, step - CONTEXT + 1
        rows = np.clip(np.arange(first, step + 1), 0, None)
        for name in (VIEW, STATE, ACTION):
            window[name] = torch.from_numpy(arrays[name][rows])[None]
            window[f"{name}_is_pad"] = torch.from_numpy(np.arange(first, step + 1) < 0)[None]
        _, out = made(window)
        moment = trained.controller.fuse(batch[FEATURES], batch[STATE])
        torch.testing.assert_close(moment[:, 0], out["pooled"], atol=1e-5, rtol=1e-4)
        garbage = {**window, VIEW: window[VIEW].clone(), ACTION: window[ACTION].clone()}
        garbage[VIEW][window[f"{VIEW}_is_pad"]] = 99
        garbage[ACTION][:, -1] = float("nan")  # not known yet
        assert torch.equal(made(garbage)[1]["pooled"], out["pooled"])


def test_what_is_executed_is_remembered_within_bounds():
    space = {"low": [-0.1, -0.1], "high": [0.1, 0.1], "names": [], "gripper": []}
    trained = policy(action_space=space).eval()
    trained.normalizer.offset.fill_(5.0)
    carry, plan = trained.act(trained.initial(1), observe(episode(0, 3), 0))
    assert bool((plan[:, 0] > 0.1).all())
    torch.testing.assert_close(carry["acted"], torch.full((1, 2), 0.1))


@pytest.mark.parametrize("tune", ["frozen", "full", "lora", "last_k"])
def test_what_learns_along(store, tune):
    made = encoder()
    before = {name: part.clone() for name, part in made.state_dict().items()}
    data = samples(store, made)
    trained = policy(made, tune=tune, tune_rank=2, tune_layers=1)
    measure(trained, data, device=torch.device("cpu"))
    trained.train()
    loss, _ = trained.loss(data.batch(np.arange(6)))
    loss.backward()
    reached = {name for name, part in trained.named_parameters() if part.grad is not None}
    network = {name for name in reached if name.startswith("controller.neck.network.")}
    assert any(name.startswith("controller.head.") for name in reached)
    assert not any(name.startswith("encoder.") for name in reached)
    assert bool(network) == (tune != "frozen")
    if tune == "lora":
        assert all(".parametrizations.weight.0." in name for name in network)
    if tune == "last_k":
        assert all(".blocks.1." in name for name in network)
    optimizer = torch.optim.SGD([part for part in trained.parameters() if part.requires_grad], lr=0.1)
    optimizer.step()
    assert all(torch.equal(part, before[name]) for name, part in made.state_dict().items())
    assert not any(name.startswith("encoder.") for name in trained.trained_tensors())


def test_fine_tuning_learns_what_a_single_frame_cannot_show(store):
    """The dot's next moves depend on its speed: one of two, which only several moments tell."""
    made = encoder(state_dim=0)
    data = demonstrations_without_state(store, made)
    trained = policy(made, tune="full", proprioception_dim=0)
    measure(trained, data, device=torch.device("cpu"))
    optimizer = torch.optim.AdamW([part for part in trained.parameters() if part.requires_grad], lr=2e-3)
    losses = []
    for step in range(200):
        trained.train()
        loss, _ = trained.loss(data.batch(np.arange(len(data))), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]


def demonstrations_without_state(path, made):
    store = EpisodeStore.open(path)
    with torch.inference_mode():
        latents = made.encode_frames(torch.from_numpy(store.read(VIEW, 0, store.num_frames))).numpy()
    action = store.read(ACTION, 0, store.num_frames)
    nothing = np.zeros((len(action), 0), np.float32)
    return Demonstrations(
        [latents],
        state=recalled(nothing, action, store.lengths),
        action=action,
        lengths=store.lengths,
        history=CONTEXT,
        chunk=3,
    )


def test_modalities_that_are_left_out_do_not_matter(store):
    made = encoder()
    data = samples(store, made)
    batch = data.batch(np.array([5, 12]))
    options = {"leave_out": [STATE, ACTION]}
    trained = policy(made, neck_options=options).eval()
    other = batch[STATE].clone()
    other[..., :-1] = 7.0  # all but the age
    fuse = trained.controller.fuse
    assert torch.equal(fuse(batch[FEATURES], batch[STATE]), fuse(batch[FEATURES], other))
    whole = policy(made).eval().controller.fuse
    assert not torch.allclose(whole(batch[FEATURES], batch[STATE]), whole(batch[FEATURES], other))


def test_fresh_weights_are_others_with_the_same_statistics():
    made = encoder()
    made.sequence.get_buffer("mean_action").fill_(3.0)
    start, fresh = policy(made), policy(made, neck_options={"fresh": True})
    first, second = (each.controller.neck.network for each in (start, fresh))
    assert torch.equal(first.get_buffer("mean_action"), second.get_buffer("mean_action"))
    assert not torch.equal(first.trunk.blocks[0].qkv.weight, second.trunk.blocks[0].qkv.weight)
    assert torch.equal(first.trunk.blocks[0].qkv.weight, made.sequence.trunk.blocks[0].qkv.weight)


def test_a_policy_comes_back_from_its_tensors(store):
    made = encoder()
    data, trained = samples(store, made), policy(made, tune="full", seed=1)
    measure(trained, data, device=torch.device("cpu"))
    again = policy(made, tune="full", seed=5)
    again.load_trained_tensors(trained.trained_tensors())
    arrays = episode(3, 5)
    plans = [each.eval().act(each.initial(1), observe(arrays, 0))[1] for each in (trained, again)]
    assert torch.equal(*plans)


def test_it_exports_as_a_graph(store, tmp_path):
    made = encoder()
    data, trained = samples(store, made), policy(made, tune="lora", tune_rank=2)
    measure(trained, data, device=torch.device("cpu"))
    made_files = export_policy(trained.eval(), tmp_path, format="torch", frame_shape=[16, 16, 3])
    assert sorted(made_files) == ["from_features.pt2", "from_frames.pt2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": CONTEXT + 1}, "policy.history must be at most the encoder's context of 4, got 5"),
        ({"proprioception_dim": 5}, r"pre-trained with 3 values of observation.state, this task has 5: leave it out"),
        ({"action_dim": 4}, "pre-trained with 2 values of action, this task has 4"),
        ({"neck_options": {"views": ["top"]}}, "pre-trained with views front, not 'top'"),
        ({"neck_options": {"views": ["front", "front"]}}, "a different view for each of front"),
        ({"neck_options": {"leave_out": ["actions"]}}, "unknown modality to leave out 'actions': did you mean action"),
        ({"neck_options": {"layers": 3}}, "policy.neck_options of sequence: .*layers"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        policy(**options)


def test_the_neck_is_for_sequence_encoders_and_they_for_windows():
    made = encoder()
    with pytest.raises(UsageError, match=r"policy.neck=sequence is for sequence encoders"):
        policy(made.frames)
    with pytest.raises(UsageError, match="reads windows of observations and actions, not single frames"):
        made.preprocess(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="window: expected some of"):
        made({"observation.images.side": torch.zeros(1, 4, 8)})


def test_what_is_left_open_goes_with_the_encoder():
    config = encoder().config()
    filled = fill_for_sequence({"head": "mlp", "history": None}, config)
    assert (filled["neck"], filled["history"], filled["chunk"], filled["feature"]) == (
        "sequence",
        CONTEXT,
        16,
        "pooled",
    )
    assert "chunk" not in fill_for_sequence({"head": "act"}, config)
    assert fill_for_sequence({"head": "mlp", "chunk": 2, "history": 1}, config)["chunk"] == 2
    for settings, given in (({"head": "mlp", "neck": "flare"}, config), ({"head": "mlp"}, None)):
        assert fill_for_sequence(settings, given) == settings


def test_the_loss_counts_real_actions_only(store):
    made = encoder()
    data, trained = samples(store, made), policy(made).eval()
    batch = data.batch(np.array([6]))  # the last of its episode
    assert batch[PAD_MASK].tolist() == [[True, False, False]]
    other = {**batch, ACTION: batch[ACTION].clone()}
    other[ACTION][:, 1:] = 9.0
    assert torch.equal(trained.loss(batch)[0], trained.loss(other)[0])
