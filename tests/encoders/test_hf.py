"""Vision models of transformers as encoders, from small folders made here."""

import json

import pytest
import torch

from embodied.core.errors import UserError
from embodied.encoders.artifact import fingerprint
from embodied.encoders.hf_convert import from_hf
from embodied.encoders.load import load_encoder

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


def make_model(kind):
    torch.manual_seed(0)
    if kind == "clip":
        return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL))
    if kind == "dinov2":
        small = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
        return transformers.Dinov2Model(transformers.Dinov2Config(**small))
    if kind == "registers":
        small = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
        config = transformers.Dinov2WithRegistersConfig(**small, num_register_tokens=4)
        return transformers.Dinov2WithRegistersModel(config)
    if kind == "siglip":
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL))
    if kind == "dinov3":
        small = {**SMALL, "num_attention_heads": 2}
        return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**small, num_register_tokens=4))
    if kind == "pixio":
        small = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
        return transformers.PixioModel(transformers.PixioConfig(**small, n_cls_tokens=3))
    if kind == "beit":
        return transformers.BeitModel(transformers.BeitConfig(**SMALL, use_shared_relative_position_bias=True))
    if kind == "vit_mae":
        return transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL))
    return transformers.ViTModel(transformers.ViTConfig(**SMALL))


def save(model, folder):
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))


@pytest.mark.parametrize("kind", ["vit", "dinov2", "registers", "dinov3", "clip", "siglip", "beit", "pixio", "vit_mae"])
def test_patch_tokens_without_leading_ones(kind, tmp_path):
    model = make_model(kind).eval()
    save(model, tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    images = encoder.preprocess(frames)
    expected = (frames[0, 3, 5].float() / 255 - torch.tensor([0.1, 0.2, 0.3])) / 0.5
    torch.testing.assert_close(images[0, :, 3, 5], expected)
    with torch.no_grad():
        tokens, out = encoder(images)
        again, _ = encoder(images)
    assert encoder.grid == (4, 4)
    assert tokens.shape == (2, 16, 24)
    assert torch.equal(tokens, again)  # no random masking
    torch.testing.assert_close(out["pooled"], tokens.mean(dim=1))
    assert ("cls" in out) == (kind != "siglip")
    if kind != "vit_mae":
        with torch.no_grad():
            whole = model(pixel_values=images).last_hidden_state
        torch.testing.assert_close(tokens, whole[:, -16:])


def test_several_class_tokens_are_averaged(tmp_path):
    model = make_model("pixio").eval()
    save(model, tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    images = encoder.preprocess(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[1]["cls"], model(pixel_values=images).pooler_output)


VIDEO = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 8,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}


def test_v_jepa_2_sees_one_frame_as_a_tubelet(tmp_path):
    torch.manual_seed(0)
    model = transformers.VJEPA2Model(transformers.VJEPA2Config(**VIDEO)).eval()
    model.save_pretrained(tmp_path)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(statistics))
    encoder = load_encoder(f"hf:{tmp_path}")
    assert encoder.normalize.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    images = encoder.preprocess(torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8))
    with torch.no_grad():
        tokens, out = encoder(images, layers=True)
        video = torch.stack([images, images], dim=1)  # (B, T, 3, S, S)
        expected = model(pixel_values_videos=video, skip_predictor=True).last_hidden_state
        # a clip that stands still shows the same in its first time step, whatever its length, but for attention
        longer = model.encoder.embeddings(torch.stack([images] * 8, dim=1))
    assert encoder.grid == (4, 4)
    assert tokens.shape == (2, 16, 24)
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(longer[:, :16], model.encoder.embeddings(video))
    assert set(out) == {"pooled", "layer1", "layer2"}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_model_of_images_and_text_is_its_image_side(kind, tmp_path):
    name = {"clip": "CLIP", "siglip": "Siglip"}[kind]
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
    vision = {**SMALL, **({"projection_dim": 16} if kind == "clip" else {})}
    config = getattr(transformers, f"{name}Config")(text_config={**text, "vocab_size": 50}, vision_config=vision)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).eval()
    save(model, tmp_path)
    encoder, converted = load_encoder(f"hf:{tmp_path}"), from_hf(str(tmp_path)).eval()
    images = encoder.preprocess(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    with torch.no_grad():
        expected = model.vision_model(pixel_values=images).last_hidden_state[:, -16:]
        torch.testing.assert_close(encoder(images)[0], expected)
        torch.testing.assert_close(converted(images)[0], expected, rtol=0, atol=1e-5)


def test_fingerprint_sees_the_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        save(transformers.ViTModel(transformers.ViTConfig(**SMALL)), tmp_path / name)
    assert fingerprint(load_encoder(f"hf:{tmp_path / 'a'}")) != fingerprint(load_encoder(f"hf:{tmp_path / 'b'}"))


def test_dinov2_takes_the_size_its_processor_crops_to(tmp_path):
    make_model("dinov2").save_pretrained(tmp_path)  # 32 px in its config
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 48, "width": 48}}))
    encoder = load_encoder(f"hf:{tmp_path}")
    images = encoder.preprocess(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert images.shape == (1, 3, 48, 48)
    assert encoder.grid == (6, 6)
    assert encoder(images)[0].shape == (1, 36, 24)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "does not describe"),
        ('{"image_mean": [1, 2]}', "image_mean must be three"),
        ('{"image_std": [1, 1, 0]}', "image_std must be positive"),
    ],
)
def test_a_damaged_processor_gives_one_message(tmp_path, text, message):
    make_model("vit").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_encoder(f"hf:{tmp_path}")


def test_missing_folder_gives_one_message(tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        load_encoder(f"hf:{tmp_path / 'absent'}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, r"lacks 16 weights, among them layers\.2\..*, which would be random"),
        ({"hidden_size": 48}, r"its weights do not fit its config\.json"),
        ({"hidden_size": "wide"}, "expected int, got str"),
        ({"hidden_act": "gelo"}, "says 'gelo', which transformers does not know"),
    ],
)
def test_a_config_that_does_not_go_with_its_weights(tmp_path, change, message):
    make_model("vit").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_encoder(f"hf:{tmp_path}")


def test_weights_that_its_tokens_do_not_depend_on_may_be_missing(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path)
    assert load_encoder(f"hf:{tmp_path}").model.pooler is not None


def test_a_file_that_was_cut_off_gives_one_message(tmp_path):
    make_model("vit").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is damaged \(.*\): copy or download it again"):
        load_encoder(f"hf:{tmp_path}")


def test_pickled_weights_are_refused(tmp_path):
    model = make_model("vit")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_encoder(f"hf:{tmp_path}")


def test_what_has_no_square_patches_is_refused(tmp_path):
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48, vocab_size=10
    )
    stages = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], image_size=32)
    transformers.BertModel(config).save_pretrained(tmp_path / "text")
    transformers.ConvNextModel(stages).save_pretrained(tmp_path / "stages")
    for name in ("text", "stages"):
        with pytest.raises(UserError, match="no vision model"):
            load_encoder(f"hf:{tmp_path / name}")
