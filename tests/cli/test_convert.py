"""`embodied convert`, whole: there and back with the same features, and one message for what goes wrong."""

import re

import pytest
import torch

from embodied.cli.main import main
from embodied.encoders.artifact import fingerprint, load_artifact, save_encoder
from embodied.encoders.hf_convert import format_names
from embodied.encoders.load import load_encoder
from embodied.encoders.resnet import ResNetEncoder
from embodied.encoders.vit import ViTEncoder

SMALL = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 3}


def run(capsys, *arguments):
    code = main(["convert", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, " ".join(captured.err.split())


@pytest.fixture
def artifact(tmp_path):
    torch.manual_seed(0)
    save_encoder(ViTEncoder(**SMALL, mean=(0.5, 0.4, 0.3)), tmp_path / "run" / "encoder", card="# small\n")
    return tmp_path / "run" / "encoder"


def features(spec):
    encoder = load_encoder(str(spec))
    frames = torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with torch.no_grad():
        return encoder(encoder.preprocess(frames))[0]


def test_there_and_back(artifact, tmp_path, capsys):
    pytest.importorskip("transformers")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    code, out, _ = run(capsys, f"encoder={artifact.parent}", "to=dinov2", f"out={theirs}")  # the run's folder
    assert code == 0
    assert "as dinov2" in out and "patch tokens" in out and "another thing" not in out
    assert f"encoder=hf:{theirs}" in out
    torch.testing.assert_close(features(f"hf:{theirs}"), features(artifact), atol=1e-5, rtol=1e-4)
    readme = (theirs / "README.md").read_text()
    assert "embodied convert" in readme and "to=dinov2" in readme and "- patch tokens: " in readme
    code, out, _ = run(capsys, f"encoder=hf:{theirs}", f"out={ours}")
    assert code == 0 and f"encoder=path={ours}" in out
    back = load_artifact(ours)
    assert isinstance(back, ViTEncoder) and back.normalize.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    torch.testing.assert_close(features(ours), features(artifact), atol=1e-5, rtol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "run", "theirs"]
    code, _, _ = run(capsys, f"encoder='hf:{theirs}@1+2'", f"out={tmp_path / 'layers'}")
    assert code == 0
    torch.testing.assert_close(features(tmp_path / "layers"), features(f"{artifact}@1+2"), atol=1e-5, rtol=1e-4)


def test_the_first_format_that_fits(artifact, tmp_path, capsys):
    pytest.importorskip("transformers")
    code, out, _ = run(capsys, f"encoder={artifact}", "to=transformers", f"out={tmp_path / 'out'}")
    assert code == 0 and "as vit_mae" in out
    torch.testing.assert_close(features(f"hf:{tmp_path / 'out'}"), features(artifact), atol=1e-5, rtol=1e-4)


def test_a_released_file_becomes_an_artifact(tmp_path, capsys):
    torch.manual_seed(0)
    network = ResNetEncoder(network="resnet18", image_size=224)
    torch.save(network.network.state_dict(), tmp_path / "resnet18.pth")
    code, _, _ = run(capsys, f"encoder=resnet:{tmp_path / 'resnet18.pth'}", f"out={tmp_path / 'out'}")
    assert code == 0
    assert fingerprint(load_artifact(tmp_path / "out")) == fingerprint(network)


def test_chosen_layers_stay_chosen(artifact, tmp_path, capsys):
    code, out, _ = run(capsys, f"encoder='{artifact}@1+2'", f"out={tmp_path / 'out'}")
    assert code == 0 and "0.0e+00" in out
    assert torch.equal(features(tmp_path / "out"), features(f"{artifact}@1+2"))
    code, _, err = run(capsys, f"encoder='{artifact}@1+2'", "to=transformers", f"out={tmp_path / 'more'}")
    assert code == 1 and "only a ViTEncoder has a form in transformers, got LayersEncoder" in err


def test_what_comes_out_otherwise_is_not_kept(artifact, tmp_path, capsys, monkeypatch):
    def other(folder):
        torch.manual_seed(1)
        return ViTEncoder(**SMALL)

    monkeypatch.setattr("embodied.cli.convert.load_artifact", other)
    code, _, err = run(capsys, f"encoder={artifact}", f"out={tmp_path / 'out'}")
    assert code == 1
    assert "gives other patch tokens than" in err and "nothing was written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_help_names_every_format(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and set(format_names()) <= set(re.findall(r"\w+", out))


def test_what_goes_wrong_gives_one_message(artifact, tmp_path, capsys):
    save_encoder(ViTEncoder(**SMALL, qk_norm=True), tmp_path / "normed", card="# normed\n")
    out = f"out={tmp_path / 'out'}"
    for arguments, code, message in [
        (["to=dinov", out], 2, "unknown format 'dinov': did you mean dinov2"),
        (["to=transformer", out], 2, "did you mean transformers"),
        (["to=embodied"], 2, "where to write?"),
        (["encoder=defualt", out], 2, "did you mean default"),
        (["encoder=state", out], 2, "has no trained weights to convert"),
        (["encoder=scratch", out], 2, "has no trained weights to convert"),
        (["encoder=pixels", "to=transformers", out], 1, "only a ViTEncoder"),
        ([f"encoder={tmp_path / 'normed'}", "to=transformers", out], 1, "vit_mae: no qk_norm=True"),
        ([f"encoder={artifact}", "to=siglip_vision_model", out], 1, "siglip_vision_model: no class_tokens=1"),
        ([f"encoder={artifact}", f"out={artifact}"], 1, "exists already"),
        (["encoder=timm:vit_tiny_patch16_224", out], 1, "is a model of timm, which is not converted"),
        (["encoder=hf:/absent", out], 1, "there is no such folder"),
    ]:
        got, _, err = run(capsys, *arguments)
        assert got == code, err
        assert message in err, err
    assert not (tmp_path / "out").exists()
