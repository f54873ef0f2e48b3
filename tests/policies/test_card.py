"""The model card says what a policy reads and does."""

from embodied.policies.assembly import assemble
from embodied.policies.card import agent_card, policy_card

ENCODER = {"spec": "default", "fingerprint": "0123abc"}
ENV = {"suite": "metaworld", "task": "hammer-v3"}
SPACE = {"low": [-1.0, 0.0], "high": [1.0, 0.5], "names": ["hand.dx", "gripper"], "gripper": [1]}


def test_a_cloned_policy_says_what_it_reads_and_gives():
    arguments = {"camera": ["front", "wrist"], "proprioception_dim": 4, "action_space": SPACE, "tune": "lora"}
    metadata = {"arguments": arguments, "encoder": ENCODER, "env": ENV}
    metadata["text_encoder"] = {"spec": "wordllama", "fingerprint": "beef"}
    made = assemble("diffusion")
    card = policy_card(metadata, made, command="embodied train x=1", training={"steps": 20, "weight_decay": None})
    lines = card.splitlines()
    assert lines[0] == "# Policy for hammer-v3 (metaworld)"
    assert "- **Made by:** `embodied train x=1`" in lines
    assert "- **Encoder:** `default`, tune `lora`, fingerprint `0123abc`" in lines
    assert "- **Reads:** cameras `front`, `wrist`, output `pooled`, 2 moment(s), proprioception of 4 value(s)" in lines
    assert "- **Head:** `diffusion` behind the neck `pooled`, evaluated with averaged weights" in lines
    assert "- **Chunks:** 16 action(s) predicted, 8 executed before the next plan" in lines
    assert "- **Training:** steps 20" in lines
    assert any("text encoder `wordllama`, fingerprint `beef`" in line for line in lines)
    assert lines[-2:] == ["| hand.dx | -1 | 1 |", "| gripper (gripper) | 0 | 0.5 |"]


def test_weights_that_lie_in_the_policy_file_have_no_fingerprint():
    arguments = {"camera": "front", "proprioception_dim": 0}
    metadata = {"arguments": arguments, "encoder": {"spec": "scratch", "fingerprint": ""}, "env": {}}
    card = policy_card(metadata, assemble("act"), command="c", training={})
    assert "fingerprint `none: its weights are in the policy file`" in card
    assert "temporal ensembling with decay 0.01" in card
    assert "| action |" not in card


def test_an_agent_says_what_it_reads_and_gives():
    settings = {"clip": 0.2, "value_clip": None}
    arguments = {"method": "ppo", "settings": settings, "camera": "wrist", "feature": "pooled", "proprioception_dim": 3}
    arguments |= {"action_low": [-1.0], "action_high": [2.0], "frames_shape": None}
    metadata = {"arguments": arguments, "encoder": ENCODER, "env": ENV}
    lines = agent_card(metadata, command="c", training={"steps": 9}).splitlines()
    assert "- **Encoder:** `default`, fingerprint `0123abc`" in lines
    assert "- **Reads:** camera `wrist`, output `pooled`, proprioception of 3 value(s)" in lines
    assert "- **Agent:** `ppo`; clip 0.2" in lines
    assert lines[-1] == "| 0 | -1 | 2 |"
    metadata["arguments"]["frames_shape"] = [6, 64, 64]
    assert "stacks of frames [6, 64, 64]" in agent_card(metadata, command="c", training={})
