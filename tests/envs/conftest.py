"""Lets tests of this folder import `reference_trajectories`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
