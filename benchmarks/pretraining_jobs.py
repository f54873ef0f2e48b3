"""What pretraining_table.py runs: stores that are collected, objectives that are pre-trained and looked at."""

from __future__ import annotations

import shutil
from argparse import Namespace
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from pretraining_processes import Crew
from pretraining_rows import BENCH_TASKS, RANDOM, SCENES
from rich.progress import Progress

from embodied.bench.policy_episodes import PRETRAINING_SEEDS
from embodied.cli.bench_plan import override_text
from embodied.cli.config import compose_config, groups
from embodied.cli.pretrain_sequence import wants_sequences
from embodied.cli.pretrain_video import wants_video
from embodied.core.errors import unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.core.run_folder import read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder

SIZE = {"image_size": 64, "patch_size": 8, "width": 192, "depth": 6, "heads": 3}
NEEDS = {"beit": "vq", "distill": "mae"}  # whose result the other one learns from
STORES_ONLY = ("siammae", "croco", "supervised")  # photographs have no partner, and no task for a label
OWN_DATA = "visual_atoms"
TASKS = (*BENCH_TASKS, "button-press-topdown-v3", "door-open-v3", "drawer-open-v3", "peg-insert-side-v3",
         "pick-place-v3", "push-v3", "reach-v3", "window-open-v3")  # fmt: skip
# First seeds, by scene: neither those of pretraining_data.sh nor of any training or evaluation.
DATA_SEEDS = dict(zip(SCENES, (PRETRAINING_SEEDS + 200_000, PRETRAINING_SEEDS + 250_000), strict=True))
PROBE_SEEDS = dict(zip(SCENES, (PRETRAINING_SEEDS + 300_000, PRETRAINING_SEEDS + 350_000), strict=True))


def chosen_objectives(names: str | None) -> list[str]:
    """Objectives on frames, with what they need; those that others wait for first, those that wait last.

    Raises:
        UsageError: there is none of that name, or it learns from sequences or clips.
    """
    known = [name for name in groups()["objective"] if _on_frames(name)]
    wanted = known if names is None else [name for name in names.split(",") if name]
    for name in wanted:
        if name not in known:
            raise unknown_name("objective on frames", name, known)
    wanted = [*wanted, *(NEEDS[name] for name in wanted if name in NEEDS)]
    return sorted(set(wanted), key=lambda name: (name not in NEEDS.values(), name in NEEDS, known.index(name)))


def _on_frames(objective: str) -> bool:
    config = compose_config("pretrain", [f"objective={objective}"])
    return not wants_sequences(config) and wants_video(config) is None


@dataclass(frozen=True)
class Collect:
    """One store of a task in a scene, see `embodied collect`; `expert` None is the suite's best."""

    store: Path
    task: str
    scene: str
    seed: int
    episodes: int
    expert: str | None
    crew: Crew
    progress: Progress

    @property
    def name(self) -> str:
        return f"{self.store.parent.name}-{self.store.name}"

    def __call__(self, earlier: dict[str, Future[str | None]]) -> str | None:
        if is_store(self.store) and len(EpisodeStore.open(self.store)) >= self.episodes:
            return None
        settings = [
            f"collect.expert={self.expert or 'null'}",
            "collect.only_successes=false",
            "collect.noise=0.2",
            "workers=0",
        ]
        settings += [f"task={self.task}", f"env.visuals={self.scene}", f"collect.seed={self.seed}"]
        settings += [f"episodes={self.episodes}", f"store={override_text(str(self.store))}"]
        reason = self.crew.run(self.name, ["collect", *settings])
        self.progress.console.print(f"{self.name}: {reason or 'collected'}", markup=False, highlight=False)
        return reason


def collect_jobs(options: Namespace, crew: Crew, progress: Progress) -> tuple[list[Collect], list[Collect]]:
    """Of the stores that are probed, and of those to train on; none of the latter with `--data`."""
    folder: Path = options.folder
    # Where the object moves in few episodes, R^2 of those held out says little: the expert moves it in nearly all.
    probed = [
        Collect(folder / "probes" / f"{task}-{scene}", task, scene, seed, options.probe_episodes, None, crew, progress)
        for scene, seed in PROBE_SEEDS.items()
        for task in BENCH_TASKS
    ]
    if options.data is not None:
        return probed, []
    varied = options.episodes // 2
    shares = dict(zip(SCENES, (options.episodes - varied, varied), strict=True))
    return probed, [
        Collect(folder / "data" / f"{task}-{scene}", task, scene, DATA_SEEDS[scene], count, "mixed", crew, progress)
        for scene, count in shares.items()
        for task in TASKS[: options.tasks]
    ]


@dataclass(frozen=True)
class Pretrain:
    """One objective: its encoder, and what the probes read out of it. `RANDOM` has its encoder already."""

    name: str
    options: Namespace
    probes: list[str]
    crew: Crew
    progress: Progress

    def __call__(self, earlier: dict[str, Future[str | None]]) -> str | None:
        need = NEEDS.get(self.name)
        if need is not None and earlier[need].result() is not None:
            return f"it needs {need}, which failed"
        reason = self._train() or self._inspect()
        self.progress.console.print(f"{self.name}: {reason or 'done'}", markup=False, highlight=False)
        return reason

    @property
    def run(self) -> Path:
        return run_of(self.options.folder, self.name)

    def _train(self) -> str | None:
        if (self.run / "encoder").is_dir():
            return None
        if self.run.is_dir() and not (self.run / "phases" / "run.json").is_file():
            shutil.rmtree(self.run)  # killed before there was anything to go on from
        bar = self.progress.add_task(self.name, total=self.options.steps)

        def watch() -> None:
            records = read_metrics(self.run / "metrics.jsonl")
            self.progress.update(bar, completed=records[-1]["step"] if records else 0)

        settings = pretrain_settings(self.name, self.options)
        reason = self.crew.run(self.name, ["pretrain", *settings, "resume=true"], watch=watch)
        self.progress.remove_task(bar)
        return reason

    def _inspect(self) -> str | None:
        to = self.options.folder / "inspect" / self.name
        if (to / "numbers.json").is_file():
            return None
        settings = [f"encoder={override_text(str(self.run / 'encoder'))}", f"data={override_text(self.probes)}"]
        settings += [f"to={override_text(str(to))}", f"target={ENVIRONMENT_STATE}", "device=cpu"]
        settings += [f"frames={self.options.probe_frames * len(self.probes)}"]
        return self.crew.run(f"{self.name}-inspect", ["inspect", *settings])


def run_of(folder: Path, name: str) -> Path:
    """The run folder of an objective."""
    return folder / "pretrain" / name.replace(" ", "_")


def pretrain_settings(name: str, options: Namespace) -> list[str]:
    """What `embodied pretrain` is told; the same for all but for what the objective cannot do without."""
    folder: Path = options.folder
    found = [f"objective={name}", f"run={override_text(str(run_of(folder, name)))}", "seed=0", "device=cpu"]
    found += [f"cache={override_text(str(folder / 'cache'))}", "panels_every=null"]
    found += [f"encoder.{key}={value}" for key, value in SIZE.items()]
    found += [f"train.steps={options.steps}", f"train.batch_size={options.batch}"]
    found += [f"train.warmup_steps={min(500, options.steps // 10)}", "train.checkpoint_every=250"]
    data = [str(options.data or folder / "data")]
    if options.photos is not None and name not in STORES_ONLY:
        data.append(str(options.photos))
    found += [] if name == OWN_DATA else [f"data={override_text(data)}"]
    if name == "beit":
        found.append(f"objective.tokenizer={override_text(str(run_of(folder, NEEDS[name])))}")
    elif name == "distill":
        found.append(f"objective.teacher={override_text(str(run_of(folder, NEEDS[name]) / 'encoder'))}")
    elif name == "croco":
        found.append("objective.pairing=time")  # the stores have one camera
    return found


def save_random(folder: Path) -> None:
    """The artifact of weights that nothing was learned by."""
    path = run_of(folder, RANDOM) / "encoder"
    if path.is_dir():
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, "objective"))
        encoder = ViTEncoder(**SIZE)
    save_encoder(encoder, path, card="# Random weights\n\nThe architecture of benchmarks/pretraining_table.py.\n")
