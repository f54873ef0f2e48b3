"""The run folder: everything one run leaves behind, and what it needs to go on after a crash."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json, write_json, write_text

PACKAGES = (
    "embodied-learning",
    "torch",
    "mujoco",
    "metaworld",
    "dm-control",
    "robosuite",
    "gymnasium-robotics",
    "gymnasium",
    "zarr",
    "numpy",
    "transformers",
)


class RunFolder:
    """Paths and records of one run.

    Layout: `config.yaml`, `environment.txt`, `metrics.jsonl`, `summary.json`, `report.html`, `checkpoints/`,
    `videos/`, `plots/`, and `phases/<name>.json`, the result of each phase that is done.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, *, config_yaml: str, config_hash: str, command: str) -> RunFolder:
        """Make the folder; `config_hash` decides which folder `resume` may continue."""
        run = cls(path)
        for folder in (run.checkpoints, run.path / "videos", run.path / "plots", run.path / "phases"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"the run folder {path} cannot be made ({error.strerror}): choose another root="
                ) from error
        write_text(run.path / "environment.txt", environment_text())
        write_text(run.path / "config.yaml", config_yaml)
        write_json(run.path / "phases" / "run.json", {"config_hash": config_hash, "command": command})
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A folder that `create` made.

        Raises:
            UserError: there is none at `path`.
        """
        run = cls(path)
        if not (run.path / "phases" / "run.json").is_file() or not (run.path / "config.yaml").is_file():
            raise UserError(f"{run.path} is not a run folder: it has no config.yaml written by embodied train")
        return run

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def config_hash(self) -> str:
        return str(json.loads((self.path / "phases" / "run.json").read_text())["config_hash"])

    @property
    def command(self) -> str:
        return str(json.loads((self.path / "phases" / "run.json").read_text())["command"])

    def require(self, config_hash: str) -> None:
        """Refuse to continue a run that was made with other settings."""
        if self.config_hash != config_hash:
            raise UsageError(
                f"{self.path} was made with other settings (see its config.yaml): repeat its command, "
                f"{self.command}, with resume=true, or choose another run="
            )

    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json, None before the run has ended."""
        return json.loads(self.summary_path.read_text(encoding="utf-8")) if self.summary_path.is_file() else None

    def result(self, phase: str) -> Any | None:
        """The recorded result of a phase, None while it is not done."""
        path = self.path / "phases" / f"{phase}.json"
        return json.loads(path.read_text())["result"] if path.is_file() else None

    def finish(self, phase: str, result: Any, seconds: float) -> None:
        """Record a phase as done, at once."""
        write_json(self.path / "phases" / f"{phase}.json", {"result": result, "seconds": round(seconds, 3)})

    def phase_seconds(self) -> dict[str, float]:
        """Seconds of each phase that is done, of the attempt that finished it."""
        found = {}
        for path in sorted((self.path / "phases").glob("*.json"), key=lambda item: item.stat().st_mtime_ns):
            record = json.loads(path.read_text())
            if "seconds" in record:
                found[path.stem] = float(record["seconds"])
        return found

    @contextmanager
    def metrics(self, *, keep: int) -> Iterator[MetricsFile]:
        """Append to metrics.jsonl, after dropping records of steps above `keep` that a crashed attempt left."""
        path = self.path / "metrics.jsonl"
        records = [record for record in read_metrics(path) if int(record.get("step", 0)) <= keep]
        write_text(path, "".join(json.dumps(record) + "\n" for record in records))
        with open(path, "a", encoding="utf-8") as handle:
            yield MetricsFile(handle)


class MetricsFile:
    """Writes one JSON object per line, each flushed."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __call__(self, record: Mapping[str, float | int | str]) -> None:
        self._handle.write(json.dumps(dict(record)) + "\n")
        self._handle.flush()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line torn by a crash is left out."""
    path = Path(path)
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def next_run_path(root: str | Path, name: str) -> Path:
    """`root/name`, or `root/name-2`, `-3`, ... when that is taken."""
    root = Path(root)
    candidate, number = root / name, 1
    while candidate.exists():
        number += 1
        candidate = root / f"{name}-{number}"
    return candidate


def latest_run(root: str | Path, name: str, config_hash: str) -> Path | None:
    """The newest of `root/name`, `root/name-2`, ... that was made with this configuration."""
    found = []
    for path in Path(root).glob(f"{name}*"):
        record = path / "phases" / "run.json"
        if record.is_file() and RunFolder(path).config_hash == config_hash:
            found.append((record.stat().st_mtime_ns, path))
    return max(found)[1] if found else None


def config_hash(config: Mapping[str, Any]) -> str:
    """Identity of a configuration, for finding the run to resume."""
    return hash_json(dict(config))


def versions() -> dict[str, str]:
    """Installed versions of what decides a result."""
    return {"python": platform.python_version(), **{package: version_of(package) for package in PACKAGES}}


def version_of(package: str) -> str:
    """Of a distribution, or "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def git_revision(folder: str | Path) -> str:
    """The commit of a checkout, with `+changes` when files differ from it; empty outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def environment_text() -> str:
    """The text of environment.txt: versions, git revision, machine."""
    lines = [f"{name} {version}" for name, version in versions().items()]
    lines.append(f"git {git_revision(Path(__file__).parent) or 'no checkout'}")
    lines.append(f"platform {platform.platform()}")
    lines.append(f"cpus {os.cpu_count()}")
    return "\n".join(lines) + "\n"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = monotonic()

    @property
    def seconds(self) -> float:
        return monotonic() - self._start
