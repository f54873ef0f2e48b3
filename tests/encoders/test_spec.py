"""How encoders are written."""

import subprocess
import sys

import pytest

from embodied.core.errors import UsageError
from embodied.encoders.spec import absolute_spec, split_layers, split_layout


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("default@3+6", ("default", [3, 6])),
        ("hf:a/b@12", ("hf:a/b", [12])),
        ("mae:weights.pth@1", ("mae:weights.pth", [1])),
        ("folder@home", ("folder@home", [])),
        ("default@", ("default@", [])),
        ("default", ("default", [])),
    ],
)
def test_layers(spec, expected):
    assert split_layers(spec) == expected


def test_layouts():
    assert split_layout("mvp:a/b.pth") == ("mvp", "a/b.pth")
    assert split_layout("hf:a/b") == (None, "hf:a/b")
    assert split_layout("a.pth") == (None, "a.pth")


def test_files_and_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for spec, expected in {
        "default": "default",
        "pixels": "pixels",
        "timm:vit_tiny": "timm:vit_tiny",
        "timm:vit_tiny@3": "timm:vit_tiny@3",
        "hf:model": f"hf:{tmp_path}/model",
        "hf:model@2+4": f"hf:{tmp_path}/model@2+4",
        "hf:facebook/dinov2-small": "hf:facebook/dinov2-small",
        "model": f"{tmp_path}/model",
        "./absent": f"{tmp_path}/absent",
        "mvp:weights.pth": f"mvp:{tmp_path}/weights.pth",
        "weights.safetensors@2": f"{tmp_path}/weights.safetensors@2",
    }.items():
        assert absolute_spec(spec) == expected
    for spec in ("pixel", "pixel@3"):
        with pytest.raises(UsageError, match="unknown encoder 'pixel': did you mean pixels"):
            absolute_spec(spec)


def test_it_needs_no_torch():
    code = "import sys, embodied.encoders.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
