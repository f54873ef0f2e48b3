"""Benchmark results out of thin air, for tests of tables and pages: nothing is trained."""

from dataclasses import replace

import numpy as np

from embodied.bench.cells import Cell, CellResult, Episode

TASKS = ("hammer-v3", "assembly-v3", "bin-picking-v3", "button-press-topdown-v3")
SKILLS = {  # success rate by encoder
    "state": 0.95,
    "hf:acme/vit-small": 0.7,
    "default": 0.6,
    "pixels": 0.5,
    "random": 0.3,
    "scratch": 0.35,
    "proprioception": 0.05,
}
ONE_CONTROLLER = ("state", "pixels", "proprioception", "scratch")
VERSIONS = {"torch": "2.13.0", "mujoco": "3.3.0"}


def episodes_of(rate, count, seed):
    """Exactly round(rate * count) successes."""
    return [
        Episode(
            seed=2_000_000 + 1000 * seed + number,
            success=number < round(rate * count),
            score=float(number < round(rate * count)),
            steps=100 + number,
        )
        for number in range(count)
    ]


def result(encoder="default", task="hammer-v3", seed=0, *, rate=0.5, episodes=20, **changes):
    """A cell that is done; `changes` are fields of Cell and CellResult."""
    names = {"env": "metaworld", "variant": "static", "controller": "mlp", "demos": 25}
    names |= {name: changes.pop(name) for name in list(changes) if name in names}
    cell = Cell(task=task, encoder=encoder, seed=seed, **names)
    fields = {
        "protocol": "0123456789abcdef",
        "suite": "quick",
        "status": "done",
        "episodes": episodes_of(rate, episodes, seed),
        "best_score": min(1.0, rate + 0.05),
        "curve": [[500 * step, rate * step / 4] for step in range(1, 5)],
        "seconds": {"encode": 3.0, "train": 8.0, "select": 12.0, "evaluate": 20.0},
        "device": "cpu",
        "demos_fingerprint": f"demos-{task}-{cell.variant}-{cell.demos}",
        "encoder_fingerprint": "" if encoder in ("scratch", "random") else f"weights-{encoder}",
        "run": f"runs/{encoder.replace(':', '-').replace('/', '-')}-{cell.controller}-{task}-{cell.variant}-{seed}",
        "versions": VERSIONS,
    }
    return CellResult(cell=cell, **{**fields, **changes})


def failed(encoder="default", task="hammer-v3", seed=0, *, reason="the features are constant", **changes):
    """A cell that failed."""
    done = result(encoder, task, seed, **changes)
    return replace(done, status="failed", reason=reason, episodes=[], best_score=None, curve=[], run="")


def benchmark(*, seeds=5, variants=("static", "varied"), controllers=("mlp", "conv"), demos=(25,), tasks=TASKS):
    """A whole benchmark in which better encoders are better, tasks differ, and seeds have luck."""
    random = np.random.default_rng(0)
    found = []
    for variant in variants:
        for number, task in enumerate(tasks):
            for encoder, skill in SKILLS.items():
                shown = 1.0 if variant == "static" else 0.95 if encoder == "state" else 0.45
                for controller in ("mlp",) if encoder in ONE_CONTROLLER else controllers:
                    for count in demos:
                        base = shown * skill + 0.08 * (controller == "conv") - 0.06 * number + 0.002 * (count - 25)
                        for seed in range(seeds):
                            rate = float(np.clip(base + random.normal(0, 0.08), 0, 1))
                            names = {"variant": variant, "controller": controller, "demos": count}
                            found.append(result(encoder, task, seed, rate=rate, **names))
    return found


def early_stopped(results, *, planned=60, threshold=0.5):
    """The same benchmark with evaluations that may stop early; its hash is another one."""
    test = {"half_width": None, "threshold": threshold, "confidence": 0.95, "planned": planned}
    return [replace(each, sequential=test, protocol="5e9" * 5 + "0") for each in results]
