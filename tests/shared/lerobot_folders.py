"""Committed folders that lerobot wrote, how to read them, and how to break a copy."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied.core.errors import UserError
from embodied.datasets.importers.lerobot import open_source

FIXTURES = Path(__file__).parents[1] / "datasets/fixtures"
NAMES = ("lerobot_v3_video", "lerobot_v3_image", "lerobot_v2_video")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = [7, 5, 6]
TASKS = ["pick up the block", "open the drawer"]


def read(source):
    """All arrays over all frames, and the episodes."""
    episodes = list(source.episodes())
    blocks = [block for episode in episodes for block in episode.blocks()]
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}, episodes


def edit(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_rows(path, change):
    """Rewrite a parquet file after `change(columns)`, a dict of lists."""
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def failure(root, **options):
    """The message with which opening or reading a dataset ends."""
    with pytest.raises(UserError) as error:
        source = open_source(root, **options)
        try:
            read(source)
        finally:
            source.close()
    return str(error.value)
