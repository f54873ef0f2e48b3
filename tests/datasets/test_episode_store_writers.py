"""Several processes append and read at once, some of them killed: no episode is lost, mixed up or half there."""

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zarr

from embodied.core.errors import UserError
from embodied.datasets.storage.disk import FileLock
from embodied.datasets.storage.local import LocalStorage
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

KEYS = {
    "observation.images.a": KeySpec("uint8", (16, 16, 3)),
    "observation.images.j": KeySpec("uint8", (16, 16, 3), "jpeg"),
    "action": KeySpec("float32", (2,)),
}


HERE = str(Path(__file__).parent)


def python(code):
    """The start of a command: importlib's mode of pytest leaves this module without a name that children know."""
    return [sys.executable, "-W", "error", "-c", code]


def episode(seed):
    """Arrays that say which episode they are of; JPEG keeps a plain colour."""
    rng, length = np.random.default_rng(seed), 5 + seed % 4
    return {
        "observation.images.a": rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8),
        "observation.images.j": np.full((length, 16, 16, 3), seed % 256, np.uint8),
        "action": np.full((length, 2), seed, np.float32),
    }


def check(path, expected_seeds=None):
    """Every episode that is there is whole, and nothing is damaged."""
    store = EpisodeStore.open(path)
    for info in store.episodes:
        read = store.read_episode(info.index)
        for key, array in episode(info.seed).items():
            assert np.array_equal(read[key], array), (info, key)
    if expected_seeds is not None:
        assert sorted(info.seed for info in store.episodes) == sorted(expected_seeds)
        assert list(store.validate()) == []
    return store


def append_some(path, worker, count):
    with EpisodeStore.open(path, mode="a") as store:
        for number in range(count):
            seed = 100 * worker + number
            if number % 2:
                store.append(episode(seed), task="", seed=seed)
            else:
                with store.writer(task="", seed=seed) as writer:
                    for start in range(0, len(episode(seed)["action"]), 3):
                        writer.write({key: array[start : start + 3] for key, array in episode(seed).items()})


def read_until(path, count):
    store, seen = EpisodeStore.open(path), 0
    while seen < count:
        store.refresh()
        assert len(store) >= seen  # no episode that was there goes away
        seen = len(store)
        for info in store.episodes[-3:]:
            read = store.read_episode(info.index)
            assert all(np.array_equal(read[key], array) for key, array in episode(info.seed).items())


def run_together(context, path, *, writers, readers, count, before=()):
    jobs = [context.Process(target=append_some, args=(path, worker, count)) for worker in range(1, writers + 1)]
    jobs += [context.Process(target=read_until, args=(path, writers * count)) for _ in range(readers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(100)
    assert [job.exitcode for job in jobs] == [0] * len(jobs)
    made = [100 * worker + number for worker in range(1, writers + 1) for number in range(count)]
    check(path, [*before, *made])


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "embodied.datasets.store.store_header.CHUNK_BYTES", 8 * 16 * 16 * 3
    )  # chunks of 8, shards of 32
    monkeypatch.setattr("embodied.datasets.store.store_header.SHARD_BYTES", 32 * 16 * 16 * 3)
    EpisodeStore.create(tmp_path / "s", keys=KEYS, fps=10).close()
    return tmp_path / "s"


TOGETHER = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_episode_store_writers import append_some, check, run_together
path = Path(sys.argv[1])
append_some(path, 0, 2)  # the parent has used everything before it forks
check(path)
context = multiprocessing.get_context(sys.argv[3])
run_together(context, path, writers=int(sys.argv[4]), readers=int(sys.argv[5]), count=6, before=[0, 1])
"""


@pytest.mark.parametrize(("method", "writers", "readers"), [("spawn", 2, 1), ("fork", 4, 2)])
def test_writers_and_readers_at_once(path, method, writers, readers):
    subprocess.run([*python(TOGETHER), str(path), HERE, method, str(writers), str(readers)], check=True, timeout=300)


def test_whoever_waits_too_long_for_the_lock_learns_who_has_it(path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.store.episode_store.LOCK_WAIT_S", 0.05)
    lock = FileLock(path.parent / ".s.lock")
    assert lock.acquire(wait=False)
    with EpisodeStore.open(path, mode="a") as store:
        with pytest.raises(UserError, match=r"process \d+ is writing to"):
            store.append(episode(0), task="", seed=0)
        lock.release()
        assert store.append(episode(1), task="", seed=1) == 0
    check(path, [1])


def test_the_lock_of_a_dead_writer_does_not_block(path):
    code = f"""
        import os, time
        from embodied.datasets.storage.disk import FileLock
        lock = FileLock({str(path.parent / ".s.lock")!r})
        assert lock.acquire(wait=False)
        child = os.fork()
        if child == 0:  # a worker that outlives its parent must not keep the lock
            print("held", flush=True)
            time.sleep(30)
            os._exit(0)
        time.sleep(30)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert not FileLock(path.parent / ".s.lock").acquire(wait=False)
        process.kill()
        process.wait()
        with EpisodeStore.open(path, mode="a") as store:
            assert store.append(episode(0), task="", seed=0) == 0
    finally:
        process.kill()
        process.stdout.close()


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_episode_store_writers as tests
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.storage.local import LocalStorage

base, seeds = Path(sys.argv[1]), list(range(15))

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def killed_at(path, number, moment):
    # Dies in the middle of its n-th change of the store, or after it.
    done = [0]

    def counted(change):
        def counting(*arguments):
            done[0] += 1
            if done[0] == number and moment == "middle":
                os.replace = die  # the new file is written, but not in its place
            change(*arguments)
            if done[0] == number:
                die()
        return counting

    LocalStorage.write, LocalStorage.delete = counted(LocalStorage.write), counted(LocalStorage.delete)
    with EpisodeStore.open(path, mode="a") as store:
        if number % 2:
            store.append(tests.episode(50), task="", seed=50)
        else:
            with store.writer(task="", seed=50) as writer:
                writer.write(tests.episode(50))
    os._exit(0)

with EpisodeStore.open(base, mode="a") as store:
    for seed in seeds:
        store.append(tests.episode(seed), task="", seed=seed)
# Three shards, three zarr.json, the episode's segment, the one merged of sixteen, sixteen deletions.
committed, points = 7, [(number, "middle") for number in (1, 2, 4, 7, 8)]
points += [(number, "after") for number in (1, 3, 6, 7, 8, 9, 24)]
for number, moment in points:
    path = base.parent / f"{number}-{moment}" / "s"
    shutil.copytree(base, path)
    child = os.fork()
    if child == 0:
        killed_at(path, number, moment)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (number, moment, status)
    survived = [50] if number > committed or (number == committed and moment == "after") else []
    tests.check(path, [*seeds, *survived])  # only the unfinished episode is lost
    with EpisodeStore.open(path, mode="a") as store:
        store.append(tests.episode(51), task="", seed=51)
    tests.check(path, [*seeds, *survived, 51])
    left = [str(file) for file in path.parent.rglob("*") if file.name.endswith((".tmp", ".partial"))]
    assert not left, left
    shutil.rmtree(path.parent)
"""


def test_a_store_whose_creator_was_killed_after_its_first_file_is_a_store(path):
    for file in path.rglob("*/zarr.json"):
        file.unlink()
    with EpisodeStore.open(path, mode="a") as store:
        store.append(episode(0), task="", seed=0)
    check(path, [0])


def test_killed_at_any_change_of_the_store_only_the_unfinished_episode_is_lost(path):
    subprocess.run([*python(KILLED), str(path), HERE], check=True, timeout=300)


STREAMED = """
import os, sys, time
from embodied.datasets.store.episode_store import EpisodeStore
sys.path.insert(0, sys.argv[2])
from test_episode_store_writers import episode
with EpisodeStore.open(sys.argv[1], mode="a") as store, store.writer(task="", seed=0) as writer:
    writer.write(episode(0))
    print("written", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_streaming_writer_staged_is_cleared_by_the_next(path):
    command = [*python(STREAMED), str(path), HERE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        staging = path.parent / ".s.staging"
        assert any(file.stat().st_size for file in staging.rglob("*") if file.is_file())
        with EpisodeStore.open(path, mode="a") as store:
            with store.writer(task="", seed=1) as writer:  # while the other lives, its frames stay
                writer.write(episode(1))
            assert len([entry for entry in staging.iterdir() if entry.is_dir()]) == 1
            process.kill()
            process.wait()
            with store.writer(task="", seed=2) as writer:
                writer.write(episode(2))
        assert not staging.exists()
    check(path, [1, 2])


@pytest.mark.parametrize("failing", ["observation.images.a/c", "action/c", "action/zarr.json", "_index/0"])
def test_a_full_disk_leaves_the_store_as_it_was(path, monkeypatch, failing):
    with EpisodeStore.open(path, mode="a") as store:
        for seed in (0, 1):
            store.append(episode(seed), task="", seed=seed)
        before = store.fingerprint()
        write = LocalStorage.write

        def full(self, name, data):
            if name.startswith(failing):
                with monkeypatch.context() as patch:
                    patch.setattr("os.replace", no_space)
                    write(self, name, data)
            write(self, name, data)

        def no_space(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write", full)
            with pytest.raises(UserError, match=r"no space left on the disk of .*s while writing"):
                store.append(episode(7), task="", seed=7)
        assert check(path, [0, 1]).fingerprint() == before
        assert store.append(episode(2), task="", seed=2) == 2
    check(path, [0, 1, 2])
    zarr_actions = zarr.open_group(str(path), mode="r")["action"][:]
    assert np.array_equal(zarr_actions, np.concatenate([episode(seed)["action"] for seed in (0, 1, 2)]))


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_episode_store_writers import episode
from embodied.core.errors import UserError
from embodied.datasets.store.episode_store import EpisodeStore

def whole(store):
    store.append(episode(1), task="", seed=1)

def streamed(store):
    with store.writer(task="", seed=2) as writer:
        for _ in range(4):
            writer.write(episode(2))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = EpisodeStore.open(sys.argv[1], mode="a")
store.append(episode(0), task="", seed=0)
for attempt in (whole, streamed):
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    try:
        attempt(store)
    except UserError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(error)
    else:
        sys.exit("no error")
store.append(episode(3), task="", seed=3)
"""


def test_files_that_may_not_grow_leave_the_store_as_it_was(path):
    command = [*python(LIMITED), str(path), HERE]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert done.stdout.count("File too large") == 2
    check(path, [0, 3])
