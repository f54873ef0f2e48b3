"""HPT's loss: what it is, where its gradients go, and that it learns two embodiments at once."""

import inspect

import hydra
import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from tiny_mixtures import BODIES, CHUNK, entries, fit, make, make_arm, mixture, random_batch
from tiny_sequences import make_store
from torch.nn import functional as F

from embodied.cli.pretrain_mixture import build_mixture_objective
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, ActionHead
from embodied.datasets.loading.mixtures import Embodiment
from embodied.models.sequence.hpt import HPTStems
from embodied.models.sequence.hpt_head import RegressionHead
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.objectives.sensorimotor.hpt import HPT


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(objective):
    return {name for name, part in objective.named_parameters() if part.grad is not None and part.grad.abs().sum() > 0}


def test_the_loss_is_the_authors_on_real_steps_by_a_loop():
    objective, batch = make().eval(), random_batch()
    batch[ACTION + "_is_pad"][3, 1:] = True
    batch[ACTION][3, 1:] = float("nan")  # what is not there may hold anything
    objective.fit_actions(
        {"dot": (torch.zeros(2), torch.ones(2)), "arm": (torch.full((4,), 0.5), torch.full((4,), 2.0))}
    )
    with torch.no_grad():
        loss, metrics = objective(batch, draw())
    rows = []
    for row in range(6):
        name = ("dot", "arm")[row % 2]
        stems = objective.encoder.of(name)
        values = {
            f"observation.images.{view}": batch["images"][row : row + 1, :, k] for k, view in enumerate(stems.cameras)
        }
        values[STATE] = batch[STATE][row : row + 1, :, : BODIES[name]["state_dim"]]
        hidden = {key: torch.zeros(1, 4, dtype=torch.bool) for key in values}
        feature = objective.encoder.network(name).eval()(values, hidden)[ACTION]
        predicted = objective.heads[name].sample(feature)[0]
        size = BODIES[name]["action_dim"]
        target = batch[ACTION][row, :, :size] if name == "dot" else (batch[ACTION][row] - 0.5) / 2
        steps = 1 if row == 3 else CHUNK
        errors = [
            error**2 / 0.1 if error < 0.05 else error - 0.025
            for error in (predicted - target)[:steps].abs().flatten().tolist()
        ]
        rows.append(sum(errors) / len(errors))
    assert float(loss) == pytest.approx(sum(rows) / 6, rel=1e-4)
    assert float(metrics["loss_dot"]) == pytest.approx(sum(rows[::2]) / 3, rel=1e-4)
    assert float(metrics["loss_arm"]) == pytest.approx(sum(rows[1::2]) / 3, rel=1e-4)


def test_gradients_reach_the_trunk_and_the_embodiment_of_the_windows_alone():
    objective = make()
    loss, metrics = objective(random_batch(datasets=(0,)), draw())
    loss.backward()
    touched = gradients(objective)
    assert all(part.grad is not None for part in objective.parameters())  # two processes must agree on whose there are
    assert any(name.startswith("encoder.trunk.") for name in touched)
    assert any(name.startswith("encoder.stems.dot.") for name in touched) and any(
        "heads.dot." in name for name in touched
    )
    assert not [name for name in touched if ".arm." in name]
    assert metrics["loss_arm"].isnan() and metrics["loss_dot"] == loss


def test_padding_of_other_embodiments_is_never_seen():
    objective, batch = make().eval(), random_batch()
    loss, _ = objective(batch, draw())
    dots = batch["dataset"] == 0
    batch[STATE][dots, :, 3:] = float("nan")
    batch[ACTION][dots, :, 2:] = float("nan")
    batch["images"][dots, :, 1] = float("nan")
    assert objective(batch, draw())[0] == loss


def test_in_training_stems_see_a_suffix_of_every_length_alike():
    objective, batch = make(), random_batch(rows=4000)
    state_away, image_away = objective._cut(batch, draw())
    for away in (state_away, image_away[batch["dataset"] == 1][..., 1]):
        seen = (~away).sum(dim=1)
        assert (~away)[:, -1].all() and (away.int().diff(dim=1) <= 0).all()
        shares = torch.bincount(seen, minlength=5)[1:] / len(seen)
        assert (shares - 0.25).abs().max() < 0.04
    assert not torch.equal(state_away, image_away[..., 0])
    assert not objective.eval()._cut(batch, draw())[0].any()
    assert not make(suffix_masking=False)._cut(batch, draw())[0].any()


def test_a_frozen_trunk_stays_as_it_is_while_stems_learn():
    objective = make(frozen=True)
    assert not objective.encoder.trunk.training and objective.encoder.stems.training
    loss, _ = objective(random_batch(), draw())
    loss.backward()
    assert not [name for name in gradients(objective) if "trunk" in name]
    assert any("stems.arm" in name for name in gradients(objective))
    assert all(part.requires_grad for part in make().encoder.trunk.parameters())


def test_a_new_embodiment_joins_a_trained_trunk():
    objective = make()
    before = {name: part.clone() for name, part in objective.state_dict().items()}
    stems = objective.encoder.add("hand", cameras=["palm"], latent_dim=8, state_dim=7, context=4, tokens=4)
    assert isinstance(stems, HPTStems)
    assert objective.encoder.network("hand").trunk is objective.encoder.trunk
    assert all(torch.equal(part, objective.state_dict()[name]) for name, part in before.items())
    with pytest.raises(UsageError, match="unknown embodiment 'hnd': did you mean hand"):
        objective.encoder.network("hnd")
    with pytest.raises(UsageError, match="cannot be called 'hand'"):
        objective.encoder.add("hand", cameras=["palm"], latent_dim=8, state_dim=7, context=4)
    with pytest.raises(UsageError, match="unknown embodiment with a head 'hand'"):
        HPT(objective.encoder, heads=dict(objective.heads), datasets={"grasps": "hand"})


def test_statistics_of_actions_that_are_missing():
    with pytest.raises(UsageError, match="statistics of actions of arm: expected those of 4 values, got none"):
        make().fit_actions({"dot": (torch.zeros(2), torch.ones(2))})


def test_the_head_keeps_the_contract_of_action_heads():
    torch.manual_seed(0)
    head = RegressionHead(feature_dim=5, action_dim=3, horizon=2).eval()
    assert isinstance(head, ActionHead) and head.noise_shape(4) is None
    features, actions = torch.randn(4, 1, 5), torch.rand(4, 2, 3) * 2 - 1
    real, mask = torch.ones(4, 2, dtype=torch.bool), torch.tensor([True, False, True])
    chunk = head.sample(features, action_mask=mask)
    assert chunk.shape == (4, 2, 3) and not chunk[..., 1].any() and chunk.abs().max() <= 1
    loss, _ = head.loss(features, actions, real, action_mask=mask)
    expected = F.smooth_l1_loss(head.sample(features)[..., mask], actions[..., mask], beta=0.05)
    torch.testing.assert_close(loss, expected)


def test_it_beats_the_mean_on_unseen_episodes_of_both_embodiments(tmp_path):
    make_store(tmp_path / "dot", lengths=(12,) * 16)
    make_arm(tmp_path / "arm", lengths=(12,) * 16)
    data = mixture(tmp_path, entries(tmp_path), mixing="uniform")
    trained, held = data.hold_out(0.25, seed=0)
    objective = fit(make(seed=1), data)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    sampler = trained.sampler(batch_size=32, seed=0)
    torch.manual_seed(0)
    for step in range(100):
        batch = {name: torch.from_numpy(array) for name, array in trained.batch(sampler.batch(step)).items()}
        optimizer.zero_grad()
        objective(batch, draw(step))[0].backward()
        optimizer.step()
    batch = {name: torch.from_numpy(array) for name, array in held.batch(torch.arange(len(held)).numpy()).items()}
    with torch.no_grad():
        _, metrics = objective.eval()(batch, draw())
    for index, name in enumerate(("dot", "arm")):
        rows = batch["dataset"] == index
        size = BODIES[name]["action_dim"]
        shift, scale = (objective.get_buffer(f"action_{kind}_{name}") for kind in ("shift", "scale"))
        actions = (batch[ACTION][rows, :, :size] - shift) / scale
        real = ~batch[ACTION + "_is_pad"][rows]
        errors = F.smooth_l1_loss(actions[real].mean(dim=0).expand_as(actions), actions, beta=0.05, reduction="none")
        constant = ((errors.mean(dim=2) * real).sum(dim=1) / real.sum(dim=1)).mean()
        assert float(metrics[f"loss_{name}"]) < 0.6 * float(constant), name


def test_the_yaml_builds_it_with_the_defaults_of_the_signature():
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", ["objective=hpt"])
    bodies = {"dot": Embodiment(cameras=("front",), state_dim=3, action_dim=2)}
    objective = build_mixture_objective(config, bodies, {"dots": "dot"}, latent_dim=8)
    given = OmegaConf.to_container(config.objective)
    assert isinstance(objective, get_class(given.pop("_target_")))
    assert given == {"suffix_masking": inspect.signature(HPT).parameters["suffix_masking"].default}
    trunk = inspect.signature(HPTTrunk).parameters
    assert {name: config.encoder[name] for name in trunk} == {name: each.default for name, each in trunk.items()}
    assert sum(part.numel() for part in objective.encoder.trunk.parameters()) == 3_176_448
    assert config.encoder.tokens == inspect.signature(HPTStems).parameters["tokens"].default


def test_words_reach_the_stems_of_those_who_are_told_something():
    bodies = {name: {**body, "text_dim": 6} for name, body in BODIES.items()}
    objective, batch = make(bodies).eval(), random_batch()
    batch[INSTRUCTION] = torch.randn(6, 6)
    batch[INSTRUCTION + "_is_pad"] = batch["dataset"] == 1
    batch[INSTRUCTION][1] = float("nan")
    loss, _ = objective(batch, draw())
    loss.backward()
    touched = gradients(objective)
    assert any("stems.dot.stems.language" in name for name in touched)
    assert not any("stems.arm.stems.language" in name for name in touched)
    batch[INSTRUCTION][0] += 1
    assert objective(batch, draw())[0] != loss


def test_embodiments_without_most_modalities_are_packed_to_the_same_loss(monkeypatch):
    torch.manual_seed(3)
    objective, batch = make(), random_batch(rows=12)
    batch["images_is_pad"][::2] = True  # half of the windows have no frames, and a stem's tokens less
    found = []
    for least in (0.0, 1.0):
        monkeypatch.setattr("embodied.objectives.sensorimotor.hpt.PACK_BELOW", least)
        objective.zero_grad()
        torch.manual_seed(0)  # of drop-path and dropout
        loss, _ = objective(batch, draw())
        loss.backward()
        found.append((loss.detach(), {name: part.grad.clone() for name, part in objective.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-3, atol=1e-5)
