"""Files, seeds, checkpoints, errors, run folders."""

import json
import os

import numpy as np
import pytest
import torch

from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import MissingExtraError, UsageError, UserError, unknown_name
from embodied.core.files import atomic_path, cache_folder, hash_json, write_json
from embodied.core.run_folder import RunFolder, latest_run, next_run_path, read_metrics
from embodied.core.seeding import derive_seed, numpy_generator, torch_generator


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


def test_json_refuses_what_json_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "file", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


def test_hash_ignores_the_order_of_keys():
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 2, "b": 1})


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBODIED_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EMBODIED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/embodied"


def test_seeds_depend_on_seed_and_purpose_alone():
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert len({derive_seed(0, "a", 1), derive_seed(1, "a", 1), derive_seed(0, "a", 2), derive_seed(0, "b", 1)}) == 4
    first, second = (torch.rand(3, generator=torch_generator(1, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert np.array_equal(numpy_generator(1, "x").random(3), numpy_generator(1, "x").random(3))


def test_checkpoint_round_trip_with_shared_tensors(tmp_path):
    shared = torch.arange(3.0)
    save_checkpoint(tmp_path / "c", {"a": shared, "b": shared}, {"step": 3, "nested": {"x": [1]}})
    tensors, metadata = load_checkpoint(tmp_path / "c")
    assert torch.equal(tensors["a"], shared)
    assert torch.equal(tensors["b"], shared)
    assert metadata == {"step": 3, "nested": {"x": [1]}}


def test_damaged_and_foreign_checkpoints_give_one_message(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle")  # never unpickled
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_checkpoint(tmp_path / "pickle")
    save_checkpoint(tmp_path / "whole", {"a": torch.zeros(100)}, {})
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "torn")
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(UserError, match="not a checkpoint written by embodied"):
        load_checkpoint(tmp_path / "foreign")


def test_unknown_names_list_near_ones_or_all_or_a_few():
    assert str(unknown_name("task", "hamer", ["hammer", "reach"])) == "unknown task 'hamer': did you mean hammer?"
    assert str(unknown_name("kind", "zzz", ["b", "a"])) == "unknown kind 'zzz': choose one of a, b"
    assert "there are 20, among them" in str(unknown_name("kind", "zzz", [f"name{i}" for i in range(20)]))


def test_exit_codes():
    assert UsageError("x").exit_code == 2
    assert UserError("x").exit_code == MissingExtraError("p", "e").exit_code == 1
    assert "pip install 'embodied-learning[hf]'" in str(MissingExtraError("transformers", "hf"))


def make_run(path, config_hash="h"):
    return RunFolder.create(path, config_yaml="a: 1\n", config_hash=config_hash, command="embodied train")


def test_run_folder_remembers_its_phases(tmp_path):
    run = make_run(tmp_path / "run")
    assert run.result("train") is None
    run.finish("train", {"x": 1}, 2.5)
    again = RunFolder.open(tmp_path / "run")
    assert again.result("train") == {"x": 1}
    assert again.phase_seconds() == {"train": 2.5}
    assert again.summary() is None
    assert "torch" in (tmp_path / "run" / "environment.txt").read_text()


def test_metrics_of_a_crashed_attempt_are_dropped(tmp_path):
    run = make_run(tmp_path / "run")
    with run.metrics(keep=0) as log:
        for step in (1, 2, 3):
            log({"step": step})
    with open(tmp_path / "run" / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 4, "lo')  # torn by a crash
    with run.metrics(keep=2) as log:
        log({"step": 3, "loss": 0.5})
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]


def test_runs_are_numbered_and_found_by_their_settings(tmp_path):
    first = next_run_path(tmp_path, "run")
    make_run(first, "one")
    second = next_run_path(tmp_path, "run")
    make_run(second, "two")
    assert (first.name, second.name) == ("run", "run-2")
    assert latest_run(tmp_path, "run", "one") == first
    assert latest_run(tmp_path, "run", "three") is None
    with pytest.raises(UsageError, match="made with other settings"):
        RunFolder.open(first).require("two")
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.open(tmp_path)
