"""What a benchmark is made of: cells, the protocol they share, and the results that tables are made from.

A cell is one number: an encoder under a controller, trained with some demonstrations (or some steps) and a seed, and
tried on one task. A protocol is everything else that decides that number; its hash stands in every result, and tables
refuse to mix two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embodied.core.errors import UserError
from embodied.core.files import hash_json

RESULT_FORMAT = 1  # of CellResult's record; raise it when a reader of the older one would misread the newer


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One number of a table.

    Args:
        env: suite of simulators, `metaworld`.
        task: of that suite.
        variant: what the task looks like: `static`, `varied`, or `shift:<name>:<strength>` for a policy that was
            trained in the static scene and is tried under a visual shift.
        controller: its name in the suite's YAML: `mlp`, `conv`, `ppo`.
        encoder: as `load_encoder` takes it.
        demos: demonstrations to learn from; 0 for reinforcement learning.
        seed: of training and of the evaluation episodes.
    """

    env: str
    task: str
    variant: str
    controller: str
    encoder: str
    demos: int
    seed: int

    @property
    def key(self) -> str:
        """The cell's name in files and tables: all of its fields, unique within a benchmark."""
        return "/".join(str(value) for value in asdict(self).values())

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Env, task, variant and demonstrations: cells of one group differ in what is compared, and in seeds."""
        return self.env, self.task, self.variant, self.demos


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One evaluation episode.

    Args:
        seed: of the environment.
        success: whether the task was solved.
        score: in [0, 1], what the suite counts: its success rule, or dm_control's return / 1000.
        steps: the episode's length.
    """

    seed: int
    success: bool
    score: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What came of a cell.

    Args:
        cell: that ran.
        protocol: hash of the suite's protocol, see `protocol_hash`.
        suite: its name.
        status: `done` or `failed`.
        reason: of a failure, one line; empty otherwise.
        episodes: reported episodes of the final checkpoint, on seeds of their own.
        best_score: mean score of the best checkpoint on the selection episodes; None where none are tried. Never the
            primary number: a maximum over checkpoints is too high.
        curve: mean score on the selection episodes, by step of the checkpoints: [[step, score], ...].
        seconds: by phase: collect, encode, train, select, evaluate.
        device: `cpu` or the GPU's name.
        encoder_fingerprint: of the frozen encoder; empty for one that learns along.
        demos_fingerprint: of the demonstrations; empty without any.
        run: folder of the run (report.html, videos/rollout.mp4, plots/), relative to the benchmark's folder.
        versions: of the packages that decide a result.
    """

    cell: Cell
    protocol: str
    suite: str
    status: str
    reason: str = ""
    episodes: list[Episode] = field(default_factory=list)
    best_score: float | None = None
    curve: list[list[float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    encoder_fingerprint: str = ""
    demos_fingerprint: str = ""
    run: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean score of the reported episodes, in [0, 1].

        Raises:
            UserError: the cell failed.
        """
        if not self.episodes:
            raise UserError(f"{self.cell.key} has no episodes: {self.reason or 'it has not been tried'}")
        return sum(episode.score for episode in self.episodes) / len(self.episodes)

    def record(self) -> dict[str, Any]:
        """A JSON-able record, see `read_result`."""
        return {"format": RESULT_FORMAT, **asdict(self)}


def read_result(record: Mapping[str, Any]) -> CellResult:
    """The result in a record.

    Raises:
        UserError: a newer version of this project wrote it, or it is no result.
    """
    fields = dict(record)
    version = fields.pop("format", None)
    if isinstance(version, int) and version > RESULT_FORMAT:
        raise UserError(f"the result has format {version}, this version reads up to {RESULT_FORMAT}: upgrade embodied")
    if version != RESULT_FORMAT:
        raise UserError(f"no benchmark result: expected a format of {RESULT_FORMAT}, got {version!r}")
    try:
        cell = Cell(**fields.pop("cell"))
        episodes = [Episode(**episode) for episode in fields.pop("episodes")]
        return CellResult(cell=cell, episodes=episodes, **fields)
    except (KeyError, TypeError) as error:
        raise UserError(f"no benchmark result: {error}") from error


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Identity of a protocol, 16 hex digits.

    Args:
        protocol: everything that decides a cell's number beside the cell itself: tasks' options, controllers with all
            their settings, training, seeds of demonstrations, selection and report, the number of episodes. Not in it:
            encoders, how many seeds are run, device, workers, cache.
    """
    return hash_json({"format": RESULT_FORMAT, **protocol})[:16]
