"""A schedule over toy items."""

from toy_runners import MakeToyRunner, SilentWatcher

from embodied.bench.launchers.local import LocalCrew
from embodied.bench.schedule import Schedule
from embodied.bench.work_list import Item, WorkList


def run(folder, keys, *, size=2, survived=lambda key: False, crew=None):
    watcher, failed = SilentWatcher(), {}
    items = [key if isinstance(key, Item) else Item(key=key) for key in keys]
    with WorkList(folder) as work:
        work.add(items)
        tally = Schedule(
            work,
            items,
            crew or LocalCrew(MakeToyRunner(folder), size=size),
            survived=survived,
            failed=lambda keys, reason: failed.update(dict.fromkeys(keys, reason)),
            watcher=watcher,
        ).run()
        states = {key: status for key, (status, _) in work.states().items()}
    return states, failed, tally, watcher


def lines(folder, name):
    return (folder / name).read_text().splitlines()
