"""Lets tests of this folder import `reference_trajectories`; returns what robosuite's large models took."""

import sys
from pathlib import Path

import pytest
from memory import give_memory_back

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _free_large_models(request):
    yield
    if "robosuite" in request.node.nodeid:
        give_memory_back()
