"""The sequence encoder: its artifact, windows of frames and of latents, what is missing, windows that are shorter."""

import copy

import pytest
import torch
from tiny_sequences import CONTEXT, VIEW, encoder, image_encoder

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, STATE, SequenceEncoder
from embodied.encoders.artifact import fingerprint, freeze, load_artifact, save_encoder
from embodied.encoders.sensorimotor import frame_encoder, sequence_config


def window(steps=CONTEXT, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return {
        VIEW: torch.randint(0, 256, (2, steps, 16, 16, 3), generator=draws, dtype=torch.uint8),
        STATE: torch.randn(2, steps, 3, generator=draws),
        ACTION: torch.randn(2, steps, 2, generator=draws),
    }


@torch.no_grad()
def test_the_artifact_rebuilds_it_with_its_image_encoder_and_statistics(tmp_path):
    made = encoder()
    assert isinstance(made, SequenceEncoder)
    made.sequence.get_buffer("mean_action").fill_(0.3)
    save_encoder(made, tmp_path / "artifact", card="tiny\n")
    again = freeze(load_artifact(tmp_path / "artifact"))
    assert fingerprint(again) == fingerprint(made)
    assert torch.equal(again(window())[0], made(window())[0])
    assert sequence_config(str(tmp_path / "artifact")) == made.config()
    made.sequence.get_buffer("mean_action").fill_(0.4)
    assert fingerprint(again) != fingerprint(made)


def test_it_is_told_from_other_encoders(tmp_path):
    save_encoder(image_encoder(), tmp_path / "images", card="tiny\n")
    assert sequence_config(str(tmp_path / "images")) is None
    assert sequence_config("default") is None and sequence_config("hf:nowhere") is None
    images, made = image_encoder(), encoder()
    assert frame_encoder(images) is images
    assert frame_encoder(made) is made.frames
    (tmp_path / "images" / "config.yaml").write_text("{")
    with pytest.raises(UserError, match="not readable YAML"):
        sequence_config(str(tmp_path / "images"))


@torch.no_grad()
def test_features_of_frames_are_those_of_their_latents():
    made, shown = encoder().eval(), window()
    latents = made.encode_frames(shown[VIEW].flatten(0, 1)).unflatten(0, (2, CONTEXT))
    features, out = made(shown)
    assert features.shape == (2, CONTEXT, made.width)
    assert torch.equal(out["pooled"], features[:, -1])
    assert set(out) == {VIEW, STATE, ACTION, "pooled"}
    assert torch.equal(made({**shown, VIEW: latents})[0], features)


@torch.no_grad()
def test_a_key_that_is_missing_is_one_that_is_padded():
    made, shown = encoder().eval(), window()
    padded = {**shown, f"{STATE}_is_pad": torch.ones(2, CONTEXT, dtype=torch.bool)}
    without = {name: values for name, values in shown.items() if name != STATE}
    torch.testing.assert_close(made(without)[0], made(padded)[0])
    assert not torch.allclose(made(shown)[0], made(padded)[0])


@torch.no_grad()
def test_every_input_counts_but_the_last_action():
    made, shown = encoder().eval(), window()
    expected = made(shown)[1]["pooled"]
    for name, step in ((VIEW, 0), (VIEW, -1), (STATE, -1), (ACTION, -2)):
        other = copy.deepcopy(shown)
        other[name][:, step] = 0
        assert not torch.equal(made(other)[1]["pooled"], expected), (name, step)
    shown[ACTION][:, -1] = float("nan")
    assert torch.equal(made(shown)[1]["pooled"], expected)


def test_values_of_another_robot_are_refused():
    shown = window()
    shown[STATE] = shown[STATE][..., :2]
    with pytest.raises(UsageError, match=r"observation.state: expected 3 values per step, got 2"):
        encoder()(shown)


@torch.no_grad()
def test_a_shorter_window_ends_at_the_same_time():
    """Its present has the time of a whole window's present: the last step alone differs by what it cannot see."""
    made = encoder(depth=0).eval()  # without attention a token is its own input and time
    whole, short = made(window())[1], made({name: values[:, -2:] for name, values in window().items()})[1]
    torch.testing.assert_close(short[VIEW], whole[VIEW][:, -2:])
