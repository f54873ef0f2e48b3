"""Exported graphs give what the policy gives."""

import io

import pytest
import torch
from small_policies import PLAIN_HEADS, SMALL, HashedText, TinyEncoder

from embodied.core.errors import MissingExtraError, UserError
from embodied.encoders.artifact import freeze
from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.policies import graph_formats
from embodied.policies.bc import BCPolicy
from embodied.policies.bc_graphs import example_inputs, input_names
from embodied.policies.export import export_policy

FEW_STEPS = {"flow": {"sample_steps": 2}, "diffusion": {"sampler": "ddim", "sample_steps": 2}}
SLOW = [pytest.param(head, marks=pytest.mark.slow) for head in ("conv", "rnn_gmm", "act", "bins", "flow", "diffusion")]


def make_policy(head, history=2, *, encoder=None, **options):
    torch.manual_seed(0)
    tokens = head == "conv" or options.get("neck") not in (None, "flare", "pooled")
    settings = {
        "proprioception_dim": 2,
        "feature_shape": (64, 3) if tokens else (3,),
        "history": history,
        "chunk": history if head == "rnn_gmm" else None,
        "hidden": (16,),
        "channels": 4,
        "bottleneck": None,
        "head_options": {**SMALL.get(head, {}), **FEW_STEPS.get(head, {})},
        "neck_options": {"heads": 3} if options.get("neck") in ("attention", "text_query") else None,
        **options,
    }
    policy = BCPolicy(encoder or TinyEncoder(), camera="front", action_dim=4, head=head, **settings)
    policy.normalizer.fit(torch.rand(50, 4) * 3 - 1)
    return policy.eval()


def inputs_and_answer(policy, rows, first="frames", side=8):
    """Inputs of a graph from frames or features, and what the policy makes of them."""
    generator = torch.Generator().manual_seed(rows)
    frames = torch.randint(0, 256, (rows, policy.history, side, side, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        features = policy.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        inputs = example_inputs(policy, frames if first == "frames" else features, generator)
        given = dict(zip(input_names(policy, first), inputs, strict=True))
        told = {name: given.get(name) for name in ("instruction", "noise")}
        return inputs, policy.predict(features, given.get("state"), **told)


def check_torch_graph(policy, folder, side=8):
    made = export_policy(policy, folder, format="torch", frame_shape=[side, side, 3])
    assert set(made) == {"from_features.pt2", "from_frames.pt2"} and max(made.values()) <= 1e-5
    graph = torch.export.load(io.BytesIO((folder / "from_frames.pt2").read_bytes())).module()
    for rows in (1, 2, 3, 7):
        inputs, expected = inputs_and_answer(policy, rows, side=side)
        torch.testing.assert_close(graph(*inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "gmm", "vq_bet", *SLOW])
def test_a_torch_graph_equals_the_policy_for_any_number_of_rows(head, tmp_path):
    policy = make_policy(head)
    before = policy.state_dict().keys()
    check_torch_graph(policy, tmp_path / "out")
    assert before == policy.state_dict().keys()


@pytest.mark.parametrize("neck", ["flare", "spatial", "attention", "spatial_softmax", "text_query"])
def test_graphs_of_every_neck_take_the_instruction_and_any_number_of_rows(neck, tmp_path):
    policy = make_policy("mlp", neck=neck, text_encoder=HashedText(), instruction_width=5)
    assert input_names(policy, "features") == ["features", "state", "instruction"]
    check_torch_graph(policy, tmp_path / "out")


def make_encoder(kind, folder):
    if kind == "hf":
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
        config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
        transformers.ViTModel(config).save_pretrained(folder)
        return load_encoder(f"hf:{folder}")
    if kind == "vit":
        return freeze(ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=3))
    return load_encoder(kind)


@pytest.mark.parametrize(
    ("kind", "tune"),
    [("vit", "frozen"), ("vit", "lora"), ("pixels", "frozen"), ("scratch", "frozen"), ("hf", "frozen")],
)
def test_graphs_from_frames_take_any_number_of_rows_whatever_the_encoder(kind, tune, tmp_path):
    encoder = make_encoder(kind, tmp_path / "model")
    frames = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        shape = encoder(encoder.preprocess(frames))[1]["pooled"].shape[1:]
    policy = make_policy("mlp", encoder=encoder, feature_shape=tuple(shape), tune=tune)
    check_torch_graph(policy, tmp_path / "out", side=32)


def test_the_instruction_is_an_input_beside_noise_and_without_proprioception(tmp_path):
    policy = make_policy("gmm", proprioception_dim=0, text_encoder=HashedText(), instruction_width=5)
    assert input_names(policy, "frames") == ["frames", "instruction", "noise"]
    check_torch_graph(policy, tmp_path / "out")


def test_a_graph_may_have_one_input_alone(tmp_path):
    policy = make_policy("mlp", proprioception_dim=0)
    assert input_names(policy, "frames") == ["frames"]
    check_torch_graph(policy, tmp_path / "out")


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_graphs_of_a_head_that_learns_offsets_give_targets(kind, tmp_path):
    frame = {"kind": kind, "state": [1, None, 0, None]}
    check_torch_graph(make_policy("mlp", chunk=3, action_frame=frame), tmp_path / "out")


def test_a_feature_graph_holds_no_encoder(tmp_path):
    export_policy(make_policy("mlp"), tmp_path, format="torch", frame_shape=None)
    assert [path.name for path in tmp_path.iterdir()] == ["from_features.pt2"]
    program = torch.export.load(io.BytesIO((tmp_path / "from_features.pt2").read_bytes()))
    assert not [name for name in program.state_dict if "encoder" in name]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_graph_that_differs_is_refused_and_not_written(rows, tmp_path, monkeypatch):
    honest = graph_formats.GRAPHS["torch"]

    def wrong(*arguments):
        written, run = honest(*arguments)
        return written, lambda inputs: run(inputs) + 1e-2 * (len(inputs[0]) == rows)

    monkeypatch.setitem(graph_formats.GRAPHS, "torch", wrong)
    with pytest.raises(UserError, match="differs from the policy by"):
        export_policy(make_policy("mlp"), tmp_path / "out", format="torch", frame_shape=None)
    assert not (tmp_path / "out").exists()


ONNX = [
    pytest.param(head, options, id=f"{head} {' '.join(options)}")
    for head, options in [
        *((head, {}) for head in PLAIN_HEADS),
        ("mlp", {"neck": "text_query", "text_encoder": HashedText()}),
    ]
]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "options"), ONNX)
def test_an_onnx_graph_equals_the_policy_for_any_number_of_rows(head, options, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    policy = make_policy(head, **options)
    frame_shape = [8, 8, 3] if head == "mlp" else None
    made = export_policy(policy, tmp_path, format="onnx", frame_shape=frame_shape)
    assert max(made.values()) <= 1e-4
    for name in made:
        first = name.removeprefix("from_").removesuffix(".onnx")
        session = onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_inputs()] == input_names(policy, first)
        assert [entry.name for entry in session.get_outputs()] == ["actions"]
        for rows in (1, 4):
            inputs, expected = inputs_and_answer(policy, rows, first)
            given = {name: tensor.numpy() for name, tensor in zip(input_names(policy, first), inputs, strict=True)}
            found = torch.from_numpy(session.run(None, given)[0])
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_onnx_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[onnx\]"):
        export_policy(make_policy("mlp"), tmp_path, format="onnx", frame_shape=None)
