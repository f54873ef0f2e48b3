"""Work ahead of its taker: in order, bounded, in one thread, and over when the taker is."""

import threading
import time
from contextlib import closing

import pytest

from embodied.datasets.loading.read_ahead import run_ahead


def names():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("run-ahead")}


class Numbers:
    """Counts; notes in which threads it ran and whether it was closed."""

    def __init__(self, stop, broken_at=None):
        self.stop, self.broken_at = stop, broken_at
        self.made, self.threads, self.closed = 0, set(), False

    def items(self):
        try:
            for number in range(self.stop):
                self.threads.add(threading.get_ident())
                if number == self.broken_at:
                    raise ValueError("number 3 is torn")
                self.made += 1
                yield number
        finally:
            self.threads.add(threading.get_ident())
            self.closed = True


def test_items_come_in_order_from_one_other_thread():
    numbers = Numbers(50)
    assert list(run_ahead(numbers.items(), most=2)) == list(range(50))
    assert numbers.closed and len(numbers.threads) == 1 and threading.get_ident() not in numbers.threads
    assert not names()


def test_it_works_on_while_an_item_is_used_but_not_far():
    numbers = Numbers(50)
    with closing(run_ahead(numbers.items(), most=3)) as items:
        assert next(items) == 0
        end = time.monotonic() + 10
        while numbers.made < 4 and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.02)
        assert numbers.made == 4  # the one that was taken and three more
        assert next(items) == 1
    assert numbers.closed and len(numbers.threads) == 1 and numbers.made <= 5 and not names()


def test_an_error_comes_where_its_item_would_have():
    numbers = Numbers(50, broken_at=3)
    items = run_ahead(numbers.items(), most=5)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="number 3 is torn"):
        next(items)
    assert numbers.closed and not names()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_taker_that_stops_ends_the_thread(error):
    numbers = Numbers(50)
    with pytest.raises(error), closing(run_ahead(numbers.items(), most=2)) as items:
        next(items)
        raise error
    assert numbers.closed and len(numbers.threads) == 1 and not names()
