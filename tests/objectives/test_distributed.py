"""What processes exchange, with two of them: shares of different sizes, and a queue that is the same in both."""

import os
import socket
import subprocess
import sys

import torch
from torch.nn import functional as F

from embodied.objectives.parts.distributed import gather_from_processes
from embodied.objectives.parts.queue import Queue

ROWS = torch.arange(15.0).view(5, 3) + 1  # a batch of five: three for the first process, two for the second


def filled_queue(parts):
    """Its vectors, with their classes in a fourth column."""
    queue = Queue(7, 3, labelled=True).train()
    with torch.no_grad():
        queue.value.zero_()
    for part in parts:
        queue.note(F.normalize(part, dim=1), part[:, 0].long())
    queue.update()
    return torch.cat([queue.value, queue.labels[:, None]], dim=1)


def test_alone_there_is_only_the_own_share():
    (share,) = gather_from_processes(ROWS)
    assert share is ROWS


def test_two_processes_gather_unequal_shares_in_order():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen([sys.executable, __file__], env={**os.environ, **address, "RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


if __name__ == "__main__":  # one of the two processes
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    own = ROWS[rank::2]
    shares = gather_from_processes(own)
    assert [len(share) for share in shares] == [3, 2]
    assert torch.equal(torch.cat(shares), torch.cat([ROWS[0::2], ROWS[1::2]]))
    ours = filled_queue([own, 10 * ROWS[rank : rank + 1]])
    torch.distributed.destroy_process_group()
    # alone, with the same parts in the order that both processes keep: part by part, first process first
    assert torch.equal(ours, filled_queue([ROWS[0::2], ROWS[1::2], 10 * ROWS[:1], 10 * ROWS[1:2]]))
