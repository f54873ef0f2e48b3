"""Exported agents of reinforcement learning do what `load_policy` makes them do."""

import io

import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

from embodied.cli.main import main
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UserError
from embodied.core.run_folder import RunFolder
from embodied.encoders.load import load_encoder
from embodied.policies.artifact import describe_policy, load_policy
from embodied.policies.export import export_policy
from embodied.policies.rl.graphs import agent_graph
from embodied.policies.rl.networks import Standardise
from embodied.policies.rl.policy import RLPolicy

SIDE, STATE_DIM = 20, 5
LOW, HIGH = [-1.0, 0.0, -0.5], [1.0, 0.5, 2.0]
SMALL = {"trunk": 8, "hidden": 16}
# encoder, method, settings, values of the features, of proprioception, frames
AGENTS = {
    "ppo": ("pixels", "ppo", {"standardise": True}, 768, 2, None),
    "ppo from scratch": ("scratch", "ppo", {"image_size": 16, "history": 2, "standardise": True}, 0, 2, [6, 16, 16]),
    "bc_rl": ("state", "bc_rl", {}, STATE_DIM, 0, None),
    "sac": ("pixels", "sac", {"hidden": [16, 16]}, 768, 2, None),
    "drqv2": ("scratch", "drqv2", SMALL, 0, 0, [9, SIDE, SIDE]),
    "drqv2 lfs": ("scratch", "drqv2", {**SMALL, "encoder": "lfs"}, 0, 0, [6, SIDE, SIDE]),
    "blind": ("proprioception", "ppo", {}, 0, 2, None),
}


def save_agent(kind, path):
    """An agent with random weights and, where it keeps any, random statistics, as a policy file; and the policy."""
    encoder, method, settings, features, proprioception, frames = AGENTS[kind]
    arguments = {
        "method": method, "settings": settings, "camera": "top", "feature": "pooled", "feature_dim": features,
        "proprioception_dim": proprioception, "action_low": LOW, "action_high": HIGH, "frames_shape": frames,
    }  # fmt: skip
    torch.manual_seed(0)
    policy = RLPolicy(load_encoder(encoder, state_dim=STATE_DIM), **arguments)
    with torch.no_grad():
        for parameter in policy.agent.parameters():
            parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        for norm in [part for part in policy.agent.modules() if isinstance(part, Standardise)]:
            norm.take_in(30 + 7 * torch.randn(9, len(norm.mean)).numpy())
    described = {"spec": encoder, "seed": 0, "state_dim": STATE_DIM, "fingerprint": ""}
    env = {"suite": "toy", "task": "points", "camera": "top", "image_size": SIDE}
    target = f"{RLPolicy.__module__}.{RLPolicy.__name__}"
    metadata = describe_policy(target, arguments, encoder=described, env=env)
    save_checkpoint(path, policy.trained_tensors(), metadata)
    return load_policy(path, device=torch.device("cpu"))[0]


def features_of(policy, observation):
    """What of an observation a graph from features takes: [B, 1, V]."""
    seen = policy.see(observation)
    if policy.frames_shape is None:
        return seen[:, None, : policy.feature_dim]
    net = policy.agent.encoder if hasattr(policy.agent, "encoder") else policy.agent.features_extractor.encoder
    return net((seen["frames"] if isinstance(seen, dict) else seen).float())[:, None]


def read_graph(path):
    if path.suffix == ".pt2":
        return torch.export.load(io.BytesIO(path.read_bytes())).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs):
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(["actions"], given)[0])

    return run


FORMATS = [
    *((kind, "torch") for kind in AGENTS if kind != "blind"),
    # The two others: `ppo` by the command, below; `lfs` is the encoder of the first of these.
    *(pytest.param(kind, "onnx", marks=pytest.mark.slow) for kind in ("ppo from scratch", "bc_rl", "sac", "drqv2")),
]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "format"), FORMATS)
def test_graphs_of_an_agent_do_what_the_loaded_policy_does(kind, format, tmp_path):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    policy = save_agent(kind, tmp_path / "policy.safetensors")
    before = policy.state_dict().keys()
    frame_shape = [STATE_DIM] if kind == "bc_rl" else [SIDE, SIDE, 3]
    made = export_policy(policy, tmp_path, format=format, frame_shape=frame_shape)
    suffix = {"torch": ".pt2", "onnx": ".onnx"}[format]
    assert set(made) == {f"from_features{suffix}", f"from_frames{suffix}"} and max(made.values()) <= 1e-4
    assert policy.state_dict().keys() == before

    from_features, from_frames = (read_graph(tmp_path / name) for name in sorted(made))
    for rows in (1, 7):
        inputs = agent_graph(policy, frame_shape).draw(rows, torch.Generator().manual_seed(rows))
        now = [tensor[:, 0] for tensor in inputs]
        observation = {policy.input_key: now[0] if policy.frames_shape is None else inputs[0]}
        if policy.proprioception_dim:
            observation["observation.state"] = now[1]
        _, expected = policy.act(policy.initial(rows), observation)
        assert expected.shape == (rows, 1, 3) and (rows == 1 or (expected.amax(0) - expected.amin(0)).max() > 0.01)
        torch.testing.assert_close(from_frames(*inputs), expected, rtol=1e-4, atol=1e-4)
        features = features_of(policy, observation)
        torch.testing.assert_close(from_features(features, *inputs[1:]), expected, rtol=1e-4, atol=1e-4)


def test_a_graph_holds_no_critic_and_from_features_no_encoder(tmp_path):
    policy = save_agent("ppo from scratch", tmp_path / "policy.safetensors")
    held = {
        shape is None: {name for name, _ in agent_graph(policy, shape).module.named_parameters()}
        for shape in (None, [SIDE, SIDE, 3])
    }
    assert not [name for names in held.values() for name in names if "value" in name or "vf" in name]
    assert any(".encoder." in name for name in held[False]) and not any(".encoder." in name for name in held[True])


def export_run(kind, tmp_path, *more):
    run = RunFolder.create(tmp_path / "run", config_yaml="", config_hash="0", command="embodied train policy=ppo")
    save_agent(kind, run.checkpoints / "step_000001.safetensors")
    return main(["export", f"run={run.path}", f"to={tmp_path / 'out'}", *more])


def test_the_command_writes_graphs_and_says_what_goes_in(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    assert export_run("ppo", tmp_path, "format=onnx") == 0
    assert capsys.readouterr().out.count("largest difference to the policy") == 2
    lines = (tmp_path / "out" / "README.md").read_text().splitlines()
    assert lines[0] == "# Policy for points (toy)" and "- **Made by:** `embodied train policy=ppo`" in lines
    assert "- `features`: float32 [B, 1, 768]" in lines
    assert f"- `frames`: uint8 [B, 1, {SIDE}, {SIDE}, 3]" in lines
    assert lines.count("- `state`: float32 [B, 1, 2], the present proprioception") == 2
    assert lines[-1] == "Each gives `actions` float32 [B, 1, 3], the mean action, within the bounds."


def test_an_agent_that_sees_nothing_is_refused(tmp_path, capsys):
    assert export_run("blind", tmp_path) != 0
    assert "a policy with encoder=proprioception sees nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_policy_that_plans_is_refused(tmp_path):
    with pytest.raises(UserError, match="a policy that plans searches anew at every step: only policies of behaviour"):
        export_policy(nn.Identity(), tmp_path / "out", format="torch", frame_shape=None)
    assert not (tmp_path / "out").exists()
