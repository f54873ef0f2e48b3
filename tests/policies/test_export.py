"""Exported graphs give what the policy gives."""

import io

import pytest
import torch
from small_policies import SMALL, TinyEncoder

from embodied.core.errors import MissingExtraError, UserError
from embodied.policies import export
from embodied.policies.bc import BCPolicy
from embodied.policies.export import example_inputs, export_policy, input_names

FEW_STEPS = {"flow": {"sample_steps": 2}, "diffusion": {"sampler": "ddim", "sample_steps": 2}}
SLOW = [pytest.param(head, marks=pytest.mark.slow) for head in ("conv", "rnn_gmm", "act", "bins", "flow", "diffusion")]


def make_policy(head, history=2):
    torch.manual_seed(0)
    policy = BCPolicy(
        TinyEncoder(),
        camera="front",
        proprioception_dim=2,
        action_dim=4,
        feature_shape=(64, 3) if head == "conv" else (3,),
        head=head,
        history=history,
        chunk=history if head == "rnn_gmm" else None,
        hidden=(16,),
        channels=4,
        bottleneck=None,
        head_options={**SMALL.get(head, {}), **FEW_STEPS.get(head, {})},
    )
    policy.normalizer.fit(torch.rand(50, 4) * 3 - 1)
    return policy.eval()


@pytest.mark.parametrize("head", ["mlp", "gmm", "vq_bet", *SLOW])
def test_a_torch_graph_from_frames_equals_the_policy(head, tmp_path):
    policy = make_policy(head)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    made = export_policy(policy, tmp_path / "out", format="torch", frame_shape=[8, 8, 3], batch=3)
    assert set(made) == {"from_features.pt2", "from_frames.pt2"} and max(made.values()) <= 1e-5
    assert before.keys() == policy.state_dict().keys()
    graph = torch.export.load(io.BytesIO((tmp_path / "out" / "from_frames.pt2").read_bytes())).module()
    frames = torch.randint(0, 256, (3, 2, 8, 8, 3), dtype=torch.uint8)
    inputs = example_inputs(policy, frames, torch.Generator().manual_seed(5))
    noise = inputs[2] if "noise" in input_names(policy, "frames") else None
    features = policy.encode(frames.flatten(0, 1)).unflatten(0, (3, 2))
    torch.testing.assert_close(graph(*inputs), policy.predict(features, inputs[1], noise=noise), rtol=1e-4, atol=1e-5)


def test_a_feature_graph_holds_no_encoder(tmp_path):
    export_policy(make_policy("mlp"), tmp_path, format="torch", frame_shape=None)
    assert [path.name for path in tmp_path.iterdir()] == ["from_features.pt2"]
    program = torch.export.load(io.BytesIO((tmp_path / "from_features.pt2").read_bytes()))
    assert not [name for name in program.state_dict if "encoder" in name]


def test_a_graph_that_differs_is_refused_and_not_written(tmp_path, monkeypatch):
    honest = export._torch_graph

    def wrong(*arguments):
        written, found = honest(*arguments)
        return written, found + 1e-2

    monkeypatch.setitem(export._GRAPHS, "torch", wrong)
    with pytest.raises(UserError, match="differs from the policy by"):
        export_policy(make_policy("mlp"), tmp_path / "out", format="torch", frame_shape=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["mlp", "diffusion", "vq_bet"])
def test_an_onnx_graph_equals_the_policy(head, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    policy = make_policy(head)
    made = export_policy(policy, tmp_path, format="onnx", frame_shape=[8, 8, 3])
    assert set(made) == {"from_features.onnx", "from_frames.onnx"} and max(made.values()) <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "from_frames.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == input_names(policy, "frames")
    assert [entry.name for entry in session.get_outputs()] == ["actions"]


def test_onnx_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[onnx\]"):
        export_policy(make_policy("mlp"), tmp_path, format="onnx", frame_shape=None)
