"""Small policies for robots, as files that any process can load."""

import torch
from small_policies import SMALL

from embodied.core.checkpoint import save_checkpoint
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.policies.artifact import build_policy, describe_policy

ENV = {"suite": "metaworld", "task": "hammer-v3", "camera": "corner4", "image_size": 64, "horizon": 250}
SPACE = {
    "low": [-1.0] * 4, "high": [1.0] * 4, "names": ["hand.dx", "hand.dy", "hand.dz", "gripper"], "gripper": [3],
}  # fmt: skip


def policy_metadata(*, head="mlp", space=SPACE, env=ENV, state=4, **arguments):
    """The description of a policy of the simulated robot on the default encoder."""
    encoder = load_encoder("default")
    described = {
        "camera": env["camera"], "proprioception_dim": state, "action_dim": len(space["low"]), "feature_shape": [192],
        "head": head, "hidden": [8], "head_options": SMALL.get(head, {}), "action_space": space, **arguments,
    }  # fmt: skip
    named = {"spec": "default", "seed": 0, "state_dim": 39, "fingerprint": fingerprint(encoder)}
    return describe_policy("embodied.policies.bc.BCPolicy", described, encoder=named, env=env)


def make_policy(*, action=(0.1, 0.1, 0.0, -1.0), spread=1e-6, **options):
    """A policy in eval mode whose actions are `action`, plus what its random head says times `spread`."""
    metadata = policy_metadata(**options)
    torch.manual_seed(0)
    policy = build_policy(metadata, load_encoder("default")).eval()
    policy.normalizer.offset.copy_(torch.tensor(action))
    policy.normalizer.scale.fill_(spread)
    policy.normalizer.fitted.fill_(True)
    return policy, metadata


def save_policy(path, **options):
    """`make_policy` as a file."""
    policy, metadata = make_policy(**options)
    save_checkpoint(path, policy.trained_tensors(), {**metadata, "step": 0})
    return path
