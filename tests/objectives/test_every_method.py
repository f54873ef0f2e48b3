"""What holds for every pre-training method; a new one is tested by its name in tests/shared/tiny_objectives.py."""

import copy

import pytest
import torch
from tiny_objectives import METHODS, batch, frames, generator, make, train

from embodied.training.optimization import compile_parts

ALL = sorted(METHODS)
# What they predict is no picture.
NO_PICTURES = {"aim", "beit", "densecl", "dino", "distill", "droppos", "ibot", "look", "maskfeat", "supervised"}


@pytest.mark.parametrize("name", ALL)
def test_the_generator_decides_everything(name):
    objective = make(name)
    torch.manual_seed(5)
    first, metrics = objective(batch(4), generator(3))
    torch.manual_seed(6)
    again, _ = objective(batch(4), generator(3))
    other, _ = objective(batch(4), generator(4))
    assert first.item() == again.item() != other.item()
    assert first.ndim == 0
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("name", ALL)
def test_every_trained_weight_gets_a_gradient_in_every_step_and_no_frozen_one(name):
    """A weight without one would stop distributed training."""
    objective = make(name)
    for seed in range(3):
        objective.zero_grad(set_to_none=True)
        objective(batch(4), generator(seed))[0].backward()
        missing = {part for part, value in objective.named_parameters() if value.requires_grad and value.grad is None}
        assert not missing
        assert all(value.grad is None for value in objective.parameters() if not value.requires_grad)


@pytest.mark.parametrize("name", ALL)
def test_the_encoder_learns(name):
    objective = make(name)
    objective(batch(8), generator())[0].backward()
    weights = [part for part in objective.encoder.vit.blocks.parameters() if part.requires_grad]
    assert sum(float(part.grad.abs().sum()) for part in weights) > 0
    assert objective.encoder.config()["name"] == "embodied.encoders.vit.ViTEncoder"


@pytest.mark.parametrize("name", ALL)
def test_three_steps_under_autocast(name):
    objective = make(name)
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=1e-3)
    for seed in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = objective(batch(4), generator(seed))
        exact, _ = copy.deepcopy(objective)(batch(4), generator(seed))
        assert loss.item() == pytest.approx(exact.item(), rel=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(part.isfinite().all() for part in objective.parameters())


def take_step(model, step):
    """The loss before it."""
    model.zero_grad(set_to_none=True)
    loss, _ = model(batch(4), generator(step))
    loss.backward()
    with torch.no_grad():
        for part in model.parameters():
            if part.grad is not None:
                part.sub_(0.01 * part.grad)
    if hasattr(model, "after_step"):
        model.after_step(step + 1, 3)
    return loss.detach()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own look
@pytest.mark.parametrize("name", ALL)
def test_three_steps_compiled_are_the_same(name):
    objective = make(name)
    compiled = copy.deepcopy(objective)
    compile_parts(compiled, "eager")
    for step in range(3):
        expected, loss = (take_step(model, step) for model in (objective, compiled))
        torch.testing.assert_close(loss, expected)
        for ours, theirs in zip(objective.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", ALL)
def test_state_dict_is_all_the_state(name):
    """Loaded into a fresh one it goes on alike: what is not in there would be lost by a kill."""
    objective = train(make(name), 3)
    fresh = make(name)
    fresh.load_state_dict({key: value.clone() for key, value in objective.state_dict().items()})
    assert fresh(batch(4, seed=2), generator(9))[0].item() == objective(batch(4, seed=2), generator(9))[0].item()


@pytest.mark.parametrize("name", [name for name in ALL if name not in NO_PICTURES])
def test_pictures_are_frames(name):
    objective = make(name).eval()
    pictures = objective.reconstruct(frames(3), generator())
    assert len(pictures) >= 2
    assert all(picture.shape == (3, 32, 32, 3) and picture.dtype == torch.uint8 for picture in pictures)
    assert torch.equal(pictures[-1], frames(3))
