"""Shared by all tests: offline, a cache of their own, one torch thread per process."""

import os
import random
import signal
import sys

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background by a script: processes inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Every test begins with the same random state, whatever ran before it: what fails once fails again."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("EMBODIED_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_priority(monkeypatch):
    """What a test runs in its own process must not make the tests after it wait for all other processes."""
    monkeypatch.setattr(os, "nice", lambda increment: 0)


def pytest_collection_modifyitems(items):
    """Tests marked `sim` are skipped, with the reason, where nothing can render."""
    if not any(item.get_closest_marker("sim") for item in items):
        return
    if "mujoco" in sys.modules and not os.environ.get("MUJOCO_GL"):
        raise pytest.UsageError("a test module imports MuJoCo while it is collected, before a GL library is chosen")
    from embodied.core.errors import UserError
    from embodied.envs.gl import select_gl_backend

    try:
        select_gl_backend()
    except UserError as error:
        for item in items:
            if item.get_closest_marker("sim"):
                item.add_marker(pytest.mark.skip(reason=str(error)))
