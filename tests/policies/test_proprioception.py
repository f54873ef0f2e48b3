"""The baseline that sees nothing: every head learns from proprioception alone, and no picture is ever asked for."""

import numpy as np
import pytest
import torch
from small_policies import PLAIN_HEADS, SMALL

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import FEATURES
from embodied.core.reporting import SilentReporter
from embodied.core.seeding import numpy_generator
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import encode_vectors, input_keys, looks
from embodied.policies.bc import BCPolicy
from embodied.policies.export import export_policy
from embodied.training.imitate import Training, imitate

CPU = torch.device("cpu")


def make_policy(head="mlp", **options):
    torch.manual_seed(0)
    settings = {"camera": "front", "proprioception_dim": 2, "action_dim": 2, "feature_shape": (0,), "hidden": (32,)}
    arguments = {**settings, "head": head, "head_options": SMALL.get(head), **options}
    return BCPolicy(load_encoder("proprioception"), **arguments)


def demonstrations(policy, frames=80):
    """Actions are minus the robot's own state."""
    state = numpy_generator(0, "states").uniform(-1, 1, (frames, 2)).astype(np.float32)
    rows = encode_vectors(load_encoder("proprioception"), state, "pooled")
    made = policy.assembly
    return Demonstrations(
        rows,
        state=state,
        action=-state,
        lengths=[frames // 2] * 2,
        history=made.history,
        chunk=made.chunk,
        forward=made.recurrent,
    )


def test_it_reads_the_robot_and_gives_nothing_of_it():
    encoder = load_encoder("proprioception")
    assert not looks(encoder)
    assert input_keys(encoder, ["front", "wrist"]) == ["observation.state"]
    tokens, out = encoder(encoder.preprocess(torch.randn(3, 5)))
    assert tokens.shape == (3, 1, 0) and out["pooled"].shape == (3, 0)


def test_other_encoders_read_frames_or_the_simulator():
    assert input_keys(load_encoder("pixels"), ["front", "wrist"]) == [
        "observation.images.front",
        "observation.images.wrist",
    ]
    assert input_keys(load_encoder("state", state_dim=3), ["front"]) == ["observation.environment_state"]
    with pytest.raises(UsageError, match=r"no output 'pool': choose one of pooled, tokens"):
        encode_vectors(load_encoder("state", state_dim=2), np.zeros((1, 2), np.float32), "pool")


@pytest.mark.parametrize("head", sorted(set(PLAIN_HEADS) - {"conv"}))
def test_every_head_is_trained_and_acts_without_a_picture(head):
    policy = make_policy(head)
    samples = demonstrations(policy)
    batch = samples.batch(np.arange(8))
    assert batch[FEATURES].shape == (8, policy.history, 0)
    policy.normalizer.fit(samples.actions)
    policy.controller.fit_state(samples.states)
    policy.controller.fit_features(batch[FEATURES])
    assert all(bool(buffer.isfinite().all()) for buffer in policy.controller.buffers())
    policy.after_measuring()
    loss, _ = policy.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite()
    policy.eval()
    _, chunk = policy.act(policy.initial(3), {"observation.state": torch.randn(3, 2)})  # nothing else is looked for
    assert chunk.shape[0] == 3 and chunk.shape[2] == 2 and chunk.isfinite().all()


@pytest.mark.parametrize("history", [1, 3])
def test_it_learns_what_the_robot_itself_gives_away(tmp_path, history):
    policy = make_policy(history=history)
    samples = demonstrations(policy)
    policy.normalizer.fit(samples.actions)
    imitate(
        policy,
        samples,
        Training(steps=400, batch_size=32, learning_rate=3e-3, weight_decay=0.0, checkpoints=1),
        seed=0,
        checkpoint_folder=tmp_path,
        metadata={},
        device=CPU,
        log=lambda record: None,
        reporter=SilentReporter(),
    )
    policy.eval()
    state = torch.tensor([[0.5, -0.5], [-0.8, 0.1]])
    _, chunk = policy.act(policy.initial(2), {"observation.state": state})
    assert (chunk[:, 0] + state).abs().max() < 0.15


@pytest.mark.parametrize("options", [{"neck": "spatial"}, {"neck": "attention"}, {"neck": "spatial_softmax"}])
def test_necks_that_look_at_a_picture_are_refused(options):
    message = f"policy.neck={options['neck']} looks at a picture's tokens, of which encoder=proprioception has none"
    with pytest.raises(UsageError, match=message):
        make_policy(feature_shape=(1, 0), **options)


def test_a_policy_that_sees_nothing_at_all_is_refused():
    with pytest.raises(UsageError, match="feature_dim of a policy head must be at least 1, got 0"):
        make_policy(proprioception_dim=0)


@pytest.mark.parametrize("tune", ["full", "lora", "last_k"])
def test_there_is_nothing_to_tune(tune):
    with pytest.raises(UsageError, match=r"policy\.tune"):
        make_policy(tune=tune)


def test_there_is_no_graph_to_export(tmp_path):
    with pytest.raises(UserError, match="encoder=proprioception sees nothing"):
        export_policy(make_policy().eval(), tmp_path, format="torch", frame_shape=None)
