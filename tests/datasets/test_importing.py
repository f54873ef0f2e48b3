"""An import keeps whole episodes only, goes on where it stopped, and never mixes sources."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.episode_source import SourceEpisode
from embodied.datasets.importing import EpisodeError, plan_import, run_import
from embodied.datasets.key_mapping import KeyMapping
from embodied.datasets.key_proposal import propose
from embodied.datasets.storage.disk import FileLock
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

KEYS = {"image": KeySpec("uint8", (16, 12, 3)), "actions": KeySpec("float64", (2,)), "extra": KeySpec("int64", ())}


def arrays(number, length):
    rng = np.random.default_rng(number)
    return {
        "image": rng.integers(0, 256, (length, 16, 12, 3), dtype=np.uint8),
        "actions": rng.normal(size=(length, 2)),
        "extra": np.arange(length),
    }


class Source:
    """Episodes of random frames in blocks of 4; `broken` raise after their first block."""

    def __init__(self, lengths=(5, 9, 3), broken=(), origins=None, say_length=True):
        self.keys, self.fps, self.robot, self.provenance = KEYS, 10.0, "arm", {"format": "fake"}
        self.lengths, self.broken, self.say_length = lengths, broken, say_length
        self.origins = origins or [f"demo_{number}" for number in range(len(lengths))]
        self.opened = []

    def __len__(self):
        return len(self.lengths)

    def episodes(self):
        for number, (length, origin) in enumerate(zip(self.lengths, self.origins, strict=True)):
            yield SourceEpisode(
                origin=origin,
                task=f"task {number % 2}",
                blocks=lambda number=number, length=length: self.blocks(number, length),
                success=number % 2 == 0 if number else None,
                seed=number,
                length=length if self.say_length else None,
                notes={"gap_s": 0.5},
            )

    def blocks(self, number, length):
        self.opened.append(number)
        whole = arrays(number, length)
        for start in range(0, length, 4):
            if number in self.broken and start:
                raise UserError("frame 4 is torn")
            yield {key: array[start : start + 4] for key, array in whole.items()}

    def close(self):
        pass


def plan(source, changes=None, **options):
    mapping = propose(source.keys) if changes is None else KeyMapping(changes)
    return plan_import(source, format="fake", path="/somewhere/robots.fake", mapping=mapping, **options)


def fill(path, source, **options):
    return run_import(source, plan(source), path, reporter=SilentReporter(), **options)


@pytest.mark.parametrize("say_length", [True, False])
def test_episodes_arrive_whole_under_their_new_names(tmp_path, say_length):
    report = fill(tmp_path / "s", Source(say_length=say_length))
    assert (report.added, report.present, report.skipped) == (3, 0, [])
    store = EpisodeStore.open(tmp_path / "s")
    assert list(store.keys) == ["observation.images.image", "action", "extra"]
    assert (store.fps, store.robot, store.lengths) == (10.0, "arm", [5, 9, 3])
    for number, info in enumerate(store.episodes):
        expected, found = arrays(number, info.length), store.read_episode(number)
        assert np.array_equal(found["observation.images.image"], expected["image"])
        assert np.array_equal(found["action"], expected["actions"].astype(np.float32))
        assert np.array_equal(found["extra"], expected["extra"])
        assert (info.origin, info.task, info.seed) == (f"demo_{number}", f"task {number % 2}", number)
        assert info.success is (None if number == 0 else number == 2) and info.notes == {"gap_s": 0.5}


def test_the_provenance_says_how_and_names_no_folder(tmp_path):
    fill(tmp_path / "s", Source())
    provenance = EpisodeStore.open(tmp_path / "s").provenance
    assert provenance["import"]["source"] == "robots.fake" and provenance["import"]["map"]["action"] == ["actions"]
    assert provenance["source"] == {"format": "fake"} and "zarr" in provenance["versions"]
    assert "somewhere" not in str(provenance)


def test_the_same_import_goes_on_and_ends_with_the_same_store(tmp_path):
    whole = fill(tmp_path / "whole", Source()).store.fingerprint()
    with pytest.raises(EpisodeError, match="demo_1: frame 4 is torn"):
        fill(tmp_path / "s", Source(broken=[1]))
    assert EpisodeStore.open(tmp_path / "s").lengths == [5]
    again = Source()
    report = fill(tmp_path / "s", again)
    assert (report.added, report.present, again.opened) == (2, 1, [1, 2])
    assert report.store.fingerprint() == whole
    idle = Source()
    assert fill(tmp_path / "s", idle).added == 0 and idle.opened == []


def test_one_that_was_killed_while_it_made_the_store_goes_on(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".zarr.json.169146f2.tmp").write_bytes(b"{")
    assert fill(tmp_path / "s", Source()).added == 3
    assert not list((tmp_path / "s").glob(".*"))


def test_broken_episodes_can_be_left_out_and_tried_again(tmp_path):
    report = fill(tmp_path / "s", Source(broken=[1]), on_error="skip")
    assert report.added == 2 and report.skipped == ["demo_1: frame 4 is torn"]
    assert [info.origin for info in EpisodeStore.open(tmp_path / "s").episodes] == ["demo_0", "demo_2"]
    assert fill(tmp_path / "s", Source()).added == 1
    with pytest.raises(UsageError, match="on_error"):
        fill(tmp_path / "s", Source(), on_error="ignore")


def test_an_episode_that_is_not_as_long_as_said_or_empty_is_refused(tmp_path):
    source = Source(lengths=(4,))
    source.blocks = lambda number, length: iter([arrays(0, 3)])
    with pytest.raises(EpisodeError, match="demo_0 should have 4 frames and has 3"):
        fill(tmp_path / "s", source)
    source.blocks = lambda number, length: iter([])
    with pytest.raises(EpisodeError, match="demo_0 has no frames"):
        fill(tmp_path / "s", source)
    assert len(EpisodeStore.open(tmp_path / "s")) == 0


def test_some_episodes_first_and_the_rest_later(tmp_path):
    assert fill(tmp_path / "s", Source(), episodes=[0]).added == 1
    assert fill(tmp_path / "s", Source(), episodes=[2, 0]).added == 1
    with pytest.raises(UsageError, match="episodes: 3 is not in the source, which has 3"):
        fill(tmp_path / "s", Source(), episodes=[3])
    assert fill(tmp_path / "s", Source()).added == 1
    assert [info.origin for info in EpisodeStore.open(tmp_path / "s").episodes] == ["demo_0", "demo_2", "demo_1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: (s, plan(s, {"a": ("actions",)})), r"was made with map=.*, not \{'a': \['actions'\]\}"),
        (lambda s: (s, plan(s, options={"rate": 5})), r"was made with options=\{\}, not \{'rate': 5\}"),
        (lambda s: (Source(lengths=(5, 8, 3)), plan(s)), r"demo_1, of 9 frames in .*, has 8 frames in the source"),
        (lambda s: (Source(lengths=(5,)), plan(s)), r"demo_1, of 9 frames in .*, is not there in the source"),
        (lambda s: (_with(s, fps=20.0), plan(s)), "has 10 frames/s, and the source now 20"),
        (
            lambda s: (s, plan(_with(s, keys={**KEYS, "actions": KeySpec("float64", (3,))}))),
            r"holds action as float32 \[T, 2\] .*, and the source now has float32 \[T, 3\]",
        ),
    ],
)
def test_a_store_of_another_source_or_mapping_is_refused(tmp_path, change, message):
    fill(tmp_path / "s", Source())
    source, other = change(Source())
    with pytest.raises(UsageError, match=message):
        run_import(source, other, tmp_path / "s", reporter=SilentReporter())
    assert len(EpisodeStore.open(tmp_path / "s")) == 3


def _with(source, **attributes):
    for name, value in attributes.items():
        setattr(source, name, value)
    return source


def test_a_store_that_no_import_made_is_refused(tmp_path):
    EpisodeStore.create(tmp_path / "s", keys={"a": KeySpec("uint8", ())}, fps=10).close()
    with pytest.raises(UsageError, match="was made in another way"):
        fill(tmp_path / "s", Source())


def test_origins_must_differ_and_there_must_be_episodes(tmp_path):
    with pytest.raises(UserError, match="two episodes of the source are called a"):
        fill(tmp_path / "s", Source(lengths=(2, 3), origins=["a", "a"]))
    with pytest.raises(UserError, match="the source has no episodes"):
        fill(tmp_path / "s", Source(lengths=()))


def test_two_imports_into_one_store_do_not_run_at_once(tmp_path):
    lock = FileLock(tmp_path / ".s.import.lock")
    assert lock.acquire()
    with pytest.raises(UserError, match=r"process \d+ is filling"):
        fill(tmp_path / "s", Source())
    lock.release()
    assert fill(tmp_path / "s", Source()).added == 3


def test_values_that_do_not_fit_name_the_episode(tmp_path):
    source = Source(lengths=(4,))
    source.blocks = lambda number, length: iter([{**arrays(0, 4), "actions": np.full((4, 2), np.nan)}])
    with pytest.raises(EpisodeError, match="demo_0: actions: expected finite values"):
        fill(tmp_path / "s", source)


def working():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("run-ahead")]


class Watched(Source):
    """Notes in which threads it is read, and how many blocks were read before the first was written."""

    def __init__(self, **options):
        super().__init__(**options)
        self.threads, self.blocks_read = set(), 0

    def blocks(self, number, length):
        for block in super().blocks(number, length):
            self.threads.add(threading.get_ident())
            self.blocks_read += 1
            yield block


def test_one_other_thread_reads_a_few_blocks_ahead(tmp_path):
    source, seen = Watched(lengths=(40, 40)), []

    class Reporter(SilentReporter):
        def track(self, items, *, total, description, done=0):
            for number in items:
                if number == 4:  # the first block was written, and the reader has had time
                    time.sleep(0.05)
                    seen.append(source.blocks_read)
                yield number

    run_import(source, plan(source), tmp_path / "s", reporter=Reporter())
    assert len(source.threads) == 1 and threading.get_ident() not in source.threads and not working()
    assert seen[0] <= 6 and source.blocks_read == 20
    assert EpisodeStore.open(tmp_path / "s").lengths == [40, 40]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is full")])
def test_whatever_ends_an_import_ends_its_thread(tmp_path, error):
    class Reporter(SilentReporter):
        def track(self, items, *, total, description, done=0):
            for number in items:
                if number == 9:  # in the second episode
                    raise error
                yield number

    with pytest.raises(type(error) if isinstance(error, UserError) else error):
        run_import(Source(), plan(Source()), tmp_path / "s", reporter=Reporter())
    assert not working() and EpisodeStore.open(tmp_path / "s").lengths == [5]
    assert fill(tmp_path / "s", Source()).added == 2


def test_two_imports_into_one_object_store_do_not_run_at_once(s3, monkeypatch):
    from embodied.datasets.storage.s3 import S3Storage

    monkeypatch.setattr("embodied.datasets.resumable_store.open_storage", lambda path: S3Storage(path, lease_s=0.4))
    with (
        S3Storage(s3, lease_s=0.4).filling("import"),
        pytest.raises(UserError, match=rf"is writing to {s3}.* delete {s3}/\.import\.lock"),
    ):
        fill(s3, Source())
    assert not S3Storage(s3).exists()
    assert fill(s3, Source()).added == 3
    assert "lock" not in str(S3Storage(s3).list(""))


def test_progress_counts_frames_and_starts_after_what_is_there(tmp_path):
    fill(tmp_path / "s", Source(), episodes=[0])
    seen = SimpleNamespace(items=0)

    class Reporter(SilentReporter):
        def track(self, items, *, total, description, done=0):
            seen.total, seen.description, seen.done = total, description, done
            for item in items:
                seen.items += 1
                yield item

    run_import(Source(), plan(Source()), tmp_path / "s", reporter=Reporter())
    assert vars(seen) == {"items": 12, "total": 17, "description": "frames", "done": 5}


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, {folder!r})
from test_importing import Source, fill, plan

LENGTHS = [7, 30, 1, 12, 25, 9]

class Slow(Source):
    def blocks(self, number, length):
        for block in super().blocks(number, length):
            time.sleep(0.004)
            yield block

random.seed(1)
kills = 0
while True:
    child = os.fork()
    if child == 0:
        try:
            fill({path!r}, Slow(lengths=LENGTHS))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kills < 6:
        time.sleep(random.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    elif kills >= 6 or os.WEXITSTATUS(status):
        print(kills)
        sys.exit(os.WEXITSTATUS(status))
    else:
        kills = 6
"""


def test_an_import_killed_again_and_again_ends_like_one_that_was_not(tmp_path):
    path = tmp_path / "s"
    code = textwrap.dedent(KILLED.format(folder=str(Path(__file__).parent), path=str(path)))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    whole = fill(tmp_path / "whole", Source(lengths=[7, 30, 1, 12, 25, 9])).store
    store = EpisodeStore.open(path)
    assert store.fingerprint() == whole.fingerprint()
    assert [info.origin for info in store.episodes] == [f"demo_{number}" for number in range(6)]
    assert not list(store.validate())
