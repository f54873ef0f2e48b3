"""Every objective's yaml builds its method, and says what the signature says."""

import inspect
import re
from pathlib import Path

import hydra
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from tiny_objectives import teacher, tokenizer
from tiny_sequences import image_encoder

from embodied.cli.pretrain_sequence import build_sequence_objective
from embodied.core.protocols import ACTION, STATE, image_key
from embodied.encoders.vit import ViTEncoder
from embodied.models.sequence.sensorimotor import SensorimotorTransformer
from embodied.objectives.distill import Distill
from embodied.objectives.masked.mae import MAE
from embodied.objectives.parts.quantizers import VectorQuantizer
from embodied.objectives.parts.tokenizer import Tokenizer
from embodied.objectives.self_distillation.dino import DINO
from embodied.objectives.supervised import Supervised

FOLDER = Path(__file__).parents[2] / "embodied" / "conf" / "objective"
SEQUENCES = ("rpt",)  # learn from windows: their encoder is no vision transformer
MIXTURES = ("hpt",)  # learn from many embodiments: see test_hpt.py
VIDEOS = ("gr1", "maskvit", "toto")  # learn from clips: see their own tests
NAMES = sorted({path.stem for path in FOLDER.glob("*.yaml")} - {*SEQUENCES, *MIXTURES, *VIDEOS})
MODULES = {"beit": {"tokenizer": tokenizer}, "distill": {"teacher": teacher}}  # what a yaml leaves to the user
PASSED_ON = {"ibot": DINO, "tbm": MAE}  # where further arguments go
RECIPES = {  # what a recipe of another method changes
    "visual_atoms": {"mixup": 0.8, "cutmix": 1.0},
    "vqgan": {"codes": 1024, "decoder_depth": 1, "pixels": "l1", "perceptual": 1.0, "adversarial": 0.1}
    | {"adversarial_start": 5000},
}
SETTING = re.compile(r"[+]?[a-z_]+\.[a-z_.]+=(?:'[^']*'|[^\s,]+)")
TINY = ["encoder.patch_size=8", "encoder.width=32", "encoder.depth=2", "encoder.heads=2"]


@pytest.mark.parametrize("name", NAMES)
def test_builds_its_method_with_the_defaults_of_the_signature(name):
    size = 32 if name == "beit" else 64  # as its tokenizer; squares of pixio need the larger grid
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", [f"objective={name}", f"encoder.image_size={size}", *TINY])
    given = OmegaConf.to_container(config.objective)
    kind = get_class(given.pop("_target_"))
    modules = {key: make() for key, make in MODULES.get(name, {}).items()}
    encoder = getattr(kind, "make_image_encoder", lambda settings: ViTEncoder(**settings))(config.encoder)
    kind(encoder, **{**given, **modules})
    signatures = [inspect.signature(each).parameters for each in (PASSED_ON.get(name, kind), kind)]
    defaults = {key: parameter.default for each in signatures for key, parameter in each.items()}
    for key, value in given.items():
        expected = RECIPES.get(name, {}).get(key, defaults[key])
        assert value == (list(expected) if isinstance(expected, tuple) else expected), key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vqgan"])  # no vision transformer
def test_what_goes_with_larger_networks_and_data_builds_its_method(name):
    """The comment at the end of the yaml. On the meta device, which has sizes and no weights."""
    text = (FOLDER / f"{name}.yaml").read_text()
    comment = text[text.index("\n# ViT-") :].replace("\n# ", " ")
    given = [setting.replace("'", "") for setting in SETTING.findall(comment)]
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", [f"objective={name}", *given])
    assert config.encoder.size in ("vit_ti", "vit_s", "vit_b")
    settings = OmegaConf.to_container(config.objective)
    kind = get_class(settings.pop("_target_"))
    with torch.device("meta"):
        encoder = getattr(kind, "make_image_encoder", lambda sizes: ViTEncoder(**sizes))(config.encoder)
        modules = {"beit": {"tokenizer": Tokenizer(encoder, VectorQuantizer(codes=16, width=4))}}
    modules["distill"] = {"teacher": teacher()}
    with torch.device("cpu" if kind in (Distill, Supervised) else "meta"):  # these look at values
        objective = kind(encoder, **{**settings, **modules.get(name, {})})
    assert objective.encoder.grid in ((14, 14), (16, 16))


@pytest.mark.parametrize("name", SEQUENCES)
def test_of_sequences_builds_its_method_with_the_defaults_of_the_signature(name):
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", [f"objective={name}"])
    objective = build_sequence_objective(config, image_encoder(), {image_key("front"): 8, STATE: 3, ACTION: 2})
    given = OmegaConf.to_container(config.objective)
    kind = get_class(given.pop("_target_"))
    assert isinstance(objective, kind)
    parameters = inspect.signature(kind).parameters
    assert {key: parameters[key].default for key in given} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    network, made = inspect.signature(SensorimotorTransformer).parameters, objective.encoder.sequence.config()
    assert made["mlp_ratio"] == network["mlp_ratio"].default
    assert {key: network[key].default for key in ("context", "width", "depth", "heads")} == {
        key: made[key] for key in ("context", "width", "depth", "heads")
    }
