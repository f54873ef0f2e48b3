"""Encoders and policies of HPT: streaming equals batch, and robots that it was not pre-trained for."""

import pytest
import torch
from tiny_mixtures import make
from tiny_sequences import CONTEXT, VIEW, episode, image_encoder

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, STATE
from embodied.encoders.artifact import build_encoder, freeze, load_artifact, save_encoder
from embodied.encoders.hpt import HPTEncoder
from embodied.policies.bc import BCPolicy
from embodied.policies.necks.sequence import recall

LENGTH = 9


def encoder(body="dot", latent="tokens"):
    with torch.random.fork_rng():
        network = make().encoder.network(body).config()
        torch.manual_seed(3)
        made = HPTEncoder(frames=image_encoder(), latent=latent, network=network)
    made.sequence.load_state_dict(make().encoder.network(body).state_dict())
    return freeze(made)


def policy(made=None, **options):
    settings = {"camera": "front", "proprioception_dim": 3, "action_dim": 2, "history": CONTEXT, **options}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BCPolicy(
            made or encoder(),
            feature_shape=[4, 8],
            head="mlp",
            neck="sequence",
            feature="tokens",
            chunk=3,
            hidden=[16],
            **settings,
        )


def observations(seed=1):
    arrays = episode(seed, LENGTH)
    return {name: torch.from_numpy(arrays[name]) for name in (VIEW, STATE)}, torch.from_numpy(arrays[ACTION])


def test_step_by_step_is_what_the_whole_episode_gives():
    made, (seen, _) = encoder(), observations()
    with torch.inference_mode():
        whole, out = made({name: values[None] for name, values in seen.items()})
        assert whole.shape == (1, LENGTH, 32) and torch.equal(out["pooled"], whole[:, -1])
        latents = made.encode_frames(seen[VIEW])
        for step in range(LENGTH):
            part = slice(max(0, step + 1 - CONTEXT), step + 1)
            streamed, _ = made({VIEW: latents[None, part], STATE: seen[STATE][None, part]})
            torch.testing.assert_close(streamed[:, -1], whole[:, step])
        padded = {name: torch.cat([values[:1], values[:2]])[None] for name, values in seen.items()}
        away = torch.tensor([[True, False, False]])
        early, _ = made({**padded, **{f"{name}_is_pad": away for name in padded}})
    torch.testing.assert_close(early[:, -1], whole[:, 1])


def test_an_artifact_rebuilds_itself(tmp_path):
    made, (seen, _) = encoder(), observations()
    save_encoder(made, tmp_path / "encoder", card="hpt\n")
    window = {name: values[None] for name, values in seen.items()}
    with torch.inference_mode():
        assert torch.equal(load_artifact(tmp_path / "encoder").eval()(window)[0], made(window)[0])
    with pytest.raises(UserError, match="vectors, cls, pooled, tokens, got 'layers'"):
        build_encoder({**made.config(), "latent": "layers"})


@pytest.mark.parametrize("tune", ["frozen", "full", "lora", "last_k"])
def test_a_policy_acts_on_the_features_of_the_encoder(tune):
    made, (seen, acted) = encoder(), observations()
    trained = policy(made, tune=tune).eval()
    carry = trained.initial(1)
    features, memories = [], []
    for step in range(LENGTH):
        observation = {name: values[step][None] for name, values in seen.items()}
        carry, plan = trained.act(carry, observation)
        before = acted[step - 1 : step] if step else torch.zeros(1, 2)
        carry = carry | {"acted": acted[step][None]}
        features.append(trained.see(observation))
        memories.append(recall(observation[STATE], before, torch.tensor([step])))
        first = [0] * max(0, CONTEXT - 1 - step)  # windows repeat the first moment before the episode began
        window = [*first, *range(max(0, step + 1 - CONTEXT), step + 1)]
        with torch.inference_mode():
            expected = trained.predict(
                torch.stack([features[i] for i in window], 1), torch.stack([memories[i] for i in window], 1)
            )
            moment = trained.controller.neck(
                torch.stack([features[i] for i in window], 1), torch.stack([memories[i] for i in window], 1)
            )
            whole = made({name: values[None, : step + 1] for name, values in seen.items()})[0]
        torch.testing.assert_close(plan, expected)
        torch.testing.assert_close(moment[:, -1], whole[:, -1])


def test_frozen_weights_stay_and_fresh_ones_differ():
    made = encoder()
    frozen, full = policy(made), policy(made, tune="full")
    assert not any(part.requires_grad for part in frozen.controller.neck.network.parameters())
    assert all(part.requires_grad for part in full.controller.neck.network.parameters())
    fresh = policy(made, neck_options={"fresh": True}).controller.neck.network
    assert not torch.equal(fresh.trunk.blocks[0].mlp["fc1"].weight, made.sequence.trunk.blocks[0].mlp["fc1"].weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proprioception_dim": 4}, "pre-trained with 3 values of observation.state, this task has 4"),
        ({"camera": "top"}, "pre-trained with views front, not 'top'"),
        ({"history": CONTEXT + 1}, "at most the encoder's context of 4"),
    ],
)
def test_an_embodiment_that_it_does_not_know(options, message):
    with pytest.raises(UsageError, match=message):
        policy(**options)
