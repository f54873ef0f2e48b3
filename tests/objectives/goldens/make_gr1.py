"""Writes gr1.safetensors: what the authors' GR-1 gives for weights and inputs of `tests/shared/gr1_reference.py`.

PYTHONPATH=tests/shared python tests/objectives/goldens/make_gr1.py FOLDER [published]

FOLDER holds `models/` of bytedance/GR-1 (commit 4a2e956) and `flamingo_pytorch/` of lucidrains/flamingo-pytorch
(10913ab). Their code runs as it is, on this project's torch: of the old transformers and of einops_exts, which they
import, the few names that are used stand below. With `published` nothing is written: it compares the network of the
published size, on the spot.
"""

import sys
import types
from pathlib import Path

import einops
import torch
from gr1_reference import LENGTHS, Inputs, our_outputs, ours
from safetensors.torch import save_file
from torch import nn

BLOCK = {
    "norm1": "ln_1",
    "qkv": "attn.c_attn",
    "project": "attn.c_proj",
    "norm2": "ln_2",
    "mlp.0": "mlp.c_fc",
    "mlp.2": "mlp.c_proj",
}
DECODER_BLOCK = {"qkv": "attn.qkv", "project": "attn.proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
NAMES = {  # ours: theirs; prefixes
    "stems.language.": "embed_lang.",
    "stems.state.arm.": "embed_arm_state.",
    "stems.state.hand.": "embed_gripper_state.",
    "stems.state.join.": "embed_state.",
    "stems.resampler.media": "perceiver_resampler.media_pos_emb",
    "stems.resampler.": "perceiver_resampler.",
    "stems.patches.static.": "embed_patch.",
    "stems.patches.gripper.": "embed_hand_patch.",
    "stems.frames.static.": "embed_img.",
    "stems.frames.gripper.": "embed_hand_img.",
    "stems.absent": "transformer.wte.weight",
    "stems.times": "embed_timestep.weight",
    "norm.": "embed_ln.",
    "trunk.blocks.": "transformer.h.",
    "trunk.norm.": "transformer.ln_f.",
    "action_head.layers.": "pred_act_mlps.",
    "action_head.arm.": "pred_arm_act.",
    "action_head.hand.": "pred_gripper_act.",
    "queries.action": "action_queries.weight",
    "queries.future_observation_images_static": "obs_queries.weight",
    "queries.future_observation_images_gripper": "obs_hand_queries.weight",
    "decoder.embed.": "decoder_embed.",
    "decoder.mask_token": "mask_token",
    "decoder.blocks.": "decoder_blocks.",
    "decoder.norm.": "decoder_norm.",
    "decoder.predict.": "decoder_pred.",
}
RESAMPLER = {
    "token_norm": "0.norm_media",
    "latent_norm": "0.norm_latents",
    "attention.query": "0.to_q",
    "attention.key_value": "0.to_kv",
    "attention.project": "0.to_out",
    "mlp": "1",
}


class Conv1D(nn.Module):
    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, values):
        return values @ self.weight + self.bias


class PreTrainedModel(nn.Module):
    dtype = torch.float32

    def __init__(self, config):
        super().__init__()
        self.config = config

    def init_weights(self):
        """Weights are given."""

    def get_head_mask(self, mask, layers):
        return [None] * layers


class GPT2Config(types.SimpleNamespace):
    def __init__(self, **given):
        plain = {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-5}
        plain |= {"n_ctx": 1024, "add_cross_attention": False, "output_attentions": False}
        super().__init__(
            **{**plain, "output_hidden_states": False, "use_cache": True, "use_return_dict": True, **given}
        )


class Output(dict):
    """What their models return."""


def plain(*arguments, **options):
    """A decorator that does nothing."""
    return lambda function: function


def module(name, **contents):
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    sys.modules[name] = made
    return made


def stand_in():
    """The names of libraries that the authors' code imports."""
    many = {"rearrange_many": lambda each, *rest, **axes: [einops.rearrange(one, *rest, **axes) for one in each]}
    module("einops_exts", **many, repeat_many=None)
    silent = types.SimpleNamespace(get_logger=lambda name: None)
    transformers = module("transformers", GPT2Config=GPT2Config)
    transformers.utils = module("transformers.utils", logging=silent)
    module("transformers.activations", ACT2FN={"relu": nn.functional.relu})
    decorators = ("add_code_sample_docstrings", "add_start_docstrings", "add_start_docstrings_to_model_forward")
    module(
        "transformers.file_utils",
        ModelOutput=Output,
        **dict.fromkeys((*decorators, "replace_return_docstrings"), plain),
    )
    module("transformers.modeling_outputs", BaseModelOutputWithPastAndCrossAttentions=Output)
    unused = dict.fromkeys(("SequenceSummary", "find_pruneable_heads_and_indices", "prune_conv1d_layer"))
    module("transformers.modeling_utils", Conv1D=Conv1D, PreTrainedModel=PreTrainedModel, **unused)
    module("transformers.utils.model_parallel_utils", assert_device_map=None, get_device_map=None)
    for name in ("transformers.models", "transformers.models.gpt2"):
        module(name)
    module("transformers.models.gpt2.configuration_gpt2", GPT2Config=GPT2Config)
    torch.Tensor.cuda = lambda tensor: tensor


def theirs_of(name):
    """The authors' name of one of our parameters, and whether its matrix lies the other way round."""
    name = name.removeprefix("encoder.sequence.")
    ours = max((start for start in NAMES if name.startswith(start)), key=len)
    found, rest = NAMES[ours], name.removeprefix(ours)
    turned = False
    if ours in ("trunk.blocks.", "decoder.blocks."):
        number, rest = rest.split(".", 1)
        table = BLOCK if ours.startswith("trunk") else DECODER_BLOCK
        part, kind = rest.rsplit(".", 1)
        rest = f"{number}.{table.get(part, part)}.{kind}"
        turned = ours.startswith("trunk") and kind == "weight" and "norm" not in part
    if ours == "stems.resampler." and rest.startswith("layers."):
        _, number, rest = rest.split(".", 2)
        part = max((start for start in RESAMPLER if rest.startswith(start)), key=len)
        rest = f"layers.{number}.{RESAMPLER[part]}{rest.removeprefix(part)}"
    return found + rest, turned


class Seen(nn.Module):
    """In place of the frozen MAE: features of the static, then of the gripper's camera."""

    def __init__(self, inputs):
        super().__init__()
        self.waiting = [inputs.features["static"], inputs.features["gripper"]]

    def forward(self, images):
        found = self.waiting.pop(0).flatten(0, 1)
        return found[:, 0], found[:, 1:]


class Said(nn.Module):
    def encode_text(self, text):
        return text


def reference(objective, inputs, *, published):
    """The authors' model with the weights of ours."""
    from models.gr1 import GR1

    made = objective.encoder.network.config()
    sizes = {
        "depth": made["resampler_depth"],
        "dim_head": made["resampler_head_width"],
        "heads": made["resampler_heads"],
    }
    model = GR1(
        Said(),
        Seen(inputs),
        state_dim=made["state_dim"],
        act_dim=made["action_dim"],
        hidden_size=made["width"],
        sequence_length=made["context"],
        training_target=["act_pred", "fwd_pred", "fwd_pred_hand"],
        img_feat_dim=made["latent_dim"],
        patch_feat_dim=made["latent_dim"],
        lang_feat_dim=made["text_dim"],
        resampler_params={**sizes, "num_latents": made["latents"], "num_media_embeds": 1},
        n_layer=made["depth"],
        n_head=made["heads"],
        n_inner=4 * made["width"],
        activation_function="relu",
    )
    weights = dict(model.named_parameters())
    left = {name for name, weight in weights.items() if weight.requires_grad}
    with torch.no_grad():
        for name, weight in objective.named_parameters():
            if weight.requires_grad:
                there, turned = theirs_of(name)
                left.remove(there)
                weights[there].copy_((weight.T if turned else weight).reshape(weights[there].shape))
    assert not left, left
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trained == sum(weight.numel() for weight in objective.parameters() if weight.requires_grad)
    assert not published or trained == 45_988_039
    return model.eval()


@torch.no_grad()
def main(folder, *, published):
    sys.path.insert(0, str(folder))
    stand_in()
    objective = ours(published=published)
    inputs = Inputs(objective, rows=len(LENGTHS))
    model = reference(objective, inputs, published=published)
    pixels = {
        name: objective.normalize(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        for name, seen in inputs.pixels.items()
    }
    gripper = inputs.state[..., -1]
    one_hot = nn.functional.one_hot(((gripper + 1) / 2).long(), 2).float()
    found = model(
        rgb=pixels["static"],
        hand_rgb=pixels["gripper"],
        state={"arm": inputs.state[..., :-1], "gripper": one_hot},
        language=inputs.words,
        attention_mask=inputs.there.long(),
    )
    outputs = {
        "arm": found["arm_action_preds"],
        "gripper": found["gripper_action_preds"][..., 0],
        "future.static": found["obs_preds"],
        "future.gripper": found["obs_hand_preds"],
        "target.static": found["obs_targets"],
        "target.gripper": found["obs_hand_targets"],
    }
    for name, ours_here in our_outputs(objective, inputs).items():
        error = (ours_here - outputs[name])[inputs.there].abs().max()
        print(f"{name}: largest difference {float(error):.2g}, largest value {float(outputs[name].abs().max()):.3g}")
    if not published:
        kept = {name: value[:, :, ::28, ::48] if value.ndim == 4 else value for name, value in outputs.items()}
        save_file(
            {name: value.contiguous() for name, value in kept.items()}, Path(__file__).with_name("gr1.safetensors")
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), published="published" in sys.argv[2:])
