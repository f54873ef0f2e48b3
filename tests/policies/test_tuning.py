"""Encoders that learn along: what changes, what stays, what is saved."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.vit import ViTEncoder
from embodied.policies.bc import BCPolicy
from embodied.policies.tuning import merged_copy, tuned_copy
from embodied.training.imitate import parameter_groups


def make_encoder():
    torch.manual_seed(0)
    return freeze(ViTEncoder(image_size=16, patch_size=8, width=12, depth=3, heads=3))


def make_policy(encoder, tune, **options):
    torch.manual_seed(1)
    policy = BCPolicy(
        encoder,
        camera="c",
        proprioception_dim=0,
        action_dim=2,
        feature_shape=(12,),
        hidden=(8,),
        tune=tune,
        tune_rank=2,
        tune_layers=1,
        **options,
    )
    policy.normalizer.fit(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    return policy


def make_batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "inputs": torch.randint(0, 256, (6, 1, 16, 16, 3), generator=generator, dtype=torch.uint8),
        "action": torch.rand(6, 1, 2, generator=generator),
        "pad_mask": torch.ones(6, 1, dtype=torch.bool),
    }


def train(policy, steps=5):
    optimizer = torch.optim.AdamW(parameter_groups(policy, 1e-2, None), lr=1e-2)
    for _ in range(steps):
        policy.train()
        loss, _ = policy.loss(make_batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def changed(policy, before):
    return {
        name
        for name, tensor in policy.encoder.state_dict().items()
        if name in before and not torch.equal(tensor, before[name])
    }


@pytest.mark.parametrize("tune", ["full", "lora", "last_k"])
def test_only_what_should_learn_changes_and_the_given_encoder_never_does(tune):
    encoder = make_encoder()
    mark = fingerprint(encoder)
    policy = make_policy(encoder, tune)
    before = {name: tensor.clone() for name, tensor in policy.encoder.state_dict().items()}
    train(policy)
    moved = changed(policy, before)
    if tune == "lora":
        assert moved and all(".parametrizations.weight.0." in name for name in moved)
        assert len(moved) == 3 * 4 * 2  # three blocks of four linear layers, two matrices each
    elif tune == "last_k":
        assert moved and all(name.startswith("vit.blocks.2.") for name in moved)
    else:
        assert {"vit.embed.weight", "vit.blocks.0.qkv.weight", "vit.norm.weight"} <= moved
    assert fingerprint(encoder) == mark
    assert not policy.encoder.training


@pytest.mark.parametrize("tune", ["full", "lora", "last_k"])
def test_the_policy_file_holds_what_was_learned(tune):
    policy = train(make_policy(make_encoder(), tune))
    tensors = policy.trained_tensors()
    kept = [name for name in tensors if name.startswith("encoder.")]
    assert len(kept) == {"full": len(policy.encoder.state_dict()), "lora": 24, "last_k": 12}[tune]
    copy = make_policy(make_encoder(), tune)
    copy.load_trained_tensors(tensors)
    frames = make_batch()["inputs"][:, 0]
    assert torch.equal(copy.eval().encode(frames), policy.eval().encode(frames))


def test_adapters_start_at_the_encoder_and_can_be_merged_into_it():
    encoder = make_encoder()
    policy = make_policy(encoder, "lora")
    frames = make_batch()["inputs"][:, 0]
    images = encoder.preprocess(frames)
    torch.testing.assert_close(policy.encoder(images)[0], encoder(images)[0])
    train(policy)
    tuned = policy.encoder(images)[0]
    assert not torch.allclose(tuned, encoder(images)[0], atol=1e-4)
    merged = merged_copy(policy.encoder)
    assert merged.state_dict().keys() == encoder.state_dict().keys()
    torch.testing.assert_close(merged(images)[0], tuned)
    torch.testing.assert_close(policy.encoder(images)[0], tuned)  # still there


def test_the_encoder_has_a_rate_of_its_own():
    policy = make_policy(make_encoder(), "lora")
    others, encoder = parameter_groups(policy, 1e-3, 1e-5)
    assert (others["highest_rate"], encoder["highest_rate"]) == (1e-3, 1e-5)
    assert len(encoder["params"]) == 24
    assert len(parameter_groups(make_policy(make_encoder(), "frozen"), 1e-3, 1e-5)) == 1


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        (make_encoder(), {"tune": "lra"}, r"unknown policy\.tune 'lra': did you mean lora"),
        (make_encoder(), {"tune": "lora", "rank": 0}, "tune_rank must be at least 1, got 0"),
        (make_encoder(), {"tune": "last_k", "layers": 4}, r"tune_layers must be in \[1, 3\]"),
        (freeze(PixelEncoder()), {"tune": "lora"}, "this encoder has no blocks"),
        (freeze(PixelEncoder()), {"tune": "full"}, "no weights to train"),
        (ConvEncoder(), {"tune": "lora"}, "this one learns by itself"),
    ],
)
def test_what_cannot_be_tuned_is_refused(encoder, options, message):
    with pytest.raises(UsageError, match=message):
        tuned_copy(encoder, **options)


def test_a_tuned_encoder_looks_through_one_camera():
    with pytest.raises(UsageError, match="looks through one camera, got"):
        BCPolicy(
            make_encoder(),
            camera=["a", "b"],
            proprioception_dim=0,
            action_dim=2,
            feature_shape=(24,),
            tune="full",
        )
