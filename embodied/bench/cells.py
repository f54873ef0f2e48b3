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

# Of CellResult's record; raise it when a reader of the older one would misread or refuse the newer. Fields that came
# later are optional: 2 has cpu_seconds and sequential.
RESULT_FORMAT = 2
SEED = "{seed}"  # in the name of an encoder of which every seed has weights of its own: the cell's seed
PROTOCOL_FORMAT = 1  # of what `protocol_hash` is made of: a number of its own, since results of two hashes never mix


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One number of a table.

    Args:
        env: suite of simulators, `metaworld`.
        task: of that suite.
        variant: what the task looks like: `static`, `varied`, or `shift:<name>:<strength>` for a policy that was
            trained in the static scene and is tried under a visual shift, `with:<option>=<value>` for one that is
            tried with other options of the environment.
        controller: its name in the suite's YAML: `mlp`, `conv`, `ppo`.
        encoder: as `load_encoder` takes it, with `{seed}` where the seed stands in it.
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
    def weights(self) -> str:
        """The encoder with the seed in its place."""
        return self.encoder.replace(SEED, str(self.seed))

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Env, task, variant and demonstrations: cells of one group differ in what is compared, and in seeds."""
        return self.env, self.task, self.variant, self.demos


def cell_of(key: str) -> Cell:
    """The cell of a key, whose encoder may hold slashes of its own."""
    env, task, variant, controller, *encoder, demos, seed = key.split("/")
    return Cell(
        env=env,
        task=task,
        variant=variant,
        controller=controller,
        encoder="/".join(encoder),
        demos=int(demos),
        seed=int(seed),
    )


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
        seconds: by phase: collect, encode, train, select, evaluate. On a GPU these are the seconds that it was held.
        cpu_seconds: by phase, of the worker and its simulator processes; empty where it was not measured.
        sequential: of a cell whose evaluation may stop early, see `SequentialTest.record`, and how many episodes were
            `planned`; empty for a fixed number of episodes.
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
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    sequential: dict[str, Any] = field(default_factory=dict)
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

    @property
    def episode_scores(self) -> list[float]:
        """Of the reported episodes, in the order of their seeds."""
        return [episode.score for episode in self.episodes]

    @property
    def stopped_early(self) -> bool:
        """Whether a sequential test ended the evaluation before all planned episodes."""
        return bool(self.sequential) and len(self.episodes) < int(self.sequential["planned"])

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
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"no benchmark result: expected a format of 1 to {RESULT_FORMAT}, got {version!r}")
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
    return hash_json({"format": PROTOCOL_FORMAT, **protocol})[:16]
