"""Policies on MaskViT's encoder: the neck's moment is the encoder's feature, also while an episode is young."""

import pytest
import torch
from moving_squares import FRAMES, GRID, VIEW, generator, make_encoder, pictures

from embodied.core.protocols import ACTION, STATE
from embodied.encoders.artifact import freeze
from embodied.policies.assembly import fill_for_sequence
from embodied.policies.bc import BCPolicy

LENGTH = FRAMES + 3


def policy(made, **options):
    settings = fill_for_sequence({"head": "mlp", "hidden": [16], **options}, made.config())
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BCPolicy(
            made, camera="front", feature_shape=[GRID * GRID], proprioception_dim=3, action_dim=2, **settings
        )


@torch.no_grad()
def test_streaming_gives_the_features_of_the_whole_episode_and_encodes_every_image_once(monkeypatch):
    made = freeze(make_encoder())
    acting = policy(made).eval()
    assert acting.assembly.feature == "codes" and acting.history == FRAMES
    frames, states = pictures(1, frames=LENGTH)[0], torch.randn(LENGTH, 3, generator=generator(3))
    encoded, fused = [], []
    see, predict = BCPolicy.encode, BCPolicy.predict
    monkeypatch.setattr(BCPolicy, "encode", lambda self, shown: encoded.append(len(shown)) or see(self, shown))

    def record(self, features, state, **more):
        fused.append(self.acting.fuse(features, state)[:, 0])
        return predict(self, features, state, **more)

    monkeypatch.setattr(BCPolicy, "predict", record)
    carry, done = acting.initial(1), []
    for step in range(LENGTH):
        carry, plan = acting.act(carry, {VIEW: frames[step][None], STATE: states[step][None]})
        done.append(acting.normalizer.within_bounds(plan[:, 0])[0])
    whole, _ = made({VIEW: frames[None], ACTION: torch.stack(done)[None]})
    assert encoded == [1] * LENGTH
    torch.testing.assert_close(torch.stack(fused, dim=1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tune", ["full", "lora", "last_k"])
def test_what_learns_along(tune):
    trained = policy(freeze(make_encoder()), tune=tune, tune_layers=1).train()
    memories = torch.cat([torch.randn(4, FRAMES, 5), torch.arange(FRAMES).expand(4, -1)[..., None]], dim=-1)
    codes = torch.randint(8, (4, FRAMES, GRID * GRID)).float()
    trained.controller.fuse(codes, memories).square().sum().backward()
    reached = {name for name, part in trained.named_parameters() if part.grad is not None}
    inside = {name for name in reached if name.startswith("controller.neck.network.")}
    assert inside and not any(name.startswith("encoder.") for name in reached)
    if tune == "lora":
        assert all(".parametrizations." in name for name in inside)
    if tune == "last_k":
        assert {name.split(".")[4] for name in inside if ".blocks." in name} == {"1"}
