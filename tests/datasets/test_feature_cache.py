"""Features are computed once for one encoder and one store, and do not depend on interruptions."""

import logging
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.array_cache import ArrayCache
from embodied.datasets.loading.bfloat16 import from_bfloat16, to_bfloat16
from embodied.datasets.loading.cache_space import list_caches, prune
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.datasets.loading.feature_cache import FeatureCache, FrozenEncoder, encode_store, encode_with_all
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.npy_rows import ArraySpec
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

IMAGE = "observation.images.front"
ROWS = np.arange(60, dtype=np.float32).reshape(10, 2, 3)


def open_cache(root, **changes):
    arguments = {
        "encoder_fingerprint": "e1",
        "store_fingerprint": "s1",
        "image_key": IMAGE,
        "outputs": {"tokens": (2, 3), "pooled": (3,)},
        "num_frames": 10,
    }
    return FeatureCache.open_or_create(root, **{**arguments, **changes})


def write(cache, start, stop):
    cache.write(start, {"tokens": ROWS[start:stop], "pooled": ROWS[start:stop].mean(axis=1)})


def filled(root, **changes):
    cache = open_cache(root, **changes)
    write(cache, 0, 10)
    return cache


def files(cache):
    return {path.name: path.read_bytes() for path in cache.path.glob("*.npy")}


def test_rows_are_committed_bit_by_bit_and_read_memory_mapped(tmp_path):
    with open_cache(tmp_path) as cache:
        write(cache, 0, 4)
        assert cache.done == 4 and not cache.complete
        with pytest.raises(UsageError, match="holds 4 of 10 rows"):
            cache.array("tokens")
    with open_cache(tmp_path) as cache:
        assert cache.done == 4
        write(cache, 4, 10)
        assert cache.complete
        tokens = cache.array("tokens")
    assert isinstance(tokens, np.memmap) and tokens.dtype == np.float16 and not tokens.flags.writeable
    assert np.array_equal(tokens, ROWS)
    assert np.array_equal(np.load(cache.path / "pooled.npy"), ROWS.mean(axis=1))
    assert open_cache(tmp_path).complete


def test_how_many_rows_are_written_at_a_time_does_not_show(tmp_path):
    whole, parts = filled(tmp_path / "a"), open_cache(tmp_path / "b")
    for start in range(10):
        write(parts, start, start + 1)
    assert files(whole) == files(parts) and whole.content_hash() == parts.content_hash()


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_fingerprint": "e2"},
        {"store_fingerprint": "s2"},
        {"image_key": "observation.images.top"},
        {"outputs": {"tokens": (2, 3)}},
        {"outputs": {"tokens": (3, 2), "pooled": (3,)}},
        {"num_frames": 11},
        {"dtype": "float32"},
    ],
)
def test_everything_the_features_depend_on_changes_the_key(tmp_path, change):
    first, second = open_cache(tmp_path), open_cache(tmp_path, **change)
    assert first.key != second.key and first.path != second.path
    first.close()
    assert open_cache(tmp_path).key == first.key


@pytest.mark.parametrize(
    ("start", "rows", "message"),
    [
        (1, {"tokens": ROWS[:1], "pooled": ROWS[:1, 0]}, "start must be 0"),
        (0, {"tokens": ROWS[:1]}, "expected .*pooled.*, got"),
        (0, {"tokens": ROWS[:1], "pooled": ROWS[:2, 0]}, r'rows\["pooled"\]: expected \(1, 3\)'),
        (0, {"tokens": np.zeros((11, 2, 3)), "pooled": np.zeros((11, 3))}, "1 to 10 rows"),
    ],
)
def test_rows_that_do_not_come_next_are_refused(tmp_path, start, rows, message):
    with pytest.raises(UsageError, match=message):
        open_cache(tmp_path).write(start, rows)


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_values_that_float16_cannot_hold_are_refused(tmp_path, value):
    cache = open_cache(tmp_path)
    with pytest.raises(UserError, match="'pooled' has nan, infinity or values too large for float16"):
        cache.write(0, {"tokens": ROWS[:1], "pooled": np.full((1, 3), value, np.float32)})
    assert cache.done == 0


def flip(cache):
    data = bytearray((cache.path / "tokens.npy").read_bytes())
    data[-50] ^= 1
    (cache.path / "tokens.npy").write_bytes(data)


def truncate(cache):
    (cache.path / "tokens.npy").write_bytes((cache.path / "tokens.npy").read_bytes()[:-7])


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        truncate,
        lambda cache: (cache.path / "pooled.npy").unlink(),
        lambda cache: (cache.path / "progress.json").write_text('{"done"'),
    ],
    ids=["flipped", "truncated", "missing", "progress"],
)
def test_a_damaged_cache_is_built_again_with_a_warning(tmp_path, caplog, damage):
    cache = filled(tmp_path)
    cache.close()
    sound = files(cache)
    damage(cache)
    with caplog.at_level(logging.WARNING):
        again = open_cache(tmp_path)
    assert "computing it again" in caplog.text and again.done == 0
    write(again, 0, 10)
    assert files(again) == sound


def test_a_copied_cache_is_still_sound(tmp_path):
    cache = filled(tmp_path / "a")
    (tmp_path / "b").mkdir()
    shutil.copytree(cache.path, tmp_path / "b" / cache.path.name, copy_function=shutil.copyfile)
    assert open_cache(tmp_path / "b").complete


def test_a_damaged_cache_that_others_read_is_not_waited_for(tmp_path):
    reader = filled(tmp_path)
    flip(reader)
    with pytest.raises(UserError, match="uses the cache"):
        open_cache(tmp_path)


def test_a_second_builder_waits_or_says_who_is_first(tmp_path):
    first = open_cache(tmp_path)
    write(first, 0, 4)
    with pytest.raises(UserError, match=r"process \d+ uses the cache"):
        open_cache(tmp_path, wait=False)
    opened = []
    second = threading.Thread(target=lambda: opened.append(open_cache(tmp_path).complete))
    second.start()
    write(first, 4, 10)
    second.join(timeout=20)
    assert opened == [True]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"no space left on the disk .* wanted"):
        open_cache(tmp_path)
    assert not list(tmp_path.glob("*"))[1:]  # the folder of locks at most


class Flat(nn.Module):
    """An encoder of 4x4 frames: 16 tokens of width 3, through one weight matrix."""

    modality, width, grid = "image", 3, (4, 4)

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3))
        self.seen = []

    def preprocess(self, frames):
        return frames.permute(0, 3, 1, 2).float() / 255

    def forward(self, images):
        self.seen.append(len(images))
        tokens = images.flatten(2).transpose(1, 2) @ self.matrix
        return tokens, {"pooled": tokens.mean(dim=1)}


def make_store(path, *, change=0):
    frames = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3), dtype=np.uint8)
    frames[5, 1, 2, 0] ^= change
    with EpisodeStore.create(path, keys={IMAGE: KeySpec("uint8", (4, 4, 3))}, fps=10) as store:
        for part in (frames[:6], frames[6:]):
            store.append({IMAGE: part}, task="", seed=0, success=True)
    return store, frames


def encode(store, encoder, root, **changes):
    arguments = {"image_key": IMAGE, "outputs": ["tokens", "pooled"], "batch_size": 4, "device": "cpu"}
    weights = "".join(f"{value:.6f}" for value in encoder.matrix.flatten().tolist())
    return encode_store(
        store,
        encoder,
        cache_root=root,
        encoder_fingerprint=weights,
        reporter=SilentReporter(),
        **{**arguments, **changes},
    )


def test_a_store_is_encoded_once(tmp_path):
    store, frames = make_store(tmp_path / "s")
    encoder = Flat()
    cache = encode(store, encoder, tmp_path / "c")
    assert encoder.seen == [1, 4, 4, 3]  # one frame to learn the shapes
    assert cache.array("tokens").shape == (11, 16, 3) and cache.array("pooled").shape == (11, 3)
    np.testing.assert_allclose(cache.array("tokens")[7], frames[7].reshape(16, 3) / 255, atol=1e-3)
    again = encode(store, encoder, tmp_path / "c")
    assert encoder.seen[4:] == [1] and again.key == cache.key
    assert encode(store, encoder, tmp_path / "c", outputs=["pooled"]).key != cache.key


def test_changing_a_weight_or_a_pixel_changes_the_key(tmp_path):
    store, _ = make_store(tmp_path / "s")
    other, _ = make_store(tmp_path / "t", change=1)
    encoder, changed = Flat(), Flat()
    changed.matrix.data[0, 0] += 0.001
    keys = {encode(*pair, tmp_path / "c").key for pair in ((store, encoder), (other, encoder), (store, changed))}
    assert len(keys) == 3


def test_an_encoder_that_fails_half_way_is_gone_on_from_there(tmp_path):
    store, _ = make_store(tmp_path / "s")
    encoder = Flat()
    encoder.register_forward_pre_hook(lambda module, inputs: 1 / (2 - len(module.seen)) and None)
    with pytest.raises(ZeroDivisionError):
        encode(store, encoder, tmp_path / "c")
    fresh = Flat()
    cache = encode(store, fresh, tmp_path / "c")
    assert fresh.seen == [1, 4, 3]
    assert files(cache) == files(encode(store, Flat(), tmp_path / "d"))


def test_bfloat16_rounds_as_torch_does():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 20000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38])])
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    finite = ~np.isnan(values)
    assert np.array_equal(to_bfloat16(values)[finite], rounded.view(torch.uint16).numpy()[finite])
    assert np.isnan(from_bfloat16(to_bfloat16(values[~finite]))).all()
    assert np.array_equal(from_bfloat16(to_bfloat16(values)), rounded.float().numpy(), equal_nan=True)
    assert to_bfloat16(np.float32(1.5)).shape == () and to_bfloat16(np.ones((2, 3), np.float32)).shape == (2, 3)


def test_bfloat16_features_are_read_as_float32(tmp_path):
    store, _ = make_store(tmp_path / "s")
    exact, cache = (encode(store, Flat(), tmp_path / "c", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert cache.key != exact.key and cache.array("tokens").dtype == np.uint16
    wanted = torch.from_numpy(exact.rows("tokens")[:]).bfloat16()
    assert np.array_equal(cache.rows("tokens")[2:9], wanted[2:9].float().numpy())
    arguments = {"state": np.zeros((11, 1), np.float32), "action": np.zeros((11, 1), np.float32)}
    demonstrations = Demonstrations(cache.rows("tokens"), **arguments, lengths=[6, 5], history=2)
    assert torch.equal(
        demonstrations.batch(np.array([1, 6]))["features"], wanted[torch.tensor([[0, 1], [6, 6]])].float()
    )
    with pytest.raises(UserError, match="nan, infinity"):
        open_cache(tmp_path, dtype="bfloat16").write(0, {"tokens": ROWS[:1], "pooled": np.full((1, 3), 3.4e39)})
    with pytest.raises(UsageError, match="did you mean bfloat16"):
        encode(store, Flat(), tmp_path / "c", dtype="bfloat")


def test_materialised_frames_are_encoded_like_those_of_the_store(tmp_path):
    store, _ = make_store(tmp_path / "s")
    data = materialize(store, keys=[IMAGE], cache_root=tmp_path / "m")
    there = encode(store, Flat(), tmp_path / "a", frames=data.rows[IMAGE])
    assert files(there) == files(encode(store, Flat(), tmp_path / "b"))
    small = materialize(store, keys=[IMAGE], image_size=2, cache_root=tmp_path / "m")
    with pytest.raises(UsageError, match=r"frames: expected uint8 \[11, 4, 4, 3\] as in the store, got uint8 \(11, 2"):
        encode(store, Flat(), tmp_path / "a", frames=small.rows[IMAGE])


def test_several_encoders_share_decoded_frames(tmp_path, monkeypatch):
    store, _ = make_store(tmp_path / "s")
    second = Flat()
    second.matrix.data *= 2
    read, calls = EpisodeStore.read, []
    monkeypatch.setattr(EpisodeStore, "read", lambda self, *rest: calls.append(rest) or read(self, *rest))
    encoders = {"a": FrozenEncoder(Flat(), "one", ["tokens"]), "b": FrozenEncoder(second, "two", ["pooled"])}
    options = {"image_key": IMAGE, "cache_root": tmp_path / "c", "device": "cpu", "reporter": SilentReporter()}
    found = encode_with_all(store, encoders, batch_size=4, **options)
    assert calls == [(IMAGE, 0, 11)]
    monkeypatch.undo()
    assert files(found["a"]) == files(encode(store, Flat(), tmp_path / "d", outputs=["tokens"]))
    assert files(found["b"]) == files(encode(store, second, tmp_path / "d", outputs=["pooled"]))
    with pytest.raises(UsageError, match="unknown image key"):
        encode_with_all(store, encoders, **{**options, "image_key": "observation.images.frond"})


def open_parts(root, **changes):
    outputs = {"a": ArraySpec("float32", (2, 3)), "b": ArraySpec("int64", ())}
    return ArrayCache(root, **{"identity": {"n": 1}, "outputs": outputs, "num_rows": 10, "file_bytes": 80, **changes})


def test_an_output_is_cut_into_files_of_bounded_size(tmp_path):
    with open_parts(tmp_path) as cache:
        cache.write(0, {"a": ROWS[:5], "b": np.arange(5)})
    with open_parts(tmp_path) as cache:
        assert cache.done == 5
        cache.write(5, {"a": ROWS[5:], "b": np.arange(5, 10)})
        rows = cache.rows("a")
        assert [np.load(path).shape for path in rows.paths] == [(3, 2, 3)] * 3 + [(1, 2, 3)]
        assert np.array_equal(cache.array("b"), np.arange(10))
        with pytest.raises(UsageError, match="lies in 4 files"):
            cache.array("a")
    order = np.array([[9, 0, 5], [3, 3, 8]])
    assert np.array_equal(rows[order], ROWS[order]) and np.array_equal(rows[2:8], ROWS[2:8])
    assert np.array_equal(rows[-1], ROWS[9]) and rows[4:4].shape == (0, 2, 3)
    with pytest.raises(IndexError, match="0 to 9"):
        rows[np.array([10])]
    assert open_parts(tmp_path, file_bytes=None).path != cache.path
    sound = rows.paths[2].read_bytes()
    rows.paths[2].write_bytes(sound[:-1] + b"?")
    assert open_parts(tmp_path).done == 0  # found damaged


def test_values_that_are_not_finite_stay_where_they_are_data(tmp_path):
    values = ROWS.copy()
    values[2, 0, 0], values[3, 1, 1] = np.nan, np.inf
    cache = open_parts(tmp_path, finite=False)
    cache.write(0, {"a": values, "b": np.arange(10)})
    assert np.array_equal(cache.rows("a")[:], values, equal_nan=True)


def test_wrong_arguments_are_refused(tmp_path):
    store, _ = make_store(tmp_path / "s")
    with pytest.raises(UsageError, match="unknown image key"):
        encode(store, Flat(), tmp_path / "c", image_key="observation.images.frond")
    with pytest.raises(UsageError, match="unknown encoder output 'cls'"):
        encode(store, Flat(), tmp_path / "c", outputs=["cls"])
    with pytest.raises(UsageError, match="batch_size"):
        encode(store, Flat(), tmp_path / "c", batch_size=0)
    with pytest.raises(UsageError, match="cannot be a file name"):
        open_cache(tmp_path / "c", outputs={"a/b": (1,)})


BUILDER = """
import os, random, signal, sys, time
import numpy as np
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.feature_cache import FeatureCache

def compute(ranges):
    for start, stop in ranges:
        time.sleep(0.002)
        rows = np.stack([np.random.default_rng(row).normal(size=(16, 32)) for row in range(start, stop)])
        yield {"tokens": rows, "pooled": rows.mean(axis=1)}

def build():
    cache = FeatureCache.open_or_create(
        sys.argv[1], encoder_fingerprint="e", store_fingerprint="s", image_key="k",
        outputs={"tokens": (16, 32), "pooled": (32,)}, num_frames=300)
    cache.fill(compute, block=8, description="", reporter=SilentReporter())
    os._exit(0)

random.seed(0)
for trial in range(int(sys.argv[2]) + 1):
    child = os.fork()
    if child == 0:
        build()
    if trial < int(sys.argv[2]):
        time.sleep(random.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


def test_a_builder_killed_again_and_again_leaves_the_same_bytes(tmp_path):
    def build(root, kills):
        command = [sys.executable, "-c", BUILDER, str(root), str(kills)]
        return subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout.split()

    assert build(tmp_path / "once", 0) == ["0"]
    outcomes = build(tmp_path / "killed", 8)
    assert outcomes.count("killed") >= 3 and outcomes[-1] == "0"
    (once,), (killed,) = ([cache.path for cache in list_caches(tmp_path / name)] for name in ("once", "killed"))
    assert sorted(path.name for path in killed.iterdir()) == ["pooled.npy", "progress.json", "tokens.npy"]
    for name in ("pooled.npy", "tokens.npy"):
        assert (once / name).read_bytes() == (killed / name).read_bytes()


def test_prune_deletes_complete_caches_least_recently_used_first(tmp_path):
    first, second, third = (filled(tmp_path, encoder_fingerprint=name) for name in ("a", "b", "c"))
    unfinished = open_cache(tmp_path, encoder_fingerprint="d")
    for cache in (first, second, third, unfinished):
        cache.close()
    open_cache(tmp_path, encoder_fingerprint="a").close()  # used: now the youngest
    listed = list_caches(tmp_path)
    assert {info.path: info.complete for info in listed}[unfinished.path] is False
    assert listed[-1].path == first.path and listed[-1].identity["encoder"] == "a"
    total = sum(info.size_bytes for info in listed)
    assert prune(tmp_path, total) == []
    assert prune(tmp_path, total - 1) == [second.path]
    reader = open_cache(tmp_path, encoder_fingerprint="c")
    assert prune(tmp_path, 0) == [first.path]
    assert reader.array("tokens").shape == (10, 2, 3) and unfinished.path.exists()
    reader.close()
    assert prune(tmp_path, 0) == [third.path]
    assert [info.path for info in list_caches(tmp_path)] == [unfinished.path]
