"""The worked example of docs/encoders.md works."""

import re
import sys
import types
from pathlib import Path

import torch

from embodied.core.protocols import Encoder
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.spec import BUILTIN, LAYOUTS

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")


def test_the_new_encoder_of_the_page(tmp_path, monkeypatch):
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class " in block]
    module = types.ModuleType("embodied.encoders.edges")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    encoder = module.EdgeEncoder(side=4)
    save_encoder(encoder, tmp_path / "edges", card="# edges\n")
    loaded = load_encoder(str(tmp_path / "edges"))
    assert isinstance(loaded, Encoder)
    assert fingerprint(loaded) == fingerprint(encoder)
    frames = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    frames[:, :, 20:] = 255  # an edge in the middle, upright
    tokens, out = loaded(loaded.preprocess(frames))
    assert tokens.shape == (1, 16, 2)
    assert out["pooled"].shape == (1, 32)
    across, down = tokens.unflatten(1, (4, 4)).unbind(dim=-1)
    assert across.flatten(1).amax() > 0
    assert not down.any()


def test_the_page_names_every_way_in():
    for name in (*BUILTIN, *LAYOUTS):
        assert f"{name}" in PAGE
