"""However many processes want to write, one does; a holder that dies, freezes or loses its lock harms nobody."""

import errno
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embodied.core.errors import UserError
from embodied.datasets.storage.local import local_staging
from embodied.datasets.storage.location import open_storage

PROCESSES, ROUNDS = 3, 4


def wait_for(path, process):
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.01)


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path):
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "demos")


COUNT = """
from embodied.datasets.storage.location import open_storage
storage = open_storage(url)
for _ in range(rounds):
    with storage.lock(wait_s=120):
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if somebody else is in here
        count = int(storage.read("count"))
        time.sleep(0.005)
        storage.write("count", str(count + 1).encode())
        os.unlink(marker)
"""


def test_processes_never_hold_a_lock_together(url, tmp_path, start):
    storage = open_storage(url)
    storage.write("count", b"0")
    workers = [start(COUNT, url=url, marker=str(tmp_path / "inside"), rounds=ROUNDS) for _ in range(PROCESSES)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert storage.read("count") == str(PROCESSES * ROUNDS).encode()


def test_who_waits_in_vain_hears_of_the_holder(url):
    holder, waiter = open_storage(url), open_storage(url)
    with holder.lock(wait_s=0):
        before = time.monotonic()
        with (
            pytest.raises(UserError, match=rf"process {os.getpid()}.* is writing to {url}: wait"),
            waiter.lock(wait_s=0.3),
        ):
            pass
        assert 0.3 <= time.monotonic() - before < 5
    with waiter.lock(wait_s=0):
        pass


def test_a_block_that_fails_gives_the_lock_back(url):
    storage = open_storage(url)
    with pytest.raises(ZeroDivisionError), storage.lock(wait_s=0):
        1 / 0  # noqa: B018
    with open_storage(url).lock(wait_s=0):
        pass


HOLD = """
from embodied.datasets.storage.local import LocalStorage
from embodied.datasets.storage.s3 import S3Storage
storage = S3Storage(url, lease_s=lease_s) if url.startswith("s3:") else LocalStorage(pathlib.Path(url))
with storage.lock(wait_s=0):
    pathlib.Path(ready).touch()
    time.sleep(600)
"""


def killed_holder(start, url, tmp_path, lease_s):
    ready = tmp_path / "ready"
    holder = start(HOLD, url=url, ready=str(ready), lease_s=lease_s)
    wait_for(ready, holder)
    killed = time.monotonic()
    holder.kill()
    holder.join()
    return killed


def test_a_killed_process_holds_no_folder(tmp_path, start):
    killed_holder(start, str(tmp_path / "demos"), tmp_path, 0)
    with open_storage(tmp_path / "demos").lock(wait_s=0):
        pass


def test_a_killed_process_holds_an_object_store_for_its_lease(s3, tmp_path, start):
    from embodied.datasets.storage.s3 import S3Storage

    killed = killed_holder(start, s3, tmp_path, lease_s=2)
    storage = S3Storage(s3, lease_s=2)
    with pytest.raises(UserError, match=rf"ends 2 s after its last sign of life; .* delete {s3}/\.lock"):
        storage.lock(wait_s=0).__enter__()
    with storage.lock(wait_s=60):
        assert time.monotonic() - killed >= 1.5  # the last sign of life was up to half a second before


def test_a_lock_abandoned_long_ago_is_taken_without_waiting(s3, tmp_path, start):
    from embodied.datasets.storage.s3 import S3Storage

    killed_holder(start, s3, tmp_path, lease_s=0.2)
    time.sleep(2.4)  # lease, plus the resolution of the server's times twice
    with S3Storage(s3, lease_s=0.2).lock(wait_s=0):
        pass


def test_a_living_holder_keeps_its_lock_beyond_the_lease(s3):
    from embodied.datasets.storage.s3 import S3Storage

    holder = S3Storage(s3, lease_s=1.2)
    with holder.lock(wait_s=0):
        with pytest.raises(UserError, match="is writing to"), S3Storage(s3, lease_s=1.2).lock(wait_s=3.2):
            pass
        holder.write("zarr.json", b"{}")


FREEZE = """
from embodied.core.errors import UserError
from embodied.datasets.storage.s3 import S3Storage
storage = S3Storage(url, lease_s=2)
with storage.lock(wait_s=0):
    pathlib.Path(ready).touch()
    while not os.path.exists(go):
        time.sleep(0.01)
    for write in (lambda: storage.write("zarr.json", b"old"), lambda: storage.delete("zarr.json")):
        try:
            write()
        except UserError as error:
            assert "lost the lock" in str(error), error
        else:
            raise SystemExit(3)
"""


def test_a_holder_that_was_frozen_writes_nothing_after_another_took_over(s3, tmp_path, start):
    from embodied.datasets.storage.s3 import S3Storage

    ready, go = tmp_path / "ready", tmp_path / "go"
    frozen = start(FREEZE, url=s3, ready=str(ready), go=str(go))
    wait_for(ready, frozen)
    os.kill(frozen.pid, signal.SIGSTOP)
    storage = S3Storage(s3, lease_s=2)
    with storage.lock(wait_s=60):
        storage.write("zarr.json", b"new")
        os.kill(frozen.pid, signal.SIGCONT)
        go.touch()
        frozen.join()
        storage.write("other", b"still ours")
    assert frozen.exitcode == 0 and storage.read("zarr.json") == b"new"


def test_zarr_writes_nothing_either_once_the_lock_is_lost(s3):
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    from embodied.datasets.storage.s3 import S3Storage

    storage = S3Storage(s3, lease_s=1.5)
    store, data = storage.zarr_store(writable=True), default_buffer_prototype().buffer.from_bytes(b"x")
    with storage.lock(wait_s=0):
        sync(store.set("a", data))
        open_storage(s3).delete(".lock")  # as the message for those who wait advises
        with pytest.raises(UserError, match="lost the lock"):
            for _ in range(500):  # until the next renewal
                time.sleep(0.01)
                storage.require_lock()
        for write in (store.set("b", data), store.delete("a")):
            with pytest.raises(UserError, match="lost the lock"):
                sync(write)
    assert storage.list("") == ["a"]


def test_a_server_that_ignores_conditions_is_not_written_to(s3, monkeypatch):
    import obstore

    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, path, data, mode=None, **more: put(store, path, data, **more))
    with pytest.raises(UserError, match="ignores conditional writes"), open_storage(s3).lock(wait_s=0):
        pass


def test_an_answer_that_was_lost_does_not_lock_its_owner_out(s3, monkeypatch):
    import obstore
    from obstore.exceptions import AlreadyExistsError

    put, lost = obstore.put, []

    def put_and_lose_the_answer(*args, **more):
        result = put(*args, **more)
        if not lost:
            lost.append(result)
            raise AlreadyExistsError("tried again after a dropped connection")
        return result

    monkeypatch.setattr(obstore, "put", put_and_lose_the_answer)
    storage = open_storage(s3)
    with storage.lock(wait_s=0):
        storage.write("zarr.json", b"{}")
    assert lost


def test_a_foreign_object_in_place_of_the_lock_counts_as_one(s3):
    open_storage(s3).write(".lock", b"what is this?")
    with pytest.raises(UserError, match="another writer is writing to"), open_storage(s3).lock(wait_s=0):
        pass


def test_two_names_of_a_folder_share_its_lock(tmp_path):
    (tmp_path / "demos").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "demos")
    one, other = open_storage(tmp_path / "demos"), open_storage(tmp_path / "alias")
    with one.lock(wait_s=0), pytest.raises(UserError, match="is writing to"), other.lock(wait_s=0):
        pass


def test_a_staging_folder_lasts_as_long_as_its_block(tmp_path):
    with local_staging(tmp_path / "staging") as one, local_staging(tmp_path / "staging") as two:
        assert one != two and one.is_dir() and not list(one.iterdir())
        (one / "data").write_bytes(b"x")
    assert not one.exists() and not two.exists()
    assert list(tmp_path.iterdir()) == []  # nothing stays beside a store


def test_staging_folders_come_and_go_beside_each_other(tmp_path):
    """The last to leave deletes what holds them, while the next enters."""

    def come_and_go(number):
        for _ in range(200):
            with local_staging(tmp_path / "staging") as mine:
                (mine / "data").write_bytes(b"x")
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(come_and_go, range(8))) == list(range(8))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_deleted_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    make, failures = Path.mkdir, [FileExistsError(errno.EEXIST, "File exists")]  # as pathlib says then

    def mkdir(path, *arguments, **options):
        if failures:
            raise failures.pop()
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with local_staging(tmp_path / "staging") as mine:
        assert mine.is_dir() and not failures


STAGE = """
from embodied.datasets.storage.local import local_staging
with local_staging(pathlib.Path(root)) as folder:
    (folder / "data").write_bytes(b"x")
    pathlib.Path(ready).touch()
    time.sleep(600)
"""


def test_what_a_killed_process_staged_is_deleted_by_the_next(tmp_path, start):
    root, ready = tmp_path / "staging", tmp_path / "ready"
    with local_staging(root) as mine:
        other = start(STAGE, root=str(root), ready=str(ready))
        wait_for(ready, other)
        assert len([path for path in root.iterdir() if path.is_dir()]) == 2
        other.kill()
        other.join()
        with local_staging(root) as third:
            assert {path for path in root.iterdir() if path.is_dir()} == {mine, third}
