"""`embodied replicate` of models of videos, each whole at its tiny size: jobs, looks, planners, encoders by seed."""

import json
import os

import pytest

from embodied.bench.result_files import load_results
from embodied.cli.main import main


def replicated(tmp_path, name):
    """The record of a replication, its folder and its rows by encoder and controller."""
    places = [f"root={tmp_path}", f"cache={tmp_path / 'cache'}", "device=cpu", "workers=1", "videos=0"]
    assert main(["replicate", name, "size=tiny", *places]) == 0
    folder = tmp_path / f"{name}-tiny"
    results = load_results(folder)
    assert all(each.status == "done" and each.episodes for each in results), [each.reason for each in results]
    rows = {(os.path.basename(each.cell.weights), each.cell.controller): each for each in results}
    return json.loads((folder / "replicate.json").read_text()), folder, rows


@pytest.mark.sim
@pytest.mark.slow
def test_maskvit_plans_with_a_model_of_its_own_tokenizer(tmp_path):
    record, folder, rows = replicated(tmp_path, "maskvit")
    assert set(rows) == {("pixels", name) for name in ("cem", "shooting", "random", "simulator")}
    (measure,) = record["measures"]
    model = record["pretraining"]["model"]
    # Three frames of four codes, one by one or in three passes.
    assert (model["decoding.passes_one_by_one"], model["decoding.passes"], measure["value"]) == (12, 3, 4)
    assert measure["status"] == "same direction"
    assert model["decoding.times_faster_low"] <= model["decoding.times_faster"] <= model["decoding.times_faster_high"]
    help_low, help_high = model["decoding.actions_help_low"], model["decoding.actions_help_high"]
    assert help_low <= model["decoding.right_true"] - model["decoding.right_shuffled"] <= help_high
    assert [each["pairs"] for each in record["verdicts"]] == [1, 1, 1]
    recipes = json.loads((folder / "bench.json").read_text())["recipes"]
    assert recipes["metaworld/handle-press-v3/static/cem"]["kind"] == "planning"
    assert recipes["metaworld/handle-press-v3/static/cem"]["settings"]["policy"]["model_fingerprint"]


@pytest.mark.sim
@pytest.mark.slow
def test_toto_is_probed_at_every_depth_and_benched_by_seed(tmp_path):
    record, folder, rows = replicated(tmp_path, "toto")
    assert set(rows) == {("0", "video"), ("1", "video"), ("0", "image"), ("1", "image")}
    assert len({each.encoder_fingerprint for each in rows.values()}) == 4  # every seed has weights of its own
    assert [each["pairs"] for each in record["verdicts"]] == [2]
    assert all(len(each["values"]) == 2 and each["low"] is not None for each in record["measures"])
    first = record["pretraining"]["toto-0"]
    assert first["depths.middle"] - first["depths.last"] == pytest.approx(first["depths.middle_minus_last"])
    attention, mean = first["depths.attention_1"], first["depths.trained_mean_1"]  # features are after half the blocks
    assert first["depths.attention_minus_mean"] == pytest.approx(attention - mean)
    assert {f"depths.attention_{depth}" for depth in range(3)} <= set(first)
    assert (folder / "pretraining" / "toto-0" / "plots" / "depths.png").is_file()
    assert main(["replicate", "toto", "size=tiny", "seeds=3", f"root={tmp_path}", "device=cpu"]) == 2


@pytest.mark.sim
@pytest.mark.slow
def test_gr1_is_fine_tuned_from_videos_for_every_seed(tmp_path):
    pytest.importorskip("wordllama")
    record, folder, rows = replicated(tmp_path, "gr1")
    assert set(rows) == {("0", "gr1"), ("1", "gr1")}
    assert [each["pairs"] for each in record["verdicts"]] == [2, 2]
    assert {each["scene"] for each in record["verdicts"]} == {"static", "unseen"}
    jobs = record["pretraining"]
    assert set(jobs) == {"videos", "none-0", "none-1", "pretrained-0", "pretrained-1"}
    assert "loss_arm" not in jobs["videos"] and "loss_arm" in jobs["none-0"]
    assert "started from" in (folder / "pretraining" / "pretrained-1.log").read_text()
    assert {path.name for path in (folder / "pretrained" / "pretrained").iterdir()} == {"0", "1"}
