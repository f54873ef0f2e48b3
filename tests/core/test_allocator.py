"""Memory that is freed stays with the process, where the C library can be told so."""

import subprocess
import sys

import pytest

from embodied.cli import main as cli
from embodied.core.allocator import keep_freed_memory

FAULTS = """
import resource, sys
from embodied.core.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import numpy as np
def faults(blocks):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        np.empty(48 * 2**20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
print(faults(10))
"""


def faults(side):
    done = subprocess.run([sys.executable, "-c", FAULTS, side], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no such settings")
def test_a_large_block_is_used_again():
    assert faults("kept") < 0.1 * faults("usual")


def test_every_command_keeps_it(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append(True))
    assert cli.main(["list", "heads"]) == 0
    assert calls == [True]


def test_what_the_environment_chose_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
