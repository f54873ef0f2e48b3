"""robomimic's mixtures on the weights of our heads: tests/policies/fixtures/heads_robomimic.npz.

python -m venv oracle && oracle/bin/pip install torch torchvision robomimic==0.3.0
oracle/bin/python tests/oracles/heads_robomimic.py tests/policies/fixtures
"""

from __future__ import annotations

import sys
from collections import OrderedDict

import robomimic.utils.obs_utils as obs_utils
import torch
from heads_numbers import fill, renamed, save, tensor
from robomimic.models.policy_nets import GMMActorNetwork, RNNGMMActorNetwork

RULES = [
    (r"^nets\.decoder\.nets\.", "mixture."),
    (r"^nets\.mlp\._model\.0\.", "trunk.0.0."),
    (r"^nets\.mlp\._model\.2\.", "trunk.0.2."),
    (r"^nets\.rnn\.nets\.", "lstm."),
    (r"^mixture\.logits\.", "mixture.logit."),
]


def filled(model: torch.nn.Module) -> torch.nn.Module:
    fill(dict(model.named_parameters()), renamed(model, RULES))
    return model.train()  # in eval mode robomimic's deviations are 1e-4


def main(folder: str) -> None:
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"]}})
    shapes, golden = OrderedDict(state=(5,)), {}
    plain = {"core_class": None, "core_kwargs": {}, "obs_randomizer_class": None, "obs_randomizer_kwargs": {}}
    options = {
        "encoder_kwargs": {"low_dim": plain},
        "ac_dim": 2,
        "num_modes": 3,
        "min_std": 1e-4,
        "low_noise_eval": False,
    }
    model = filled(GMMActorNetwork(obs_shapes=shapes, mlp_layer_dims=[16, 12], **options))
    features, actions = tensor("gmm features", 4, 5), tensor("gmm actions", 4, 2)
    with torch.no_grad():
        golden["gmm"] = model.forward_train({"state": features}).log_prob(actions)
    model = filled(
        RNNGMMActorNetwork(
            obs_shapes=shapes, mlp_layer_dims=[], rnn_hidden_dim=12, rnn_num_layers=2, rnn_kwargs={}, **options
        )
    )
    features, actions = tensor("rnn features", 4, 6, 5), tensor("rnn actions", 4, 6, 2)
    with torch.no_grad():
        golden["rnn_gmm"] = model.forward_train({"state": features}).log_prob(actions)
    save(f"{folder}/heads_robomimic.npz", golden)


if __name__ == "__main__":
    main(sys.argv[1])
