"""The work list: who may claim what, what becomes of what went wrong, and results as the record."""

import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from claiming import claim_all, claim_many, claim_one_and_stay

from embodied.bench import work_list
from embodied.bench.cells import RESULT_FORMAT, Cell, CellResult
from embodied.bench.claimants import LEASE_S, process_name
from embodied.bench.result_files import file_name, load_result, load_results, result_path, save_result
from embodied.bench.work_list import LIST, LOSSES, Item, WorkList
from embodied.core.errors import UserError


def items(*keys, **more):
    return [Item(key=key, **more) for key in keys]


def status_of(work, key):
    return work.states()[key][0]


def test_items_are_claimed_once_and_added_once(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(items("a", "b"))
        work.add(items("b", "c"))
        assert claim_all(work) == ["a", "b", "c"]
        work.finish("a", 1.5)
        assert work.seconds() == {"a": 1.5}
        assert status_of(work, "b") == "running"


def test_what_an_item_needs_is_what_was_said_last(tmp_path):
    with WorkList(tmp_path) as work:
        work.add([Item(key="demos", kind="collect"), Item(key="cell", needs="demos", store="demos")])
        work.give_back(claim_all(work))
    with WorkList(tmp_path) as work:  # as after the suite has changed
        work.add([Item(key="others", kind="collect"), Item(key="cell", needs="others", store="others")])
        assert claim_all(work) == ["others"]
        work.finish("others", 0)
        claimed = work.claim()
        assert claimed is not None and (claimed.key, claimed.needs, claimed.store) == ("cell", "others", "others")


def test_what_is_needed_comes_first_and_demonstrations_before_all(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(
            [Item(key="shifted", needs="static"), Item(key="static", needs="demos"), Item(key="demos", kind="collect")]
        )
        assert claim_all(work) == ["demos"]
        work.finish("demos", 0)
        assert claim_all(work) == ["static"]
        work.finish("static", 0)
        assert claim_all(work) == ["shifted"]


def test_a_worker_goes_on_with_its_encoder_and_others_take_another(tmp_path):
    with WorkList(tmp_path) as work:
        cells = [("a1", "a", "x"), ("a2", "a", "y"), ("a3", "a", "x"), ("b1", "b", "x")]
        work.add([Item(key=key, encoder=encoder, store=store) for key, encoder, store in cells])
        first = work.claim()
        assert first.key == "a1"
        assert work.claim().key == "b1"  # of an encoder that nobody is at
        assert work.claim(after=first).key == "a3"  # the same encoder and store


def test_a_failure_is_tried_once_more_and_takes_what_needs_it_along(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(
            [Item(key="demos", kind="collect"), Item(key="cell", needs="demos"), Item(key="shifted", needs="cell")]
        )
        assert work.claim().failures == 0
        assert work.fail("demos", "no luck") == []
        assert work.claim().failures == 1
        assert work.fail("demos", "no luck") == ["demos", "cell", "shifted"]
        assert work.states()["shifted"] == ("failed", "no luck")
        assert work.claim() is None


def test_a_lost_worker_is_no_failure_until_it_is_one_of_many(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(items("a"))
        for _ in range(LOSSES - 1):
            assert work.claim().failures == 0
            assert work.fail("a", "killed", lost=True) == []
        work.claim()
        assert work.fail("a", "killed", lost=True) == ["a"]


def test_what_was_given_back_waits_without_a_mark(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(items("a", "b"))
        work.finish(work.claim().key, 1)
        work.claim()
        work.give_back(["a", "b"])
        assert (status_of(work, "a"), status_of(work, "b")) == ("done", "waiting")
        assert work.claim().failures == 0


def test_only_what_this_process_added_is_claimed_by_it(tmp_path):
    with WorkList(tmp_path) as first, WorkList(tmp_path) as second:
        first.add(items("a", "b"))
        second.add(items("b", "c"))
        assert claim_all(second) == ["b", "c"]
        assert set(second.states()) == {"b", "c"}
        assert claim_all(first) == ["a"]


def test_what_a_killed_process_had_claimed_is_taken_up_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=claim_one_and_stay, args=(tmp_path, "a", ready), daemon=True)
    process.start()
    assert ready.wait(60)
    with WorkList(tmp_path) as work:
        work.add(items("a"))
        assert work.take_up_lost() == []  # it is alive
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert work.take_up_lost() == ["a"]
        assert work.claim().key == "a"


def test_another_host_is_trusted_until_its_heart_has_stopped(tmp_path):
    with WorkList(tmp_path, owner="elsewhere/12/345") as there, WorkList(tmp_path) as here:
        there.add(items("a"))
        here.add(items("a"))
        there.claim()
        assert here.take_up_lost() == []
        silent = time.time() - LEASE_S - 1
        there._connection.execute("UPDATE items SET beat = ?", (silent,))
        there.beat()
        assert here.take_up_lost() == []
        there._connection.execute("UPDATE items SET beat = ?", (silent,))
        assert here.take_up_lost() == ["a"]


def test_a_process_number_that_is_used_again_is_another_process(tmp_path):
    host, number, started = process_name().rsplit("/", 2)
    assert int(number) == os.getpid()
    with WorkList(tmp_path, owner=f"{host}/{number}/{int(started) - 1}") as before, WorkList(tmp_path) as work:
        before.add(items("a"))
        work.add(items("a"))
        before.claim()
        assert work.take_up_lost() == ["a"]


def test_processes_that_claim_at_once_share_without_overlap(tmp_path):
    keys = [f"item{number}" for number in range(120)]
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    processes = [context.Process(target=claim_many, args=(tmp_path, keys, found)) for _ in range(3)]
    for process in processes:
        process.start()
    claimed = [key for _ in processes for key in found.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(claimed) == sorted(keys)


def being_made(folder):
    """A list that another process has begun to make, and holds: here SQLite waits for nobody."""
    other = sqlite3.connect(folder / LIST, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (key TEXT)")
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_list_that_another_process_is_making_is_waited_for(tmp_path):
    other = being_made(tmp_path)
    threading.Timer(0.3, other.close).start()
    with WorkList(tmp_path) as work:
        work.add(items("a"))
        assert claim_all(work) == ["a"]


def test_a_list_that_stays_held_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(work_list, "BUSY_S", 0.2)
    with closing(being_made(tmp_path)), pytest.raises(UserError, match=r"another program has held .*work\.sqlite"):
        WorkList(tmp_path)


def test_the_list_follows_the_record(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(items("lost", "done", "failed", "forgotten"))
        claim_all(work)
        work.give_back(["lost", "done", "failed", "forgotten"])
        work.finish("forgotten", 1)  # the list says so, and there is no result
        work.agree_with(["done"], {"failed": "because"})
        states = {key: status for key, (status, _) in work.states().items()}
    assert states == {"lost": "waiting", "done": "done", "failed": "failed", "forgotten": "waiting"}


def test_demonstrations_that_failed_are_tried_again_for_new_cells(tmp_path):
    with WorkList(tmp_path) as work:
        demos = Item(key="demos", kind="collect")
        work.add([demos, Item(key="cell", needs="demos")])
        for _ in range(2):
            work.fail(work.claim().key, "no luck")
        work.agree_with([], {"cell": "no luck"})
        assert work.claim() is None
        work.add([demos, Item(key="new", needs="demos")])
        work.agree_with([], {"cell": "no luck"})
        assert work.claim().key == "demos"


def test_a_damaged_list_says_what_to_do(tmp_path):
    (tmp_path / LIST).write_bytes(b"no database at all, but longer than the header of one would have to be" * 20)
    with pytest.raises(UserError, match="delete it; the results are in"):
        WorkList(tmp_path)


def test_results_of_the_first_format_can_be_read(tmp_path):
    save_result(tmp_path, result(seconds={"train": 2.0}))
    path = result_path(tmp_path, result().cell.key)
    record = json.loads(path.read_text())
    for later in ("cpu_seconds", "sequential"):
        del record[later]
    path.write_text(json.dumps({**record, "format": 1}))
    (read,) = load_results(tmp_path)
    assert (read.seconds, read.cpu_seconds, read.sequential, read.stopped_early) == ({"train": 2.0}, {}, {}, False)
    assert read.record()["format"] == RESULT_FORMAT == 2


def test_a_list_of_an_older_version_goes_on(tmp_path):
    with WorkList(tmp_path) as work:
        work.add(items("a", team="x"))
        work._connection.execute("ALTER TABLE items DROP COLUMN team")
    with WorkList(tmp_path) as work:
        work.add(items("a", "b", team="x"))
        first = work.claim()
        assert (first.key, first.team) == ("a", "x")
        second = work.claim(beside=first)
        assert (second.key, second.team) == ("b", "x")


def test_what_may_be_done_together_is_claimed_beside(tmp_path):
    with WorkList(tmp_path) as work:
        work.add([Item(key=key, team=team) for key, team in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("c1", ""))])
        work.add([Item(key="a3", team="a", needs="b1"), Item(key="a4", team="a")])
        first = work.claim()
        assert work.waiting() == 5
        assert work.claim(beside=first).key == "a2"
        last = work.claim(beside=first)
        assert last.key == "a4"  # a3 has to wait for b1
        assert work.claim(beside=first) is None
        work.fail("a4", "killed", lost=True)
        assert work.claim(beside=first) is None  # that one goes alone now
        assert [work.claim().key for _ in range(3)] == ["b1", "c1", "a4"]


def result(**changes):
    cell = Cell(env="e", task="t", variant="static", controller="mlp", encoder="hf:a/b", demos=5, seed=0)
    return CellResult(cell=cell, protocol="0" * 16, suite="s", status="failed", **{"reason": "why", **changes})


def test_results_are_files_that_come_back(tmp_path):
    save_result(tmp_path, result())
    assert load_results(tmp_path) == [result()]
    assert load_result(result_path(tmp_path, result().cell.key)) == result()


def test_results_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no results of a benchmark"):
        load_results(tmp_path)
    save_result(tmp_path, result())
    path = result_path(tmp_path, result().cell.key)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": RESULT_FORMAT + 1}))
    with pytest.raises(UserError, match=f"{path.name}.*this version reads up to {RESULT_FORMAT}: upgrade embodied"):
        load_results(tmp_path)
    path.write_text("[1")
    with pytest.raises(UserError, match=r"damaged.*delete it, and its cell runs again"):
        load_results(tmp_path)
    path.write_text("[1]")
    with pytest.raises(UserError, match="no benchmark result"):
        load_results(tmp_path)


def test_names_of_files_are_plain_and_unique():
    keys = ["a/b:c/../d", "a/b-c/../d", "x" * 300, "x" * 301, "../../etc"]
    names = [file_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert all(Path(name).name == name and len(name) < 120 and not name.startswith(".") for name in names)
