"""MaskViT: masks, what reaches the loss, predictions, what it learns."""

import inspect
from pathlib import Path

import pytest
import torch
from moving_squares import CODES, FRAMES, GRID, VIEW, clips, generator, make, make_encoder
from omegaconf import OmegaConf

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION
from embodied.models.sequence.mask_decoding import Decoding
from embodied.models.sequence.maskvit import MaskViTNetwork
from embodied.objectives.video.maskvit import MaskViT
from embodied.training.optimization import compile_parts

PLACES = GRID * GRID
CONF = Path(__file__).parents[2] / "embodied" / "conf" / "objective" / "maskvit.yaml"


def test_masks_hide_exactly_the_share_that_is_drawn_and_never_the_context():
    objective = make(objective={"context": 2})
    masks = objective.draw_masks(4000, FRAMES, generator())
    assert masks.shape == (4000, FRAMES, PLACES) and not masks[:, :2].any()
    count = (FRAMES - 2) * PLACES
    counts = masks.flatten(1).sum(dim=1)
    assert int(counts.min()) >= count // 2 and int(counts.max()) <= count
    share = counts / count
    assert abs(float(share.mean()) - 0.75) < 0.02  # half a code more, since it is rounded up
    assert abs(float(share.std()) - 0.5 / 12**0.5) < 0.01
    assert abs(float(masks[:, 2:].float().mean(dim=0).std())) < 0.02  # every place alike
    for ratio, expected in ((0.5, 24), (0.51, 25), (1.0, 48)):
        fixed = make(objective={"mask_ratio": (ratio, ratio)})
        assert fixed.draw_masks(5, FRAMES, generator()).flatten(1).sum(dim=1).tolist() == [expected] * 5


@torch.no_grad()
def test_loss_against_a_loop_over_codes():
    objective, batch = make().eval(), clips(4)
    hidden = objective.draw_masks(4, FRAMES, generator())
    actions, unknown = batch[ACTION], torch.zeros(4, FRAMES, dtype=torch.bool)
    loss, metrics = objective.masked_loss(batch["codes"], batch["codes"], hidden, actions, unknown)
    network = objective.encoder.sequence
    logits = network.logits(network({VIEW: batch["codes"], ACTION: actions}, {VIEW: hidden, ACTION: unknown})[VIEW])
    errors, right, copied = [], [], []
    for row, frame, place in hidden.nonzero().tolist():
        scores, code = logits[row, frame, place], batch["codes"][row, frame, place]
        errors.append(float(scores.logsumexp(dim=0) - scores[code]))
        right.append(int(scores.argmax()) == int(code))
        copied.append(int(batch["codes"][row, 1, place]) == int(code))
    assert float(loss) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert float(metrics["copied"]) == pytest.approx(sum(copied) / len(copied))
    assert float(metrics["masked"]) == pytest.approx(len(errors) / (4 * 3 * PLACES))


def test_the_generator_decides_everything():
    objective, batch = make(objective={"corruption": 0.2, "action_dropout": 0.5}), clips(6)
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(losses))
        losses.append(float(objective(batch, generator(seed))[0].detach()))
    assert losses[0] == losses[1] != losses[2]


@torch.no_grad()
def test_what_is_hidden_may_hold_anything():
    objective, batch = make().eval(), clips(4)
    hidden = objective.draw_masks(4, FRAMES, generator())
    unknown = torch.zeros(4, FRAMES, dtype=torch.bool)
    unknown[1:3] = True
    expected = objective.masked_loss(batch["codes"], batch["codes"], hidden, batch[ACTION], unknown)[0]
    shown = torch.where(hidden, -7, batch["codes"])
    actions = batch[ACTION].masked_fill(unknown[..., None], float("nan"))
    assert torch.equal(objective.masked_loss(shown, batch["codes"], hidden, actions, unknown)[0], expected)


def test_every_trained_weight_has_a_gradient_also_in_a_batch_without_actions():
    for options, missing in (({}, False), ({}, True), ({"action_dim": 0}, False)):
        objective, batch = make(**options), clips(3)
        batch["action_is_pad"][:] = missing
        objective(batch, generator())[0].backward()
        for name, part in objective.named_parameters():
            assert (part.grad is not None) == part.requires_grad, name
            assert part.requires_grad != name.startswith("encoder.frames."), name


def test_corruption_touches_what_is_shown_after_the_context_alone():
    objective, batch = make(objective={"corruption": 0.5}), clips(2000)
    hidden = objective.draw_masks(2000, FRAMES, generator())
    shown = objective.corrupt(batch["codes"], hidden, generator(1))
    changed = shown != batch["codes"]
    assert not changed[:, :2].any() and not changed[hidden].any()
    visible = ~hidden[:, 2:]
    # a share of U[0, 0.5) is replaced, and one in V of the new codes is the old one
    expected = 0.25 * (1 - 1 / CODES)
    assert abs(float(changed[:, 2:][visible].float().mean()) - expected) < 0.01
    assert make().corrupt(batch["codes"], hidden, generator()) is batch["codes"]


def test_dropped_actions_are_those_of_whole_clips():
    objective, batch = make(objective={"action_dropout": 1.0}), clips(4)
    loss = objective(batch, generator())[0]
    batch[ACTION] = torch.full_like(batch[ACTION], float("nan"))
    assert torch.equal(objective(batch, generator())[0], loss)
    del batch[ACTION], batch["action_is_pad"]
    assert torch.equal(objective(batch, generator())[0], loss)


@torch.no_grad()
@pytest.mark.parametrize("by_frame", [False, True])
def test_predictions_do_not_look_at_what_they_predict_nor_at_later_actions(by_frame):
    objective = make(objective={"decoding": {"iterations": 3, "frame_by_frame": by_frame}}).eval()
    batch = clips(3)
    found = objective.predict(batch, context=2, generator=generator())
    assert torch.equal(found[:, :2], batch["codes"][:, :2]) and found.dtype == torch.int64
    other = {**batch, "codes": batch["codes"].clone(), ACTION: batch[ACTION].clone()}
    other["codes"][:, 2:] = -1
    other[ACTION][:, -1] = float("nan")  # leads out of the clip
    assert torch.equal(objective.predict(other, context=2, generator=generator()), found)
    shorter = {name: value[:, :4] for name, value in other.items()}
    if by_frame:  # a frame is found before anything is known of those behind it, if their actions are not
        other["action_is_pad"] = (torch.arange(FRAMES) >= 3).expand(3, -1)
        whole = objective.predict(other, context=2)
        assert torch.equal(objective.predict(shorter, context=2), whole[:, :4])


@torch.no_grad()
def test_one_iteration_is_the_most_probable_code_of_one_pass():
    objective, batch = make(objective={"decoding": {"iterations": 1}}).eval(), clips(3)
    found = objective.predict_counted(batch, generator=generator())
    hidden = torch.zeros(3, FRAMES, PLACES, dtype=torch.bool)
    hidden[:, 2:] = True
    network = objective.encoder.sequence
    values, unknown = {VIEW: batch["codes"], ACTION: batch[ACTION]}, batch["action_is_pad"]
    best = network.logits(network(values, {VIEW: hidden, ACTION: unknown})[VIEW]).argmax(dim=-1)
    assert torch.equal(found.codes[:, 2:], best[:, 2:]) and found.passes == 1


@torch.no_grad()
def test_clips_longer_than_the_network_are_continued_piece_by_piece():
    objective = make(objective={"decoding": {"iterations": 2}}).eval()
    batch = clips(3, frames=9)
    found = objective.predict_counted(batch)
    assert found.codes.shape == (3, 9, PLACES) and found.passes == 2 * 3  # 3 + 3 + 1 frames after the context
    part = {name: value[:, 3:8].clone() for name, value in batch.items()}
    part["codes"][:] = found.codes[:, 3:8]
    assert torch.equal(objective.predict(part), found.codes[:, 3:8])
    one_by_one = objective.predict_counted(clips(1), one_by_one=True)
    assert one_by_one.passes == 3 * PLACES
    for context in (0, FRAMES, 10):
        with pytest.raises(UsageError, match=r"context must be within 1 to 4 frames, got"):
            objective.predict(batch, context=context)


def trained(steps, *, frames):
    objective = make(width=48, heads=4, temporal_window=4, steps=frames, objective={"action_dropout": 0.0})
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss, _ = objective(clips(32, frames=frames, seed=step), generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return objective.eval()


def test_it_learns_where_actions_lead_and_beats_what_is_trivial():
    objective = trained(350, frames=3)
    batch = clips(128, frames=3, seed=10_000)
    truth = batch["codes"][:, 2]
    found = objective.predict(batch, generator=generator())[:, 2]
    right = float((found == truth).float().mean())
    before = batch["codes"][:, 1]
    copied = float((before == truth).float().mean())
    ground = batch["codes"][:, :2].flatten(1).mode(dim=1).values  # the commonest code of a clip's own context
    unigram = float((truth == ground[:, None]).float().mean())
    assert right > 0.97 > max(copied, unigram) + 0.05, (right, copied, unigram)
    stopped = {**batch, ACTION: batch[ACTION].clone()}  # the same context, another action: it stays
    stopped[ACTION][:, 1] = 0
    still = objective.predict(stopped, generator=generator())[:, 2]
    assert float((still == before).float().mean()) > 0.97


@torch.no_grad()
def test_the_same_loss_from_its_tensors_compiled_and_nearly_so_in_bf16():
    objective, batch = make(), clips(4)
    expected = objective(batch, generator())[0]
    again = make()
    for part in again.parameters():
        part.zero_()
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again(batch, generator())[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(objective(batch, generator())[0]) == pytest.approx(float(expected), rel=0.05)
    compile_parts(again, "eager")
    torch.testing.assert_close(again(batch, generator())[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 5}, "context must leave one of the 5 frames of a clip to predict, got 5"),
        ({"context": 0}, "context must leave"),
        ({"mask_ratio": (0.9, 0.5)}, r"mask_ratio must be two numbers within \(0, 1\]"),
        ({"mask_ratio": (0.5, 1.1)}, "mask_ratio"),
        ({"corruption": 1.0}, r"corruption must be in \[0, 1\)"),
        ({"action_dropout": -0.1}, r"action_dropout in \[0, 1\]"),
        ({"decoding": {"iterations": 0}}, "at least one iteration"),
        ({"decoding": {"passes": 3}}, "decoding: .*unexpected keyword argument 'passes'"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        make(objective=settings)


def test_the_yaml_says_what_the_signatures_say():
    config = OmegaConf.load(CONF)
    given = OmegaConf.to_container(config.objective)
    assert given.pop("_target_") == "embodied.objectives.video.maskvit.MaskViT"
    assert Decoding(**given.pop("decoding")) == Decoding()
    parameters = inspect.signature(MaskViT).parameters
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in (
        (key, parameters[key].default) for key in given)} == given  # fmt: skip
    network = inspect.signature(MaskViTNetwork).parameters
    assert {key: network[key].default for key in ("width", "depth", "heads")} == {
        key: config.encoder[key] for key in ("width", "depth", "heads")
    }
    made = MaskViT(make_encoder(), **{**given, "decoding": None})
    assert made.decoding == Decoding()
