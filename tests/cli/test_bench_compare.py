"""`embodied bench compare` and `leaderboard`: on folders of results, and every mistake is one message."""

import csv
import json
from dataclasses import replace

import pytest
from bench_results import benchmark, result
from PIL import Image

from embodied.bench.cells import RESULT_FORMAT
from embodied.bench.plan import Plan, save_plan
from embodied.bench.result_files import RESULTS, result_path, save_result
from embodied.cli.main import main


def plan(**seeds):
    return Plan(suite={"name": "quick"}, tasks=[], controllers=[], baselines={}, recipes={}, seeds=seeds, source="")


def fill(folder, results, *, of=None):
    """A benchmark's folder, its plan included."""
    of = of or plan(report=2_000_000)
    (folder / RESULTS).mkdir(parents=True)
    save_plan(of, folder)
    for each in results:
        save_result(folder, replace(each, protocol=of.protocol_hash))
    return folder


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """Only to be read: two folders with the baselines and an encoder of its own each."""
    root = tmp_path_factory.mktemp("benches")
    results = benchmark(seeds=3)
    fill(root / "one" / "quick", [each for each in results if each.cell.encoder != "hf:acme/vit-small"])
    fill(root / "two" / "quick", [each for each in results if each.cell.encoder != "default"])
    return root


def run(capsys, *arguments):
    code = main(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out.replace("\n", " "), captured.err.replace("\n", " ")


def rows(folder):
    with open(folder / "compare.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def test_two_encoders_of_one_benchmark(benches, tmp_path, capsys):
    code, out, _ = run(capsys, "compare", "default", "random", f"folder={benches / 'one/quick'}", f"to={tmp_path}")
    assert code == 0
    assert "default / mlp is better than random / mlp" in " ".join(out.split())
    found = rows(tmp_path)
    assert {(row["first"], row["second"]) for row in found} == {
        ("default / mlp", "random / mlp"),
        ("default / conv", "random / conv"),
    }
    overall = [row for row in found if not row["task"]]
    assert len(overall) == 4  # two controllers, two scenes
    assert all(row["pairs"] == "12" and float(row["low"]) <= float(row["difference"]) for row in overall)
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[0] > 500


def test_two_folders_compare_what_is_new_in_each(benches, tmp_path, capsys):
    code, _, _ = run(capsys, "compare", benches / "one/quick", benches / "two/quick", f"to={tmp_path}")
    assert code == 0
    assert {(row["first"], row["second"]) for row in rows(tmp_path)} == {
        (f"one/quick: default / {controller}", f"two/quick: hf:acme/vit-small / {controller}")
        for controller in ("mlp", "conv")
    }


def test_two_folders_with_the_same_encoders_compare_each_with_itself(tmp_path, capsys):
    before = fill(tmp_path / "before", [result(seed=seed, rate=0.5) for seed in range(3)])
    weights = {"encoder_fingerprint": "trained-longer"}
    after = fill(tmp_path / "after", [result(seed=seed, rate=0.8, **weights) for seed in range(3)])
    code, out, _ = run(capsys, "compare", after, before)
    assert code == 0
    assert "+30.0" in out
    assert "cannot be told apart" in " ".join(out.split())  # three pairs cannot show anything, and it says so
    assert "cannot give p below 0.25" in " ".join(out.split())
    assert rows(after)[0]["first"] == "after: default / mlp"


def test_an_encoder_of_each_folder(benches, tmp_path, capsys):
    one, two = benches / "one/quick", benches / "two/quick"
    code, _, _ = run(capsys, "compare", f"{one}:random/conv", f"{two}:hf:acme/vit-small/mlp", f"to={tmp_path}")
    assert code == 0
    assert rows(tmp_path)[0]["second"] == "two/quick: hf:acme/vit-small / mlp"


def test_a_single_common_seed_says_so(tmp_path, capsys):
    folder = fill(tmp_path / "one", [result("default"), result("pixels", rate=0.2)])
    code, out, _ = run(capsys, "compare", "default", "pixels", f"folder={folder}")
    assert code == 0
    assert "With a single common seed nothing can be said of another one" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["default"], "second is missing: embodied bench compare FIRST SECOND"),
        (["default", "defalt", "folder={one}"], "did you mean default"),
        (["default", "pixels"], "write folder=<benchmark>"),
        (["{one}", "pixels"], "name an encoder of it"),
        (["{one}", "{one}"], "are the same folder"),
        (["state", "state", "folder={one}"], "no controller in common"),
        (["a", "b", "folder={one}/nowhere"], "is no folder"),
        (["a", "b", "c"], "one path too many"),
        (["a", "b", "--json"], "unknown option"),
        (["a", "b", "fodler=x"], "did you mean folder"),
    ],
)
def test_mistakes_of_compare(benches, capsys, arguments, message):
    code, _, err = run(capsys, "compare", *(text.format(one=benches / "one/quick") for text in arguments))
    assert code in (1, 2)
    assert message in " ".join(err.split())


def test_folders_of_two_protocols_do_not_compare(tmp_path, capsys):
    one = fill(tmp_path / "one", [result()])
    two = fill(tmp_path / "two", [result()], of=plan(report=9))
    code, _, err = run(capsys, "compare", one, two)
    assert code == 1
    assert "cannot mix protocols" in err
    assert "seeds.report (2000000, 9)" in " ".join(err.split())


def test_leaderboard_merges_folders(benches, tmp_path, capsys):
    code, out, _ = run(capsys, "leaderboard", benches, f"to={tmp_path}")
    assert code == 0
    assert "merged from 2 benchmarks" in out
    page = (tmp_path / "leaderboard.html").read_text()
    assert "hf:acme/vit-small" in page
    assert ">default<" in page.replace("</i>", ">")
    with open(tmp_path / "leaderboard.csv", newline="") as handle:
        merged = list(csv.DictReader(handle))
    assert len(merged) == len(benchmark(seeds=3))  # the baselines of both folders count once
    assert "as the first folder has them" in " ".join(out.split())


def test_leaderboard_finds_videos_from_where_it_is(tmp_path, capsys):
    folder = fill(tmp_path / "deep" / "bench", [result(seed=seed) for seed in range(2)])
    video = folder / result().run / "videos" / "rollout.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"film")
    run(capsys, "leaderboard", tmp_path)
    assert f'href="deep/bench/{result().run}/videos/rollout.mp4"' in (tmp_path / "leaderboard.html").read_text()


def test_leaderboard_refuses_mixed_protocols(tmp_path, capsys):
    fill(tmp_path / "one", [result()])
    fill(tmp_path / "two", [result()], of=plan(report=9))
    code, _, err = run(capsys, "leaderboard", tmp_path)
    assert code == 1
    assert "cannot mix protocols" in err
    assert not (tmp_path / "leaderboard.html").exists()


def test_leaderboard_of_nothing_and_of_a_newer_version(tmp_path, capsys):
    assert "holds no results" in run(capsys, "leaderboard", tmp_path)[2]
    assert "is no folder" in run(capsys, "leaderboard", tmp_path / "nowhere")[2]
    folder = fill(tmp_path / "one", [result()])
    path = result_path(folder, result().cell.key)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": RESULT_FORMAT + 1}))
    code, _, err = run(capsys, "leaderboard", tmp_path)
    assert code == 1
    assert "upgrade embodied" in " ".join(err.split())


@pytest.mark.parametrize("verb", ["compare", "leaderboard"])
def test_help(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"embodied bench {verb}" in out
