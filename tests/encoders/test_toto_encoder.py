"""Toto's encoder: windows, streams, the artifact; and controllers on it."""

import numpy as np
import pytest
import torch
from moving_squares import FRAMES, GRID, VIEW, clips, generator, pictures, tokenizer
from tiny_toto import make_encoder

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.encoders.sensorimotor import TOTO_NAME, sequence_config
from embodied.encoders.toto import TotoEncoder
from embodied.policies.bc import BCPolicy
from embodied.policies.necks.sequence import SequenceNeck

LONG = FRAMES + 4


def window(rows=2, frames=LONG):
    return {VIEW: pictures(rows, frames=frames), ACTION: torch.randn(rows, frames, 2, generator=generator(3))}


@torch.no_grad()
@pytest.mark.parametrize("actions", [False, True])
def test_a_stream_gives_what_the_whole_episode_gives(actions):
    encoder = make_encoder(actions=actions).eval()
    given = window()
    features, out = encoder(given)
    assert features.shape == (2, LONG, 32)
    assert torch.equal(out["pooled"], features[:, -1])
    codes = []
    for step in range(LONG):  # what a robot has: the codes it recalls, the actions it did
        codes.append(encoder.encode_frames(given[VIEW][:, step]))
        start = max(0, step + 1 - FRAMES)
        recalled = {VIEW: torch.stack(codes[start:], dim=1), ACTION: given[ACTION][:, start : step + 1].clone()}
        recalled[ACTION][:, -1] = float("nan")  # not done yet
        torch.testing.assert_close(encoder(recalled)[0][:, -1], features[:, step], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_frames_and_their_codes_are_the_same_and_actions_only_count_where_they_are_read():
    plain, reading = make_encoder().eval(), make_encoder(actions=True).eval()
    given = window()
    coded = {**given, VIEW: plain.encode_clip(given[VIEW])}
    assert torch.equal(plain(given)[0], plain(coded)[0])
    assert torch.equal(plain({**given, ACTION: given[ACTION] + 1})[0], plain(given)[0])
    assert torch.equal(plain({VIEW: given[VIEW]})[0], plain(given)[0])
    moved = {**given, ACTION: given[ACTION].clone()}
    moved[ACTION][:, 2] += 1
    changed = (reading(moved)[0] != reading(given)[0]).any(dim=-1).all(dim=0)
    assert changed.tolist() == [False] * 3 + [True] * (LONG - 3 - 2) + [False] * 2  # 2 is out of the last windows
    with pytest.raises(UsageError, match="window: expected some of"):
        plain({STATE: torch.zeros(1, 2, 3)})


@torch.no_grad()
def test_tokens_at_any_depth_and_the_pooled_feature_is_made_of_them():
    encoder = make_encoder(depth=4, read_depth=3).eval()
    given = window(frames=FRAMES)
    found = encoder.at_depths(given, [1, 3, 4])
    assert {depth: tuple(part.shape) for depth, part in found.items()} == dict.fromkeys([1, 3, 4], (2, FRAMES, 16, 32))
    torch.testing.assert_close(encoder(given)[0], found[3].mean(dim=2))


@torch.no_grad()
def test_the_artifact_is_the_encoder(tmp_path):
    encoder = make_encoder(actions=True, pool="last", tied=False).eval()
    encoder.sequence.fit({ACTION: (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0]))})
    save_encoder(encoder, tmp_path / "encoder", card="")
    again = load_artifact(tmp_path / "encoder").eval()
    assert isinstance(again, TotoEncoder) and fingerprint(again) == fingerprint(encoder)
    assert torch.equal(again(window())[0], encoder(window())[0])
    config = sequence_config(str(tmp_path / "encoder"))
    assert config is not None and config["name"] == TOTO_NAME and config["latent"] == "codes"
    network = {**encoder.config()["network"], "vocabulary": 9}
    with pytest.raises(UsageError, match=rf"a grid of \({GRID}, {GRID}\) and 8 codes, the network .* and 9"):
        TotoEncoder(frames=tokenizer(), network=network)


def policy(encoder, **options):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BCPolicy(
            encoder,
            camera="front",
            feature_shape=[GRID * GRID],
            **{
                **{"proprioception_dim": 3, "action_dim": 2, "head": "mlp", "hidden": [16], "neck": "sequence"},
                **{"feature": "codes", "history": FRAMES, "chunk": 2, **options},
            },
        )


@pytest.mark.parametrize("readout", ["feature", "attention"])
@pytest.mark.parametrize("tune", ["frozen", "full", "lora"])
def test_controllers_learn_on_it(readout, tune):
    encoder = make_encoder(actions=True).eval().requires_grad_(False)
    before = fingerprint(encoder)
    made = policy(encoder, tune=tune, neck_options={"readout": readout}).train()
    batch = {
        "features": clips(6)["codes"].float(),
        STATE: torch.cat([torch.randn(6, FRAMES, 5), torch.full((6, FRAMES, 1), 9.0)], dim=-1),
        ACTION: torch.randn(6, 2, 2),
        "pad_mask": torch.ones(6, 2, dtype=torch.bool),
    }
    made.loss(batch, generator())[0].backward()
    moved = {name for name, part in made.named_parameters() if part.grad is not None and bool(part.grad.any())}
    neck = made.controller.neck
    assert isinstance(neck, SequenceNeck)
    assert any("neck.network." in name for name in moved) == (tune != "frozen")
    assert any("neck.readout." in name for name in moved) == (readout == "attention")
    assert fingerprint(encoder) == before


@torch.inference_mode()
def test_a_policy_acts_on_frames_step_by_step_as_on_the_window():
    encoder = make_encoder(actions=True).eval().requires_grad_(False)
    made = policy(encoder, neck_options={"readout": "attention"}).eval()
    frames, carry, acted = pictures(1, frames=LONG), made.initial(1), []
    for step in range(LONG):
        seen = {VIEW: frames[:, step], STATE: torch.zeros(1, 3)}
        carry, plan = made.act(carry, seen)
        neck, start = made.controller.neck, max(0, step + 1 - FRAMES)
        past = torch.stack([*acted[start:step], torch.zeros(1, 2)], dim=1)
        values = {
            VIEW: encoder.encode_clip(frames[:, start : step + 1]),
            ACTION: encoder.sequence.normalize(ACTION, past),
        }
        hidden = {name: torch.zeros(1, step + 1 - start, dtype=torch.bool) for name in values}
        moment = neck.readout(encoder.sequence.present_tokens(values, hidden))
        expected = made.normalizer.restore(made.controller.action_head.sample(moment))
        torch.testing.assert_close(plan[:, 0], expected[:, 0], rtol=1e-4, atol=1e-5)
        acted.append(made.normalizer.within_bounds(plan[:, 0]))
    assert np.ptp(torch.cat(acted).numpy(), axis=0).max() > 1e-5


def test_proprioception_goes_beside_what_is_read():
    made = policy(make_encoder().eval().requires_grad_(False), neck_options={"state_beside": True}).eval()
    memories = torch.cat([torch.randn(50, 5, generator=generator(4)) * 3 + 1, torch.zeros(50, 1)], dim=-1)
    made.controller.fit_state(memories)
    codes = clips(50)["codes"].float()
    moment = made.controller.fuse(codes, memories[:, None].expand(-1, FRAMES, -1))
    assert moment.shape == (50, 1, 32 + 3)
    beside = moment[:, 0, 32:]
    torch.testing.assert_close(beside.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.std(dim=0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
