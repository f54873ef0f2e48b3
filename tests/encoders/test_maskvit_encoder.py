"""MaskViT's encoder: streaming equals batch, the artifact, what is missing, tokenizers that do not fit."""

import pytest
import torch
from moving_squares import FRAMES, GRID, VIEW, generator, make, make_encoder, pictures, tokenizer
from tiny_sequences import image_encoder

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, SequenceEncoder
from embodied.encoders.artifact import fingerprint, freeze, load_artifact, save_encoder
from embodied.encoders.maskvit import MaskViTEncoder
from embodied.encoders.sensorimotor import SensorimotorEncoder, sequence_config
from embodied.objectives.video.maskvit import MaskViT

LENGTH = 9


def window(steps=LENGTH):
    return {VIEW: pictures(2, frames=steps), ACTION: torch.randn(2, steps, 2, generator=generator(1))}


@torch.no_grad()
def test_step_by_step_is_what_the_whole_episode_gives():
    made, seen = make_encoder().eval(), window()
    whole, out = made(seen)
    assert whole.shape == (2, LENGTH, 32) and torch.equal(out["pooled"], whole[:, -1])
    codes = made.encode_frames(seen[VIEW].flatten(0, 1)).unflatten(0, (2, LENGTH))
    for step in range(LENGTH):  # a stream recalls codes, and does not know the last action yet
        part = slice(max(0, step + 1 - FRAMES), step + 1)
        action = seen[ACTION][:, part].clone()
        action[:, -1] = float("nan")
        torch.testing.assert_close(made({VIEW: codes[:, part], ACTION: action})[0][:, -1], whole[:, step])
    assert torch.equal(made({VIEW: codes.long(), ACTION: seen[ACTION]})[0], whole)


@torch.no_grad()
def test_frames_before_an_episode_began_do_not_matter():
    made, seen = make_encoder().eval(), window(2)
    expected = made(seen)[1]["pooled"]
    late = {name: torch.cat([value[:, :1].flip(0), value], dim=1) for name, value in seen.items()}
    away = torch.tensor([True, False, False]).expand(2, -1)
    assert torch.equal(made({**late, **{f"{name}_is_pad": away for name in late}})[1]["pooled"], expected)
    assert not torch.allclose(made(late)[1]["pooled"], expected)


@torch.no_grad()
def test_every_frame_and_known_action_counts_and_both_may_be_missing():
    made, seen = make_encoder().eval(), window(FRAMES)
    expected = made(seen)[1]["pooled"]
    for name, step in ((VIEW, 0), (VIEW, -1), (ACTION, 0), (ACTION, -2)):
        other = {key: value.clone() for key, value in seen.items()}
        other[name][:, step] = 0
        assert not torch.equal(made(other)[1]["pooled"], expected), (name, step)
    without = made({VIEW: seen[VIEW]})[1]["pooled"]
    unknown = {**seen, f"{ACTION}_is_pad": torch.ones(2, FRAMES, dtype=torch.bool)}
    assert torch.equal(made(unknown)[1]["pooled"], without)
    video = make_encoder(action_dim=0).eval()
    assert torch.equal(video(seen)[0], video({VIEW: seen[VIEW]})[0])
    with pytest.raises(UsageError, match="window: expected some of"):
        made({})


@torch.no_grad()
def test_the_artifact_rebuilds_encoder_and_predictions(tmp_path):
    made = make_encoder()
    made.sequence.fit({ACTION: (torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0]))})
    assert isinstance(made, SequenceEncoder) and isinstance(made, SensorimotorEncoder)
    save_encoder(made, tmp_path / "artifact", card="tiny\n")
    again = freeze(load_artifact(tmp_path / "artifact"))
    assert isinstance(again, MaskViTEncoder) and fingerprint(again) == fingerprint(made)
    assert torch.equal(again(window())[0], made(window())[0])
    assert sequence_config(str(tmp_path / "artifact")) == made.config()
    assert made.config()["latent"] == "codes" and made.config()["network"]["context"] == FRAMES
    shown = window(FRAMES)
    batch = {"codes": made.encode_clip(shown[VIEW]), ACTION: shown[ACTION]}
    found = [MaskViT(each).eval().predict(batch, generator=generator()) for each in (made, again)]
    assert torch.equal(found[0], found[1])
    frames = again.decode_clip(found[1])
    assert frames.shape == shown[VIEW].shape and frames.dtype == torch.uint8


def test_recomputing_blocks_is_no_part_of_the_artifact():
    assert make(objective={"checkpointing": True}).encoder.config() == make_encoder().config()


def test_tokenizers_that_do_not_fit_are_refused():
    network = make_encoder().sequence.config()
    with pytest.raises(UsageError, match=r"has a grid of \(4, 4\) and 8 codes, the network \(4, 4\) and 9"):
        MaskViTEncoder(frames=tokenizer(), network={**network, "vocabulary": 9})
    with pytest.raises(UsageError, match=rf"gives {GRID * GRID} values per frame, not 9"):
        MaskViTEncoder(frames=tokenizer(), network={**network, "latent_dim": 9})
    with pytest.raises(UsageError, match="latent must be codes"):
        MaskViTEncoder(frames=tokenizer(), latent="pooled", network=network)
    with pytest.raises(UsageError, match="this image encoder gives none"):
        MaskViTEncoder(frames=image_encoder(), network=network)
    other = tokenizer()
    other.project.weight.data.mul_(-1)
    assert fingerprint(MaskViTEncoder(frames=other, network=network)) != fingerprint(make_encoder())
