"""Vision transformers of transformers as ours and back: the same features."""

import json
import logging

import pytest
import torch

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.encoders.hf_convert import format_names, from_hf, to_hf
from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder

transformers = pytest.importorskip("transformers")

TOLERANCE = {"rtol": 0, "atol": 1e-5}
UNNORMALISED = {"rtol": 1e-5, "atol": 3e-5}  # tokens between blocks, with values of ten and more
SIZE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
HIDDEN = {"intermediate_size": 48}
ROPE = {**SIZE, **HIDDEN, "num_attention_heads": 2}  # width / heads = 12
CLIP = {
    **{name: value for name, value in SIZE.items() if name != "image_size"},
    **{"num_attention_heads": 2, "crop_size": 32, "pred_hidden_size": 12},
    **{"pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
}  # width / heads = 12, thrice an even number; with three heads 8, of which two do not turn

CASES = {
    "vit": ("ViT", {**SIZE, **HIDDEN, "qkv_bias": False}),
    "vit_mae": ("ViTMAE", {**SIZE, **HIDDEN}),
    "vit_mae_gelu_tanh": ("ViTMAE", {**SIZE, **HIDDEN, "hidden_act": "gelu_pytorch_tanh"}),
    "dinov2": ("Dinov2", {**SIZE, "layerscale_value": 0.3}),
    "dinov2_swiglu": ("Dinov2", {**SIZE, "use_swiglu_ffn": True}),
    "dinov2_no_qkv_bias": ("Dinov2", {**SIZE, "qkv_bias": False}),
    "registers": ("Dinov2WithRegisters", {**SIZE, "num_register_tokens": 4}),
    "dinov3": ("DINOv3ViT", {**ROPE, "num_register_tokens": 4, "layerscale_value": 0.3}),
    "dinov3_gated": ("DINOv3ViT", {**ROPE, "use_gated_mlp": True, "hidden_act": "silu", "num_register_tokens": 0}),
    "dinov3_key_bias": ("DINOv3ViT", {**ROPE, "key_bias": True, "proj_bias": False, "mlp_bias": False}),
    "pixio": ("Pixio", {**SIZE, "n_cls_tokens": 3}),
    "clip": ("CLIPVision", {**SIZE, **HIDDEN}),
    "siglip": ("SiglipVision", {**SIZE, **HIDDEN}),
    "beit_shared": ("Beit", {**SIZE, **HIDDEN, "use_shared_relative_position_bias": True, "use_mean_pooling": False}),
    "beit_pooled": ("Beit", {**SIZE, **HIDDEN, "use_relative_position_bias": True}),
    "beit_absolute": ("Beit", {**SIZE, **HIDDEN, "use_absolute_position_embeddings": True, "use_mask_token": True}),
    "vjepa2": ("VJEPA2", {**CLIP, "tubelet_size": 2, "mlp_ratio": 2.0}),
    "vjepa2_odd": ("VJEPA2", {**CLIP, "num_attention_heads": 3, "tubelet_size": 3, "frames_per_clip": 6}),
    "beit_no_scale": ("Beit", {**SIZE, **HIDDEN, "layer_scale_init_value": 0.0}),
}


def make_model(case, **more):
    """With random values everywhere: from a config many tensors are zero or one."""
    name, settings = CASES[case]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def save(model, folder):
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return str(folder)


def sample(size=32, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def run(model, images, **more):
    """Their output with ViT-MAE's shuffle and mask taken away."""
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        patches = (images.shape[-1] // 8) ** 2
        more["noise"] = torch.arange(patches, dtype=torch.float32).expand(len(images), -1)
    with torch.no_grad():
        if model.config.model_type == "vjepa2":
            still = images[:, None].expand(-1, model.config.tubelet_size, -1, -1, -1)
            return model(pixel_values_videos=still, skip_predictor=True, **more)
        return model(pixel_values=images, **more)


@pytest.mark.parametrize("case", CASES)
def test_their_features_are_ours(case, tmp_path):
    model = make_model(case)
    encoder = from_hf(save(model, tmp_path / "theirs")).eval()
    images = sample()
    expected = run(model, images, output_hidden_states=True)
    with torch.no_grad():
        tokens, out = encoder(images, layers=True)
    torch.testing.assert_close(tokens, expected.last_hidden_state[:, -16:], **TOLERANCE)
    for number, hidden in enumerate(expected.hidden_states[1:], start=1):
        torch.testing.assert_close(out[f"layer{number}"], hidden[:, -16:], **UNNORMALISED)
    if case in ("clip", "pixio", "dinov2", "registers", "dinov3", "beit_shared"):
        torch.testing.assert_close(out["cls"], expected.pooler_output, **TOLERANCE)
    if case == "beit_pooled":
        torch.testing.assert_close(out["pooled"], expected.pooler_output, **TOLERANCE)
    if case == "registers":
        torch.testing.assert_close(out["registers"], expected.last_hidden_state[:, 1:5], **TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_both_ways_into_embodied_give_the_same(case, tmp_path):
    path = save(make_model(case), tmp_path / "theirs")
    frames = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wrapped, converted = load_encoder(f"hf:{path}"), from_hf(path).eval()
    assert wrapped.grid == converted.grid
    assert wrapped.width == converted.width
    with torch.no_grad():
        first, second = wrapped(wrapped.preprocess(frames))[0], converted(converted.preprocess(frames))[0]
    torch.testing.assert_close(first, second, **TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, tmp_path):
    model = make_model(case)
    encoder = from_hf(save(model, tmp_path / "theirs")).eval()
    written = to_hf(encoder, tmp_path / "written", model_type=model.config.model_type)
    assert written == model.config.model_type
    again = transformers.AutoModel.from_pretrained(tmp_path / "written").eval()
    assert type(again) is type(model)
    images = sample()
    expected = run(model, images).last_hidden_state
    torch.testing.assert_close(run(again, images).last_hidden_state, expected, **TOLERANCE)
    assert load_encoder(f"hf:{tmp_path / 'written'}").normalize.mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


@pytest.mark.parametrize(
    "case", ["vit", "dinov2", "registers", "dinov3", "pixio", "clip", "siglip", "beit_shared", "beit_absolute"]
)
@pytest.mark.parametrize("size", [(48, 48), (40, 24)])
def test_another_resolution(case, size, tmp_path):
    model = make_model(case)
    encoder = from_hf(save(model, tmp_path / "theirs")).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    more = {"interpolate_pos_encoding": True} if case in ("vit", "clip", "siglip") else {}
    patches = size[0] * size[1] // 64
    with torch.no_grad():
        tokens = encoder(images)[0]
    assert tokens.shape[1] == patches
    torch.testing.assert_close(tokens, run(model, images, **more).last_hidden_state[:, -patches:], **TOLERANCE)


@pytest.mark.parametrize("case", ["dinov2", "registers"])
def test_the_size_is_the_processors(case, tmp_path):
    model = make_model(case)  # 32 px in its config
    path = save(model, tmp_path / "theirs")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(
        json.dumps({"crop_size": {"height": 48, "width": 48}})
    )
    wrapped, encoder = load_encoder(f"hf:{path}"), from_hf(path).eval()
    assert encoder.grid == wrapped.grid == (6, 6)
    frames = torch.randint(0, 256, (1, 60, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = encoder.preprocess(frames)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[0], wrapped(images)[0], **TOLERANCE)


def test_an_artifact_of_a_converted_model_rebuilds(tmp_path):
    encoder = from_hf(save(make_model("dinov3"), tmp_path / "theirs"))
    save_encoder(encoder, tmp_path / "artifact", card="# card\n")
    loaded = load_artifact(tmp_path / "artifact")
    assert fingerprint(loaded) == fingerprint(encoder)
    assert loaded.config()["std"] == [0.4, 0.5, 0.6]


def test_position_tables_of_mae(tmp_path, caplog):
    from embodied.models.positions import sincos_2d

    model = make_model("vit_mae")
    table = model.embeddings.position_embeddings
    with torch.no_grad():
        table.copy_(sincos_2d(24, 4, 4, class_token=True)[None])
    assert from_hf(save(model, tmp_path / "fixed")).network_arguments["positions"] == "sincos"
    with torch.no_grad():
        table.zero_()  # what transformers builds from a config
    with caplog.at_level(logging.WARNING):
        encoder = from_hf(save(model, tmp_path / "zero")).eval()
    assert "all zeros" in caplog.text
    assert encoder.network_arguments["positions"] == "none"
    images = sample()
    with torch.no_grad():
        tokens = encoder(images)[0]
    torch.testing.assert_close(tokens, run(model, images).last_hidden_state[:, 1:], **TOLERANCE)


OURS = {
    "vit_mae": {},
    "dinov2": {"layer_scale": 0.5, "positions": "learned", "mlp": "swiglu", "mlp_ratio": 64 / 24},
    "dinov2_with_registers": {"registers": 2},
    "dinov3_vit": {"positions": "rope", "heads": 2, "bias": False},
    "pixio": {"class_tokens": 4, "positions": "learned"},
    "siglip_vision_model": {"class_tokens": 0, "mlp": "gelu_tanh"},
    "clip_vision_model": {"pre_norm": True, "final_norm": "class", "mlp": "quick_gelu"},
    "beit": {"relative_bias": "shared", "positions": "none"},
    "vjepa2": {"positions": "clip_rope", "class_tokens": 0, "tubelet": 2},
}


@pytest.mark.parametrize("model_type", OURS)
def test_ours_in_the_nearest_format(model_type, tmp_path):
    torch.manual_seed(0)
    encoder = ViTEncoder(**{"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 3} | OURS[model_type])
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    encoder.eval()
    assert to_hf(encoder, tmp_path / "folder") == model_type
    model = transformers.AutoModel.from_pretrained(tmp_path / "folder").eval()
    images = sample()
    with torch.no_grad():
        tokens = encoder(images)[0]
    torch.testing.assert_close(run(model, images).last_hidden_state[:, -16:], tokens, **TOLERANCE)


def test_every_format_is_compared():
    written = {getattr(transformers, f"{name}Config").model_type for name, _ in CASES.values()}
    assert written == set(format_names())


def test_what_no_format_holds_is_refused(tmp_path):
    small = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "heads": 3}
    with pytest.raises(UserError, match="vit_mae: no qk_norm=True"):
        to_hf(ViTEncoder(**small, qk_norm=True), tmp_path / "a")
    with pytest.raises(UserError, match="dinov2: no tubelet=2"):
        to_hf(ViTEncoder(**small, tubelet=2), tmp_path / "a")
    with pytest.raises(UserError, match="no image_size="):
        to_hf(ViTEncoder(**{**small, "image_size": (32, 16)}), tmp_path / "a")
    with pytest.raises(UserError, match=r"dinov2: this format needs a whole mlp_ratio, got 2\.5"):
        to_hf(ViTEncoder(**small, mlp_ratio=2.5), tmp_path / "a", model_type="dinov2")
    with pytest.raises(UsageError, match="did you mean dinov2"):
        to_hf(ViTEncoder(**small), tmp_path / "a", model_type="dinov")
    with pytest.raises(UserError, match="only a ViTEncoder"):
        to_hf(load_encoder("pixels"), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_models_without_a_form_of_ours_are_refused(tmp_path):
    model = transformers.DeiTModel(transformers.DeiTConfig(**SIZE, **HIDDEN))  # it has a second token that leads
    with pytest.raises(UserError, match="is a deit, which has no form of ours"):
        from_hf(save(model, tmp_path / "deit"))
    odd = transformers.Dinov2Model(transformers.Dinov2Config(**SIZE, hidden_act="relu"))
    with pytest.raises(UserError, match="hidden_act=relu is not known here"):
        from_hf(save(odd, tmp_path / "relu"))
