"""Processes that claim from a work list."""

import time

from embodied.bench.work_list import Item, WorkList


def claim_all(work):
    """Keys of all that can be claimed now."""
    keys = []
    while (item := work.claim()) is not None:
        keys.append(item.key)
    return keys


def claim_one_and_stay(folder, key, ready):
    work = WorkList(folder)
    work.add([Item(key=key)])
    work.claim()
    ready.set()
    time.sleep(60)


def claim_many(folder, keys, found):
    with WorkList(folder) as work:
        work.add([Item(key=key) for key in keys])
        mine = claim_all(work)
    found.put(mine)
