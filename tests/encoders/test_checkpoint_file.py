"""Files of weights that others released, written here with the names they have."""

import argparse
import os

import pytest
import safetensors.torch
import torch

from embodied.core.errors import UsageError, UserError
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.encoders.checkpoint_file import read_checkpoint
from embodied.encoders.load import load_encoder
from embodied.encoders.resnet import ResNetEncoder
from embodied.models.positions import sincos_2d

DECODER = ("decoder_embed.weight", "decoder_pos_embed", "decoder_blocks.0.norm1.weight", "decoder_pred.bias")


def vit_state(width=384, depth=2, patch=8, side=4, *, fixed=True, scale=False, registers=None, class_rows=1):
    """Names of timm's vision transformer, which MAE, MVP, VC-1 and DINOv2 share."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * 0.1

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, class_rows + side**2, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch),
        "patch_embed.proj.bias": draw(width),
        "norm.weight": 1 + draw(width),
        "norm.bias": draw(width),
    }
    if fixed:
        state["pos_embed"] = sincos_2d(width, side, side, class_token=True)[None]
    if registers:
        state[registers] = draw(1, 2, width)
    for number in range(depth):
        block = f"blocks.{number}"
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
            **({"ls1.gamma": (width,), "ls2.gamma": (width,)} if scale else {}),
        }.items():
            state[f"{block}.{name}"] = draw(*shape)
    return state


def reference(state, images, heads):
    """Patch tokens and class token by the paper's formulas, from their names."""
    width = state["cls_token"].shape[-1]
    kernel = state["patch_embed.proj.weight"]
    patches = torch.nn.functional.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    tokens = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + state["pos_embed"]

    def norm(values, name):
        return torch.nn.functional.layer_norm(
            values, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6
        )

    def linear(values, name):
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    number = 0
    while (block := f"blocks.{number}") + ".norm1.weight" in state:
        query, key, value = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        joined = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            logits = query[..., part] @ key[..., part].transpose(1, 2) / (width // heads) ** 0.5
            joined.append(logits.softmax(dim=-1) @ value[..., part])
        attended = linear(torch.cat(joined, dim=-1), f"{block}.attn.proj")
        tokens = tokens + attended * state.get(f"{block}.ls1.gamma", 1.0)
        hidden = torch.nn.functional.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2") * state.get(f"{block}.ls2.gamma", 1.0)
        number += 1
    tokens = norm(tokens, "norm")
    return tokens[:, 1:], tokens[:, 0]


def images(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def write(content, path):
    torch.save(content, path)
    return str(path)


def check(encoder, state, heads):
    with torch.no_grad():
        tokens, out = encoder(images())
    expected, cls = reference(state, images(), heads)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out["cls"], cls, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layout", "heads"), [("mae", 6), ("vc1", 6), ("mvp", 12)])
def test_heads_are_those_of_the_release(layout, heads, tmp_path):
    state = vit_state()
    extra = {name: torch.zeros(3) for name in DECODER} | {"mask_token": torch.zeros(1, 1, 8)}
    path = write({"model": {**state, **extra}}, tmp_path / "weights.pth")
    encoder = load_encoder(f"{layout}:{path}")
    check(encoder, state, heads)
    assert encoder.network_arguments["positions"] == "sincos"
    with pytest.raises(AssertionError):
        check(encoder, state, 18 - heads)  # the other number fits the shapes as well


def test_a_vit_s_has_to_be_named(tmp_path):
    path = write({"model": vit_state()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"a ViT-S of MAE has 6 heads, of MVP 12: say which, mae:\S+ or mvp:"):
        load_encoder(path)


def test_other_widths_are_told_from_the_file(tmp_path):
    state = vit_state(width=192, scale=True, fixed=False)
    check(load_encoder(write({"model": state}, tmp_path / "a.pth")), state, 3)
    safetensors.torch.save_file(state, tmp_path / "b.safetensors")
    encoder = load_encoder(str(tmp_path / "b.safetensors"))
    check(encoder, state, 3)
    save_encoder(encoder, tmp_path / "artifact", card="")
    assert fingerprint(load_artifact(tmp_path / "artifact")) == fingerprint(encoder)


def test_training_checkpoints_with_their_arguments(tmp_path):
    state = vit_state(width=192)
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    content = {"model": wrapped, "epoch": 3, "args": argparse.Namespace(lr=0.1, name="x")}
    check(load_encoder(write(content, tmp_path / "a.pth")), state, 3)


@pytest.mark.parametrize("name", ["reg_token", "register_tokens"])
def test_registers_of_timm_and_dinov2(name, tmp_path):
    state = vit_state(width=192, fixed=False, scale=True, registers=name, class_rows=int(name == "register_tokens"))
    path = write({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    encoder = load_encoder(path)
    assert encoder.config()["registers"] == 2
    rows = encoder.vit.positions[:1]
    assert rows.any() == (name == "register_tokens")  # timm gives class tokens no positions here
    with torch.no_grad():
        assert encoder(images())[1]["registers"].shape == (2, 2, 192)


def test_an_unpublished_width_needs_heads(tmp_path):
    state = vit_state(width=48)
    path = write(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match="heads of a width of 48 are not known"):
        load_encoder(path)
    check(read_checkpoint(path, heads=4), state, 4)


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "resnet50"])
def test_residual_networks_of_r3m(network, tmp_path):
    torch.manual_seed(0)
    model = ResNetEncoder(network=network, image_size=64).network.eval()
    state = {f"module.convnet.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.lang_rew.pred.0.weight"] = torch.zeros(2, 2)
    state["module.lang_enc.model.embeddings.word_embeddings.weight"] = torch.zeros(2, 2)
    encoder = load_encoder("r3m:" + write({"r3m": state, "global_step": 5}, tmp_path / "model.pt"))
    assert encoder.config() == {
        "name": "embodied.encoders.resnet.ResNetEncoder",
        "network": network,
        "image_size": 224,
    }
    with torch.no_grad():
        torch.testing.assert_close(encoder(images(64))[1]["pooled"], model(images(64))[1]["pooled"])


def test_torchvision_with_its_classifier(tmp_path):
    state = {**ResNetEncoder().network.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    assert load_encoder(write(state, tmp_path / "resnet18.pth")).width == 512


class Runs:
    """What a pickle may hold: a call."""

    def __reduce__(self):
        return (os.mkdir, ("this folder must not come to be",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": torch.zeros(1)}}, "the layout of these weights is not known"),
        ({"model": {}}, r"they hold no tensor"),
        ([1, 2], "holds a list, expected weights by name"),
        ({"model": Runs()}, "holds more than tensors"),
        ({**vit_state(width=192), "neck.weight": torch.zeros(1)}, "1 tensors that are not known here, among them neck"),
        (
            {**vit_state(width=192), "blocks.1.norm1.weight": torch.zeros(5)},
            r"expected 192 values for \[192\], got \[5\]",
        ),
        ({**vit_state(width=192), "pos_embed": torch.zeros(1, 12, 192)}, "a square of patches, got 12"),
        ({**vit_state(width=192), "pos_embed": torch.zeros(5, 192)}, r"pos_embed: expected 3 axes, got \[5, 192\]"),
    ],
)
def test_what_cannot_be_read_gives_one_message(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_encoder(write(content, tmp_path / "weights.pth"))
    assert not os.path.exists("this folder must not come to be")


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_encoder("mae:absent.pth")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=r"is damaged|holds more than tensors"):
            load_encoder(str(tmp_path / name))
    state = vit_state(width=192)
    del state["blocks.1.attn.proj.weight"]
    with pytest.raises(UserError, match=r"lack blocks\.1\.attn\.proj\.weight"):
        load_encoder(write(state, tmp_path / "b.pth"))
    with pytest.raises(UsageError, match="unknown layout of weights 'mea': did you mean mae"):
        read_checkpoint(tmp_path / "b.pth", layout="mea")
    residual = {name: value for name, value in ResNetEncoder().network.state_dict().items() if "layer4" not in name}
    with pytest.raises(UserError, match="these are not the weights of a resnet18"):
        load_encoder(write(residual, tmp_path / "c.pth"))
