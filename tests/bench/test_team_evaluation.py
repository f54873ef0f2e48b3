"""Cells of one encoder evaluated side by side: one call of the encoder for all, and what each gives alone."""

import json

import pytest
import torch
from tiny_suite import tiny
from torch import nn

from embodied.bench import team_evaluation
from embodied.bench.bench_runs import items_of, open_bench, team_of
from embodied.bench.cell_runner import CellRunner
from embodied.bench.cells import cell_of
from embodied.bench.recipes import Place
from embodied.bench.result_files import load_results
from embodied.bench.suite import MANDATORY, read_suite
from embodied.bench.team_evaluation import TOGETHER, EncodingTogether
from embodied.cli.bench_plan import make_plan
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.training.episode_lanes import Turn


class Encoder(nn.Module):
    """Doubles what it sees, and counts its calls and their sizes."""

    modality = "image"

    def __init__(self):
        super().__init__()
        self.sizes = []

    def preprocess(self, inputs):
        return inputs.float()

    def forward(self, inputs):
        self.sizes.append(len(inputs))
        return inputs[:, None] * 2, {"pooled": inputs * 2}


class ChunkPolicy(nn.Module):
    """Looks through some cameras in every third step, as one that executes chunks does; acts by what it saw then."""

    def __init__(self, encoder, factor, cameras=("a",)):
        super().__init__()
        self.encoder, self.factor, self.cameras = encoder, factor, cameras

    def act(self, carry, observation):
        due = carry["step"] % 3 == 0
        plan = carry["plan"].clone()
        if due.any():
            seen = [self.encoder(self.encoder.preprocess(observation[name][due]))[1]["pooled"] for name in self.cameras]
            plan[due] = self.factor * torch.stack(seen).sum(dim=0)
        return {"step": carry["step"] + 1, "plan": plan}, plan[:, None]


def carry(*steps):
    return {"step": torch.tensor(steps), "plan": torch.full((len(steps), 1), -1.0)}


def turns(policies, steps):
    random = torch.Generator().manual_seed(0)
    return [
        Turn(policy, carry(*rows), {name: torch.randint(9, (len(rows), 1), generator=random) for name in "ab"})
        for policy, rows in zip(policies, steps, strict=True)
    ]


@pytest.mark.parametrize("steps", [((0, 0), (0, 0, 0)), ((0, 1), (2, 3, 4)), ((1, 2), (1, 3, 5)), ((1, 2), (1, 2, 4))])
def test_everyone_acts_as_alone_with_one_call_of_the_encoder(steps):
    encoder = Encoder()
    policies = [ChunkPolicy(encoder, 1.0), ChunkPolicy(encoder, 10.0)]
    expected = [turn.policy.act(turn.carry, turn.observation) for turn in turns(policies, steps)]
    alone = list(encoder.sizes)
    encoder.sizes.clear()
    together = EncodingTogether(policies)
    found = together(turns(policies, steps))
    for (ours, action), (theirs, expected_action) in zip(found, expected, strict=True):
        assert torch.equal(action, expected_action)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert encoder.sizes == ([sum(alone)] if alone else [])


def test_cameras_are_answered_one_after_the_other():
    encoder = Encoder()
    policies = [ChunkPolicy(encoder, 1.0, cameras=("a", "b")), ChunkPolicy(encoder, 3.0, cameras=("b",))]
    expected = [turn.policy.act(turn.carry, turn.observation)[1] for turn in turns(policies, ((0, 0), (3,)))]
    encoder.sizes.clear()
    together = EncodingTogether(policies)
    for _ in range(2):  # nothing is left from the step before
        found = [action for _, action in together(turns(policies, ((0, 0), (3,))))]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert encoder.sizes == [3, 2] * 2
    assert together.calls == 4


def test_what_breaks_in_a_policy_is_not_swallowed():
    encoder = Encoder()
    policies = [ChunkPolicy(encoder, 1.0), ChunkPolicy(encoder, 1.0, cameras=("absent",))]
    with pytest.raises(KeyError, match="absent"):
        EncodingTogether(policies)(turns(policies, ((0,), (0,))))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A plan with a controller that executes chunks and a shifted scene, its cells by what they are, and a cache."""
    folder = tmp_path_factory.mktemp("teams")
    torch.manual_seed(0)
    save_encoder(ViTEncoder(image_size=32, patch_size=8, width=12, depth=1, heads=3), folder / "vit", card="tiny\n")
    controllers = {
        "mlp": {"policy": "bc", "policy.head": "mlp"},
        "act": {"policy": "bc", "policy.head": "act", "policy.chunk": 4, "policy.execute": 2},
    }
    settings = {**tiny()["settings"], "episodes": 5, "train.checkpoints": 1, "evaluate.selection_episodes": 0}
    content = tiny(
        controllers=controllers,
        baselines=dict.fromkeys(MANDATORY, "all"),
        variants=["static", "shift:light:3"],
        settings=settings,
    )
    plan = make_plan(read_suite(content, name="teams"))
    items = items_of(plan, plan.cells([str(folder / "vit")], [0, 1]))
    open_bench(folder / "first", plan)
    CellRunner(folder / "first", Place(cache=folder / "cache"), filmed=[])(items[0])  # the demonstrations
    return folder, plan, items


def chosen(items, encoder, *, variant="static", controllers=("mlp", "act"), seeds=(0, 1)):
    cells = {item.key: cell_of(item.key) for item in items if item.kind == "cell"}
    return [
        item
        for item in items
        if (cell := cells.get(item.key)) is not None
        and cell.encoder.endswith(encoder)
        and (cell.variant, cell.controller in controllers, cell.seed in seeds) == (variant, True, True)
    ]


def ran(benchmark, tmp_path, items, batch_cells):
    """What a worker reports of the items, and their results."""
    folder, plan, _ = benchmark
    root = tmp_path / str(batch_cells)
    open_bench(root, plan)
    runner = CellRunner(root, Place(cache=folder / "cache"), filmed=[1], batch_cells=batch_cells)
    try:
        done = list(runner.together(items))
    finally:
        runner.close()
    return root, done, {result.cell.key: result for result in load_results(root)}


@pytest.mark.sim
@pytest.mark.slow
def test_cells_that_are_evaluated_together_give_what_they_give_alone(benchmark, tmp_path):
    """To the bit where the encoder does not round by the size of a batch, as that of the state."""
    items = benchmark[2]
    wanted = [
        *chosen(items, "state"),
        *chosen(items, "vit", controllers=("mlp",)),
        *chosen(items, "vit", controllers=("act",), seeds=(0,)),
        *chosen(items, "scratch", controllers=("mlp",), seeds=(0,)),
        *chosen(items, "vit", controllers=("mlp",), variant="shift:light:3"),
    ]
    _, done, alone = ran(benchmark, tmp_path, wanted, 1)
    assert [(each.key, each.error) for each in done] == [(item.key, None) for item in wanted]
    # Shifted cells come in a team of their own, after those whose policies they try.
    root, first, _ = ran(benchmark, tmp_path, wanted[:8], 8)
    root, second, team = ran(benchmark, tmp_path, wanted[8:], 8)
    assert [(each.key, each.error) for each in (*first, *second)] == [(item.key, None) for item in wanted]
    assert team.keys() == alone.keys()
    for key, result in team.items():
        assert result.episodes == alone[key].episodes, key
        assert result.seconds.keys() == alone[key].seconds.keys()
        told = root / result.run / TOGETHER
        assert told.is_file() == ("scratch" not in key), key
        if told.is_file():
            shared = json.loads(told.read_text())
            assert result.seconds["evaluate"] == pytest.approx(shared["seconds"] * shared["share"], rel=0.01, abs=0.01)
            assert shared["slots"] == 4 * shared["cells"]
    told = [root / each.run / TOGETHER for each in team.values()]
    sizes = sorted(json.loads(path.read_text())["cells"] for path in told if path.is_file())
    # Of the state those that are filmed and those that are not; three of the encoder, two of it under the shift.
    assert sizes == [2, 2, 2, 2, 2, 2, 3, 3, 3]
    assert all(each.seconds > 0 for each in (*first, *second))


@pytest.mark.sim
@pytest.mark.slow
def test_what_breaks_together_is_tried_alone(benchmark, tmp_path, monkeypatch, caplog):
    """And a cell that breaks before takes none of the others with it."""
    items = chosen(benchmark[2], "state", seeds=(0,))

    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(team_evaluation, "evaluate_lanes", broken)
    absent = items[0].key.replace("/state/", "/absent/folder/")
    unknown = type(items[0])(key=absent, team=items[0].team)
    _, done, results = ran(benchmark, tmp_path, [unknown, *items], 3)
    assert [each.key for each in done] == [absent, *(item.key for item in items)]
    assert "absent" in str(done[0].error)
    assert [each.error for each in done[1:]] == [None, None]
    assert all(result.status == "done" for result in results.values())
    assert "evaluated one by one" in caplog.text and "out of memory" in caplog.text


def test_teams_share_task_look_and_weights(benchmark):
    names = {item.key: item.team for item in benchmark[2] if item.kind == "cell"}
    assert all(name == team_of(cell_of(key)) for key, name in names.items())
    assert {name for key, name in names.items() if "scratch" in key} == {""}
    assert len({name for key, name in names.items() if "/random/" in key}) == 4  # look and seed
    assert len({name for key, name in names.items() if "/state/" in key}) == 2  # look
