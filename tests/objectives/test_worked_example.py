"""The method that docs/pretraining.md adds step by step: its file and its yaml make a method that learns."""

import inspect
import re
import sys
import types
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf
from tiny_objectives import WHOLE, batch, encoder, frames, generator, train

from embodied.models.patches import patchify

PAGE = (Path(__file__).parents[2] / "docs" / "pretraining.md").read_text()


def block(language):
    """The first one after the heading."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.partition("## Adding a method")[2], re.DOTALL)
    assert found
    return found[1]


def test_the_example_is_built_from_its_yaml_and_learns(monkeypatch):
    module = types.ModuleType("embodied.objectives.masked.simmim")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block("python"), module.__name__, "exec"), module.__dict__)
    settings = OmegaConf.to_container(OmegaConf.create(block("yaml")))
    kind = get_class(settings.pop("_target_"))
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    assert settings == {"mask_ratio": defaults["mask_ratio"], "crop_scale": list(defaults["crop_scale"])}
    objective = train(kind(encoder(), **{**settings, "crop_scale": WHOLE}).train(), 60, rate=6e-3)
    patches = patchify(objective.encoder.preprocess(frames(32)), 8)
    trivial = (patches - patches.median(dim=0).values).abs().mean().item()
    assert objective(batch(32), generator(100))[0].item() < 0.75 * trivial
