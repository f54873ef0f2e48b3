"""Residual networks."""

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.models.resnet import RESNETS, ResNet, map_side

# Of the published networks, less their classifiers of 1,000 classes
PARAMETERS = {"resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032}


@pytest.mark.parametrize("name", RESNETS)
def test_sizes_are_the_published_ones(name):
    network = ResNet(name).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    tokens, out = network(torch.randn(2, 3, 64, 96), layers=True)
    assert tokens.shape == (2, 2 * 3, network.width)
    assert [out[f"layer{k}"].shape[1] for k in (1, 2, 3, 4)] == [16 * 24, 8 * 12, 4 * 6, 2 * 3]
    torch.testing.assert_close(out["layer4"], tokens)
    torch.testing.assert_close(out["pooled"], tokens.mean(dim=1))


@pytest.mark.parametrize(("name", "size"), [("resnet18", 84), ("resnet50", 64)])
def test_same_as_transformers(name, size):
    transformers = pytest.importorskip("transformers")
    depths, bottleneck = RESNETS[name]
    config = transformers.ResNetConfig(
        depths=list(depths),
        hidden_sizes=[256, 512, 1024, 2048] if bottleneck else [64, 128, 256, 512],
        layer_type="bottleneck" if bottleneck else "basic",
    )
    torch.manual_seed(0)
    ours = ResNet(name).eval()
    for part in ours.modules():  # statistics that are not those of a new network
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    theirs = transformers.ResNetModel(config).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), in_their_order(ours), strict=True)))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        tokens, _ = ours(images)
    scale = expected.abs().max()  # random weights let the values grow
    torch.testing.assert_close(tokens / scale, expected.flatten(2).transpose(1, 2) / scale, rtol=0, atol=1e-5)
    assert expected.shape[-1] == map_side(size)


def in_their_order(network):
    """Tensors of the state dict with the shortcut of each block first, as transformers lists it."""
    blocks = {}
    for name, tensor in network.state_dict().items():
        prefix = ".".join(name.split(".")[:2]) if name.startswith("layer") else "stem"
        blocks.setdefault(prefix, []).append((not name.startswith(f"{prefix}.downsample"), tensor))
    return [tensor for block in blocks.values() for _, tensor in sorted(block, key=lambda entry: entry[0])]


def test_learns_which_network_is_meant():
    with pytest.raises(UsageError, match="unknown residual network 'resnet19'"):
        ResNet("resnet19")


def test_frozen_statistics_stay():
    network = ResNet().eval()
    before = network.bn1.running_mean.clone()
    network(torch.randn(2, 3, 32, 32))
    assert torch.equal(network.bn1.running_mean, before)
