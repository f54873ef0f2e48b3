"""Video objectives as world models: what they are asked, what is made of it, and how a run becomes one."""

import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from moving_squares import CODES, FRAMES, SIDE, make, pictures
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION
from embodied.core.seeding import torch_generator
from embodied.encoders.artifact import fingerprint, freeze, save_encoder
from embodied.encoders.pixels import PixelEncoder
from embodied.models.sequence.world_model import Context
from embodied.objectives.video.trained import load_trained
from embodied.policies.action_space import ActionSpace
from embodied.policies.visual_mpc import VisualMPC
from embodied.policies.visual_planning.goals import Goals
from embodied.policies.visual_planning.models import ModelSettings, make_world_model
from embodied.policies.visual_planning.video_model import VideoModel

GRID = 6  # of the squares' board, a pixel per place


class Board(nn.Module):
    """A tokenizer whose codes are the red of each pixel of 6 x 6."""

    quantizer = SimpleNamespace(lookup=lambda codes: torch.stack([codes % GRID, codes // GRID], dim=-1).float())

    def codes(self, frames):
        return frames[..., 0].flatten(1).long()

    def decode(self, codes):
        return codes.unflatten(1, (GRID, GRID))[..., None].expand(-1, -1, -1, 3).to(torch.uint8)


class Pushed(nn.Module):
    """An objective that knows: the lit pixel moves by the rounded action of the step; it keeps what it was asked."""

    def __init__(self, *, values=2, noisy=False):
        super().__init__()
        self.encoder = SimpleNamespace(frames=Board(), sequence=SimpleNamespace(sizes={ACTION: values}))
        self.noisy, self.batches, self.generators = noisy, [], []

    def predict(self, batch, *, context, generator):
        self.batches.append({**batch, "context": context})
        self.generators.append(generator)
        codes = batch["codes"].clone()
        for step in range(context, codes.shape[1]):
            place = codes[:, step - 1].argmax(dim=1)
            moves = batch[ACTION][:, step - 1].unflatten(1, (-1, 2)).sum(dim=1).round().long()
            if self.noisy:
                moves = moves + torch.randint(-1, 2, moves.shape, generator=generator)
            row = (place // GRID + moves[:, 0]).clamp(0, GRID - 1)
            column = (place % GRID + moves[:, 1]).clamp(0, GRID - 1)
            codes[:, step] = 0
            codes[torch.arange(len(codes)), step, row * GRID + column] = 1
        return codes


def board(row, column):
    frame = torch.zeros(GRID, GRID, 3, dtype=torch.uint8)
    frame[row, column] = 1
    return frame


def context_of(*frames, actions=None, keys=(0,), steps=(0,)):
    """One environment per key, all with these frames."""
    seen = torch.stack(frames)[None].expand(len(keys), -1, -1, -1, -1)
    done = torch.zeros(len(keys), len(frames) - 1, 2) if actions is None else actions
    return Context(frames=seen, actions=done, steps=torch.tensor(steps), keys=torch.tensor(keys))


def test_the_objective_is_asked_for_clips_with_the_actions_in_their_places():
    objective = Pushed(values=4)
    model = VideoModel(objective, context=2, stride=2, action_dim=2, frames="all", rows=5)
    assert model.history == 3
    frames = [board(0, 0), board(1, 1), board(2, 2)]
    actions = torch.arange(4.0).view(1, 2, 2) / 10
    plans = torch.rand(1, 7, 4, 2, generator=torch_generator(0)) * 2 - 1
    rollout = model.rollout(context_of(*frames, actions=actions), plans)
    assert [len(batch["codes"]) for batch in objective.batches] == [5, 2]
    batch = objective.batches[0]
    assert batch["context"] == 2
    assert batch["codes"].shape == (5, 4, GRID * GRID)
    assert torch.equal(batch["codes"][0, 0], model.codes(board(0, 0)[None])[0])  # every second frame until now
    assert torch.equal(batch["codes"][0, 1], model.codes(board(2, 2)[None])[0])
    assert not batch["codes"][:, 2:].any()
    assert torch.equal(batch[ACTION][0, 0], actions.flatten())
    assert torch.equal(batch[ACTION][3, 1], plans[0, 3, :2].flatten())
    assert torch.equal(batch[ACTION][3, 2], plans[0, 3, 2:].flatten())
    assert batch["action_is_pad"].tolist() == [[False, False, False, True]] * 5
    assert objective.generators == [None, None]
    assert rollout.codes.shape == (1, 7, 2, GRID * GRID)
    assert rollout.frames.shape == (1, 7, 2, GRID, GRID, 3)
    assert torch.equal(rollout.frames[0, 6, 1], model.tokenizer.decode(rollout.codes[0, 6, 1:])[0])
    last = VideoModel(objective, context=2, stride=2, action_dim=2, frames="last")
    assert torch.equal(last.rollout(context_of(*frames), plans).frames, rollout.frames[:, :, -1:])


def test_predictions_of_an_environment_do_not_depend_on_the_others():
    plans = torch.rand(2, 6, 3, 2, generator=torch_generator(0)) * 2 - 1
    for noisy in (False, True):
        model = VideoModel(Pushed(noisy=noisy), context=1, action_dim=2, rows=4, draws=noisy)
        both = model.rollout(context_of(board(3, 3), keys=(5, 9), steps=(2, 2)), plans).codes
        for row, key in enumerate((5, 9)):
            alone = model.rollout(context_of(board(3, 3), keys=(key,), steps=(2,)), plans[row : row + 1]).codes
            assert torch.equal(alone[0], both[row])
    later = model.rollout(context_of(board(3, 3), keys=(5, 9), steps=(3, 3)), plans).codes
    assert not torch.equal(later, both)


@pytest.mark.parametrize("cost", ["tokens", "pixels"])
def test_a_square_is_pushed_to_its_goal(cost):
    """It takes two steps at least, and after one none is nearer by pixels: the plan has to look ahead."""
    world = VideoModel(Pushed(), context=1, action_dim=2, frames="none" if cost == "tokens" else "all")
    policy = VisualMPC(
        freeze(PixelEncoder()),
        model="given",
        camera="front",
        image_size=GRID,
        action_space=ActionSpace(low=(-1.0, -1.0), high=(1.0, 1.0)).record(),
        episode_steps=10,
        horizon=3,
        cost=cost,
        over="all",
        planner_options={"samples": 600, "noise": "white", "std": 1.0},
        goals=1,
        world=world,
    ).eval()
    policy.set_goals(Goals(frames=board(4, 1)[None]))
    place, carry = (2, 3), policy.initial(1)
    for _ in range(6):
        carry, chunk = policy.act(carry, {"observation.images.front": board(*place)[None]})
        move = chunk[0, 0].round().long().tolist()
        place = tuple(min(max(at + by, 0), GRID - 1) for at, by in zip(place, move, strict=True))
    assert place == (4, 1)


def test_a_model_that_does_not_go_with_the_environment_is_refused():
    with pytest.raises(UsageError, match="trained without actions"):
        VideoModel(Pushed(values=0), context=1, action_dim=2)
    with pytest.raises(UsageError, match="trained on 2 values of actions per frame of a clip; here there are 1 steps"):
        VideoModel(Pushed(), context=1, action_dim=4)
    with pytest.raises(UsageError, match="context, stride and rows must be at least 1"):
        VideoModel(Pushed(), context=0, action_dim=2)
    model = VideoModel(Pushed(values=4), context=1, stride=2, action_dim=2)
    with pytest.raises(UsageError, match="must be a multiple of the model's stride of 2, got 3"):
        model.rollout(context_of(board(0, 0)), torch.zeros(1, 1, 3, 2))
    with pytest.raises(UsageError, match="expected 2 values per step, got 3"):
        model.rollout(context_of(board(0, 0)), torch.zeros(1, 1, 2, 3))
    with pytest.raises(UsageError, match="context: expected 1 frames, got 2"):
        model.rollout(context_of(board(0, 0), board(0, 0)), torch.zeros(1, 1, 2, 2))


def write_run(path, *, objective=None, target="embodied.objectives.video.maskvit.MaskViT"):
    """What `embodied pretrain objective=maskvit` leaves, as far as it is read here."""
    trained = objective or make()
    save_encoder(trained.encoder, path / "encoder", card="")
    config = {"objective": {"_target_": target, "context": 2}, "video": {"frames": FRAMES, "stride": 1}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def test_a_run_predicts_as_its_objective_did(tmp_path):
    objective = make().eval()
    with torch.no_grad():
        objective.network.head.weight.normal_(generator=torch_generator(0))
    run = write_run(tmp_path / "run", objective=objective)
    trained = load_trained(run)
    assert (trained.frames, trained.stride, trained.context) == (FRAMES, 1, 2)
    assert trained.fingerprint == fingerprint(objective.encoder)
    assert not any(parameter.requires_grad for parameter in trained.objective.parameters())
    settings = ModelSettings(name=str(run), fingerprint=trained.fingerprint, env={}, camera="front", action_dim=2)
    model = make_world_model(settings, frames="last")
    frames, actions = pictures(1, frames=2), torch.rand(1, 3, 4, 2) * 2 - 1
    context = Context(
        frames=frames, actions=torch.zeros(1, 1, 2), steps=torch.zeros(1).long(), keys=torch.zeros(1).long()
    )
    rollout = model.rollout(context, actions)
    assert rollout.codes.shape == (1, 3, 4, 16)
    assert rollout.codes.max() < CODES
    assert rollout.frames.shape == (1, 3, 1, SIDE, SIDE, 3)
    for candidate in range(3):
        clip = {
            "codes": torch.cat([objective.encoder.encode_clip(frames), torch.zeros(1, 4, 16).long()], dim=1),
            ACTION: torch.cat([torch.zeros(1, 1, 2), actions[0, candidate][None], torch.zeros(1, 1, 2)], dim=1),
            "action_is_pad": torch.tensor([[False] * 5 + [True]]),
        }
        alone = objective.predict(clip, context=2, generator=None)
        assert torch.equal(alone[0, 2:], rollout.codes[0, candidate])
    assert model.shows(frames[0]).shape == (2, SIDE, SIDE, 3)


def test_runs_that_are_none_or_have_changed_are_refused(tmp_path):
    run = write_run(tmp_path / "run")
    settings = {"fingerprint": "0" * 64, "env": {}, "camera": "front", "action_dim": 2}
    with pytest.raises(UserError, match="has changed since this policy was made"):
        make_world_model(ModelSettings(name=str(run), **settings), frames="last")
    with pytest.raises(UsageError, match=r"policy.context must be in \[1, 4\]"):
        make_world_model(ModelSettings(name=str(run), **{**settings, "fingerprint": ""}, context=5), frames="last")
    with pytest.raises(UserError, match="is not a run folder"):
        load_trained(tmp_path)
    foreign = write_run(tmp_path / "foreign", target="os.path.join")
    with pytest.raises(UserError, match="refusing to import"):
        load_trained(foreign)
    wrong = write_run(tmp_path / "wrong", target="embodied.objectives.sensorimotor.rpt.RPT")
    with pytest.raises(UserError, match="cannot be built with the settings of its run"):
        load_trained(wrong)
    (run / "config.yaml").write_text(yaml.safe_dump({"objective": {"_target_": "x"}}))
    with pytest.raises(UserError, match="is not a run of a video objective"):
        load_trained(run)
    young = write_run(tmp_path / "young")
    shutil.rmtree(young / "encoder")
    with pytest.raises(UserError, match="holds no encoder yet"):
        load_trained(young)
