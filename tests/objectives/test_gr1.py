"""GR-1's objective: the authors' numbers, its loss by loops, what videos teach, what is missing, what it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gr1_reference import LENGTHS, Inputs, our_outputs, ours
from safetensors.torch import load_file
from tiny_gr1 import encoder, make, network, random_batch
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE, image_key
from embodied.objectives.video.gr1 import GR1
from embodied.training.optimization import compile_parts

GOLDENS = Path(__file__).parent / "goldens" / "gr1.safetensors"
FRONT, FUTURE = image_key("front"), "future." + image_key("front")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_forward_equals_the_authors_code_on_the_same_weights():
    """Goldens: goldens/make_gr1.py, which runs bytedance/GR-1 with lucidrains' resampler on these weights and inputs.

    Largest differences there: 5.5e-6 for pixels up to 6, 7e-7 for actions, none for targets. At the published size with
    45,988,039 weights as they are drawn (`make_gr1.py FOLDER published`): 1.3e-6, 2.7e-7, none.
    """
    objective = ours()
    inputs = Inputs(objective, rows=len(LENGTHS))
    found = our_outputs(objective, inputs)
    for name, expected in load_file(GOLDENS).items():
        value = found[name][:, :, ::28, ::48] if found[name].ndim == 4 else found[name]
        torch.testing.assert_close(value[inputs.there], expected[inputs.there], rtol=0, atol=2e-5, msg=name)


@torch.no_grad()
def test_loss_against_loops():
    objective = make(objective={"arm_weight": 2.0, "gripper_weight": 0.5, "video_weight": 0.25}, gripper=1).eval()
    batch = random_batch()
    batch[ACTION + "_is_pad"][0] = batch[ACTION + "_is_pad"][3, :2] = True
    batch[FUTURE + "_is_pad"][:, -1] = batch[FUTURE + "_is_pad"][2] = True
    batch[FRONT + "_is_pad"][4, 0] = True
    head = objective.encoder.network.action_head
    head.scale.fit(ACTION, {ACTION: (torch.tensor([0.1, 0.0]), torch.tensor([0.5, 1.0]))})
    loss, metrics = objective(batch, generator())
    features = objective.encoder.network(*objective.inputs(batch), future=True)
    predicted = head(features[ACTION])
    pixels = objective.decoder(features[FUTURE])
    arm, hand, right, video = [], [], [], []
    for row in range(5):
        for step in range(4):
            if not batch[ACTION + "_is_pad"][row, step]:
                action = batch[ACTION][row, step]
                distance = abs(float(predicted.arm[row, step, 0]) - (float(action[0]) - 0.1) / 0.5)
                arm.append(0.5 * distance**2 if distance < 1 else distance - 0.5)
                logit, opened = predicted.gripper[row, step], float(action[1] > 0)
                hand.append(float(F.softplus(logit) - opened * logit))
                right.append(float(logit > 0) == opened)
            if not (batch[FUTURE + "_is_pad"][row, step] or batch[FRONT + "_is_pad"][row, step]):
                frame = batch[FUTURE][row, step].double() / 255
                frame = (frame - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
                for place in range(4):
                    top, left = 8 * (place // 2), 8 * (place % 2)
                    patch = frame[top : top + 8, left : left + 8].flatten()
                    target = (patch - patch.mean()) / (patch.var(unbiased=True).sqrt() + 1e-6)
                    video.append(float((pixels[row, step, place] - target).square().mean()))
    assert float(metrics["loss_arm"]) == pytest.approx(np.mean(arm), rel=1e-4)
    assert float(metrics["loss_gripper"]) == pytest.approx(np.mean(hand), rel=1e-4)
    assert float(metrics["gripper_right"]) == pytest.approx(np.mean(right))
    assert float(metrics["loss_video"]) == pytest.approx(np.mean(video), rel=1e-4)
    expected = 2.0 * np.mean(arm) + 0.5 * np.mean(hand) + 0.25 * np.mean(video)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_every_trained_weight_has_a_gradient_and_the_image_encoder_none():
    objective = make(gripper=1)
    objective(random_batch(), generator())[0].backward()
    for name, weight in objective.named_parameters():
        if name.startswith("encoder.frames."):
            assert weight.grad is None, name
        elif name.endswith("stems.absent"):  # stands where nobody looks
            assert not weight.grad.any()
        else:
            assert bool(weight.grad.any()), name


def test_videos_leave_what_makes_actions_alone_and_robots_do_not():
    """No gradient reaches the action's parts: neither from a batch of videos, nor from the videos of a mixed one."""
    objective, batch = make(), random_batch()
    for name in (ACTION, STATE):
        batch[name + "_is_pad"][:] = True
        batch[name][:] = float("nan")
    loss, metrics = objective(batch, generator())
    loss.backward()
    assert bool(loss.isfinite()) and float(metrics["loss_arm"]) == 0
    for name, weight in objective.named_parameters():
        if any(part in name for part in ("action_head", "queries.action", "stems.state")):
            assert not weight.grad.any(), name
    assert bool(objective.decoder.predict.weight.grad.any())
    mixed = {name: torch.cat([value, random_batch(seed=1)[name]]) for name, value in batch.items()}
    objective.zero_grad()
    objective(mixed, generator())[0].backward()
    there = objective.encoder.network.action_head.arm.weight.grad.clone()
    alone = make()
    alone(random_batch(seed=1), generator())[0].backward()
    torch.testing.assert_close(there, alone.encoder.network.action_head.arm.weight.grad, rtol=1e-3, atol=1e-6)


def test_without_a_weight_of_videos_no_picture_is_made_and_actions_learn_the_same(monkeypatch):
    objective, batch = make(objective={"video_weight": 0.0}, gripper=1), random_batch()
    whole = make(objective={"video_weight": 1e-30}, gripper=1)
    whole(batch, generator())[0].backward()
    monkeypatch.setattr(objective.decoder, "forward", lambda *_: pytest.fail("a picture was made"))
    loss, metrics = objective(batch, generator())
    loss.backward()
    assert "loss_video" not in metrics and "loss_arm" in metrics
    for (name, weight), other in zip(objective.named_parameters(), whole.parameters(), strict=True):
        if weight.requires_grad:  # none without a gradient: several processes wait for each
            torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-7, msg=name)
    with pytest.raises(UsageError, match="data without actions teach the future alone"):
        make(objective={"video_weight": 0.0}, action_dim=0)


def test_without_actions_in_all_of_the_data_there_is_no_head():
    objective, batch = make(action_dim=0, state_dim=0, text_dim=0), random_batch()
    loss, metrics = objective(batch, generator())
    assert list(metrics) == ["loss_video"]
    assert float(loss.detach()) == pytest.approx(0.1 * float(metrics["loss_video"]), rel=1e-5)
    loss.backward()
    assert not any(part in name for name, _ in objective.named_parameters() for part in ("action", "state", "language"))


@pytest.mark.parametrize("garbage", [0.0, 1e6, float("nan")])
@pytest.mark.parametrize("away", [FRONT, STATE, ACTION, INSTRUCTION])
def test_what_is_missing_may_hold_anything(garbage, away):
    objective, batch = make(gripper=0), random_batch()
    batch[away + "_is_pad"][1:4] = True
    expected, _ = objective(batch, generator())
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in objective.named_parameters() if weight.grad is not None}
    batch[away][batch[away + "_is_pad"]] = garbage
    objective.zero_grad()
    loss, _ = objective(batch, generator())
    loss.backward()
    assert torch.equal(loss, expected)
    assert all(torch.equal(dict(objective.named_parameters())[name].grad, each) for name, each in gradients.items())


def test_future_frames_reach_the_loss_alone():
    objective, batch = make().eval(), random_batch()
    other = {**batch, FUTURE: 255 - batch[FUTURE]}
    with torch.no_grad():
        before, after = (objective.encoder.network(*objective.inputs(each), future=True) for each in (batch, other))
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not torch.equal(objective(batch, generator())[0], objective(other, generator())[0])


def test_it_learns_one_batch_below_what_means_give():
    objective, batch = make(objective={"video_weight": 1.0}), random_batch(rows=3)
    optimizer = torch.optim.Adam([weight for weight in objective.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(150):
        loss, metrics = objective(batch, generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(metrics["loss_arm"]) < 0.05  # the mean of normal values gives 0.42
    assert float(metrics["loss_video"]) < 0.8  # noise of 12 frames by heart; the mean of patches gives 1


@torch.no_grad()
def test_the_same_loss_from_its_tensors_compiled_and_nearly_so_in_bf16():
    objective, batch = make(gripper=1), random_batch()
    expected = objective(batch, generator())[0]
    again = make(gripper=1)
    for weight in again.parameters():
        weight.zero_()
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again(batch, generator())[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(objective(batch, generator())[0]) == pytest.approx(float(expected), rel=0.05)
    compile_parts(again, "eager")
    torch.testing.assert_close(again(batch, generator())[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pictures_are_the_future_with_the_true_means():
    objective, batch = make(objective={"norm_pixels": False}).eval(), random_batch()
    objective.decoder.predict.weight.zero_()
    objective.decoder.predict.bias.zero_()
    ((predicted, true),) = objective.pictures(batch).values()
    assert torch.equal(true, batch[FUTURE][:, -1])
    assert predicted.shape == (5, 16, 16, 3) and predicted[0, 0, 0].tolist() == [124, 116, 104]  # ImageNet's mean
    objective.norm_pixels = True
    ((predicted, true),) = objective.pictures(batch).values()
    first = true[:, :8, :8].float()
    assert float(predicted[:, :8, :8].float().std(dim=(1, 2)).max()) < 1  # every patch is one colour ...
    assert float((predicted[:, :8, :8].float() - first).mean().abs()) < 2  # ... the mean of the true one


def test_windows_of_one_step_and_of_two_cameras_train():
    for options in ({"context": 1}, {"cameras": ["front", "side"]}):
        objective = make(**options)
        batch = random_batch(context=objective.encoder.context, cameras=objective.encoder.cameras)
        loss, _ = objective(batch, generator())
        loss.backward()
        assert bool(loss.isfinite())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arm_weight": -1.0}, "expected weights of at least 0"),
        ({"arm_weight": 0, "gripper_weight": 0, "video_weight": 0}, "not all 0"),
        ({"next_frames": 0}, "objective.next_frames must be a whole number of at least 1, got 0"),
        ({"next_frames": True}, "objective.next_frames"),
        ({"image_size": 60}, "multiple of objective.patch_size"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        GR1(encoder(), **settings)


def test_instructions_need_the_encoder_that_makes_them():
    arguments = network(text_dim=0)
    made = encoder()
    with pytest.raises(UsageError, match="text: expected the text encoder of a network that reads instructions"):
        type(made)(frames=made.frames, network=arguments, text={"spec": "wordllama", "fingerprint": ""})
    with pytest.raises(UsageError, match="latent of GR-1 must be class_and_patches"):
        type(made)(frames=made.frames, network=arguments, latent="pooled")
