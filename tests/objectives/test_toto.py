"""Toto: its loss, what becomes images, actions, what it learns, predictions, processes, bad input."""

import inspect
import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import hydra
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))  # the processes are started by path

from moving_squares import CODES, FRAMES, VIEW, clips, generator, tokenizer
from tiny_toto import make, make_encoder, sharpened

from embodied.cli.pretrain_video import build_video_objective
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.models.sequence.toto_tokens import END, FIRST_CODE
from embodied.objectives.video.toto import Toto
from embodied.training.optimization import compile_parts

PLACES = 16
STEPS = 800


def no_images(rows):
    return torch.zeros(rows, dtype=torch.bool)


@torch.no_grad()
def test_loss_against_a_loop_over_the_sequence():
    objective = make().eval()
    codes = clips(2, frames=3)["codes"]
    loss, metrics = objective.sequence_loss(codes, None, None, no_images(2))
    network, errors, right, same = objective.network, [], [], []
    for row in range(2):
        ids = [1, *(codes[row].flatten() + FIRST_CODE).tolist(), END]
        for place in range(1, len(ids)):
            read = network.tokens.table.weight[ids[:place]][None]
            logits = F.linear(network.trunk(read)[0, -1], network.tokens.table.weight)
            errors.append(float(-logits.log_softmax(dim=0)[ids[place]]))
            if PLACES < place < len(ids) - 1:
                right.append(int(logits.argmax()) == ids[place])
                same.append(ids[place - PLACES] == ids[place])
    assert len(errors) == 2 * (3 * PLACES + 1)
    assert float(loss) == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    of_codes = [error for number, error in enumerate(errors, 1) if number % (3 * PLACES + 1)]
    assert float(metrics["code_nll"]) == pytest.approx(sum(of_codes) / len(of_codes), rel=1e-4)
    later = [error for number, error in enumerate(errors) if PLACES <= number % (3 * PLACES + 1) < 3 * PLACES]
    assert float(metrics["later_nll"]) == pytest.approx(sum(later) / len(later), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert float(metrics["copied"]) == pytest.approx(sum(same) / len(same))


def test_images_are_frames_of_the_whole_batch_and_begin_otherwise():
    objective = make(objective={"image_share": 0.5})
    codes = torch.arange(4 * FRAMES)[:, None].expand(-1, PLACES).reshape(4, FRAMES, PLACES)
    images = torch.tensor([True, False, True, True])
    mixed = objective.shuffled(codes, images, generator())
    assert torch.equal(mixed[1], codes[1])
    frames = mixed[images][:, :, 0].flatten().tolist()
    assert len(set(frames)) == 3 * FRAMES and frames != sorted(frames)
    assert torch.equal(mixed, mixed[:, :, :1].expand_as(mixed))  # frames stay whole
    seen = []
    objective.network.tokens.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["images"]), with_kwargs=True
    )
    for seed in range(100):
        objective(clips(8), generator(seed))
    share = torch.stack(seen).float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.06)
    single = make(steps=1)
    single.network.tokens.register_forward_pre_hook(lambda _, __, given: seen.append(given["images"]), with_kwargs=True)
    _, metrics = single(clips(3, frames=1), generator())
    assert bool(seen[-1].all()) and set(metrics) == {"code_nll"}


def test_every_trained_weight_has_a_gradient_and_the_tokenizer_none():
    for options, settings in product(
        ({}, {"actions": True}, {"tied": False}, {"steps": 1}), ({}, {"image_share": 1.0, "action_dropout": 1.0})
    ):
        objective = make(objective=settings, **options)
        objective(clips(3, frames=objective.network.context), generator())[0].backward()
        for name, part in objective.named_parameters():
            assert (part.grad is not None) == (not name.startswith("encoder.frames.")), name


def test_the_generator_decides_everything():
    objective = make(objective={"image_share": 0.5, "action_dropout": 0.5}, actions=True)
    first, metrics = objective(clips(8), generator(3))
    again, _ = objective(clips(8), generator(3))
    other, _ = objective(clips(8), generator(4))
    assert first.item() == again.item() != other.item()
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())


def test_actions_are_not_read_but_where_they_are_asked_for():
    batch = clips(4)
    moved = {**batch, ACTION: batch[ACTION] + 1}
    plain, reading = make().eval(), make(actions=True, objective={"action_dropout": 0.0}).eval()
    with torch.no_grad():
        assert torch.equal(plain(batch, generator())[0], plain(moved, generator())[0])
        assert not torch.equal(reading(batch, generator())[0], reading(moved, generator())[0])
        batch["action_is_pad"][:] = True
        unknown = {**batch, ACTION: torch.full_like(batch[ACTION], float("nan"))}
        assert torch.equal(reading(batch, generator())[0], reading(unknown, generator())[0])
        dropped = make(actions=True, objective={"action_dropout": 1.0}).eval()
        assert torch.equal(dropped(moved, generator())[0], reading(batch, generator())[0])


def sweeps(rows, *, seed=0):
    """A camera that looks at random tape and goes one place on or back, as the action says."""
    draws = generator(seed)
    moves = 2 * torch.randint(2, (rows, FRAMES), generator=draws) - 1
    place = FRAMES + torch.cat([torch.zeros_like(moves[:, :1]), moves[:, :-1].cumsum(dim=1)], dim=1)
    tape = torch.randint(CODES, (rows, 2 * FRAMES + PLACES), generator=draws)
    codes = tape.gather(1, (place[..., None] + torch.arange(PLACES)).flatten(1)).unflatten(1, (FRAMES, PLACES))
    action = torch.stack([moves, torch.zeros_like(moves)], dim=-1).float()
    return {"codes": codes, ACTION: action, "action_is_pad": torch.zeros(rows, FRAMES, dtype=torch.bool)}


def test_it_learns_where_actions_lead_and_beats_what_is_trivial():
    """Of fresh clips; one code of a frame comes into sight and cannot be told."""
    objective = make(actions=True, objective={"action_dropout": 0.0})
    optimizer = torch.optim.AdamW([part for part in objective.parameters() if part.requires_grad], lr=3e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20, 2 * (1 - step / STEPS))
        loss, _ = objective(sweeps(16, seed=step), generator(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
    objective.eval()
    test = sweeps(64, seed=10_000)
    with torch.no_grad():
        _, metrics = objective(test, generator())
    shares = torch.bincount(test["codes"].flatten(), minlength=CODES) / test["codes"].numel()
    unigram = float(-(shares * shares.log()).sum())
    assert float(metrics["copied"]) < 0.25
    assert float(metrics["accuracy"]) > 0.8
    assert float(metrics["later_nll"]) < 0.5 * unigram
    found = objective.predict(test, context=2)
    right = float((found[:, 2:] == test["codes"][:, 2:]).float().mean())
    copied = float((test["codes"][:, 1:2] == test["codes"][:, 2:]).float().mean())
    assert right > 0.7 > copied + 0.3


@torch.no_grad()
def test_compiled_and_loaded_it_is_the_same_and_nearly_so_in_bf16():
    objective = make(actions=True)
    batch = clips(4)
    expected = objective(batch, generator())[0]
    again = make(actions=True)
    for part in again.parameters():
        part.zero_()
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again(batch, generator())[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(objective(batch, generator())[0]) == pytest.approx(float(expected), rel=0.02)
    compile_parts(again, "eager")
    torch.testing.assert_close(again(batch, generator())[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_predictions_keep_the_context_and_are_drawn_by_the_generator():
    objective = sharpened(make(actions=True, objective={"context": 1}).eval())
    batch = clips(2)
    beyond = {**batch, "codes": batch["codes"].clone()}
    beyond["codes"][:, 1:] = 10**6  # may hold anything
    first = objective.predict(beyond, generator=generator(1))
    assert torch.equal(first[:, :1], batch["codes"][:, :1]) and first.shape == batch["codes"].shape
    assert torch.equal(first, objective.predict(batch, generator=generator(1)))
    assert not torch.equal(first, objective.predict(batch, generator=generator(2)))
    assert torch.equal(objective.predict(batch), objective.predict(batch))  # nothing is drawn
    other = objective.predict({**batch, ACTION: batch[ACTION] * 50}, generator=generator(1))
    assert not torch.equal(first, other)
    most = objective.predict(batch, context=FRAMES - 1)
    assert torch.equal(most[:, :-1], batch["codes"][:, :-1])


@torch.no_grad()
def test_longer_clips_are_continued_piece_by_piece():
    objective = sharpened(make(steps=4).eval())
    batch = clips(2, frames=9)
    found = objective.predict(batch, context=2)  # frames 2, 3; then 4, 5 from 2, 3; and so on
    assert found.shape == (2, 9, PLACES)
    for start in (0, 2, 4, 6):
        part = {"codes": found[:, start : start + 4]}
        assert torch.equal(objective.predict(part, context=2), part["codes"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_share": 1.5}, r"image_share and action_dropout must be in \[0, 1\]"),
        ({"context": 0}, "context must be at least 1"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        Toto(make_encoder(), **settings)


def test_data_that_makes_no_sense():
    objective = make()
    batch = clips(2)
    with pytest.raises(UsageError, match=r'batch\["codes"\]: expected \[B, T, 16\], got \[2, 5, 15\]'):
        objective({**batch, "codes": batch["codes"][..., 1:]}, generator())
    with pytest.raises(UsageError, match=r"expected 0 to 7, got .* they are of another tokenizer"):
        objective({**batch, "codes": batch["codes"] + 4}, generator())
    with pytest.raises(UsageError, match=r"encoder.actions=true, but the data has no actions"):
        make(actions=True, action_dim=0)
    with pytest.raises(UsageError, match="action: expected 2 values per step, got 3"):
        make(actions=True)({**batch, ACTION: torch.zeros(2, FRAMES, 3)}, generator())
    for context in (0, FRAMES):
        with pytest.raises(UsageError, match=r"context must be in \[1, 4\] frames"):
            objective.predict({"codes": batch["codes"].repeat(1, 2, 1)}, context=context)
    with pytest.raises(UsageError, match="a grid of"):
        Toto.make_encoder(
            tokenizer=tokenizer(), network={"size": "tiny", "grid": [2, 2]}, sizes={ACTION: 0, "steps": 3}
        )


def test_the_yaml_says_what_the_signature_says():
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        config = hydra.compose("pretrain", ["objective=toto", "encoder.read_depth=3", "+encoder.rotary_base=50000"])
    objective = build_video_objective(config, tokenizer(), {ACTION: 2, STATE: 3}, camera="front")
    assert isinstance(objective, Toto)
    given = {str(key): value for key, value in config.objective.items() if key != "_target_"}
    defaults = inspect.signature(Toto).parameters
    assert given == {key: defaults[key].default for key in given}
    network = objective.network
    assert (network.depth, network.width, network.read_depth, network.context) == (4, 128, 3, 16)
    assert network.sizes == {VIEW: PLACES, ACTION: 0} and network.trunk.rotary_base == 50_000
    with hydra.initialize_config_module(version_base="1.3", config_module="embodied.conf"):
        by_numbers = ["encoder.size=null", "encoder.width=32", "encoder.depth=1", "encoder.heads=2"]
        config = hydra.compose("pretrain", ["objective=toto", "encoder.actions=true", *by_numbers, "video.frames=1"])
    objective = build_video_objective(config, tokenizer(), {ACTION: 2, STATE: 3})
    assert (objective.network.width, objective.network.sizes[ACTION], objective.context) == (32, 2, 0)


def test_two_processes_have_the_gradients_of_one():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen([sys.executable, __file__], env={**os.environ, **address, "RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    halves = [clips(4, seed=seed) for seed in (0, 1)]
    shared, alone = (make(actions=True, objective={"image_share": 0.3}) for _ in range(2))
    wrapped = torch.nn.parallel.DistributedDataParallel(shared)  # refuses weights without a gradient
    for _ in range(2):
        wrapped.zero_grad()
        wrapped(halves[rank], generator(rank))[0].backward()
    for number, half in enumerate(halves):
        (alone(half, generator(number))[0] / 2).backward()
    for ours, theirs in zip(shared.parameters(), alone.parameters(), strict=True):
        if theirs.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    torch.distributed.destroy_process_group()
