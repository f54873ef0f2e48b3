"""The same numbers while an encoder trains: they see a planted collapse, and change nothing."""

import numpy as np
import pytest
import torch
from square_store import write_square_store
from torch import nn

from embodied.bench.inspection.monitor import InspectionMonitor
from embodied.bench.inspection.samples import read_sample
from embodied.cli.main import main
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import read_metrics
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.training.pretrain import pretrain

SETTINGS = [
    *("encoder.image_size=32", "encoder.patch_size=8", "encoder.width=24", "encoder.depth=1", "encoder.heads=3"),
    *("objective.decoder_width=16", "objective.decoder_depth=1", "objective.decoder_heads=2", "device=cpu"),
    *("train.steps=4", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=2"),
]


class Collapsing(nn.Module):
    """Learns next to nothing, and at step 3 loses everything: its last norm gives a constant."""

    def __init__(self, planted):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = ViTEncoder(image_size=16, patch_size=8, width=24, depth=1, heads=2)
        self.planted = planted

    def forward(self, batch, generator):
        _, out = self.encoder(self.encoder.preprocess(batch["images"]))
        return out["pooled"].square().mean(), {}

    def after_step(self, step, steps):
        if step == 3:
            with torch.no_grad():
                self.planted(self.encoder.vit.norm)


def constant(norm):
    norm.weight.zero_()
    norm.bias.fill_(1.0)


def one_direction(norm):
    norm.weight.zero_()
    norm.weight[0] = 1.0


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (constant, "next to equal"),
        (one_direction, "1.0 directions only"),
        (lambda norm: norm.bias.fill_(float("nan")), "NaN or infinite features"),
    ],
)
def test_a_planted_collapse_is_loud(tmp_path, planted, said):
    parts = read_sample(
        [str(write_square_store(tmp_path / "store"))], frames=30, camera=None, target="observation.state"
    )
    lines, records = [], []
    monitor = InspectionMonitor(parts, every=1, target="observation.state", warn=lines.append)
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    pretrain(
        Collapsing(planted),
        lambda step: frames,
        steps=3,
        learning_rate=1e-5,
        weight_decay=0.0,
        warmup_steps=0,
        clip=1.0,
        precision="fp32",
        seed=0,
        checkpoint_folder=tmp_path,
        checkpoint_every=100,
        device=torch.device("cpu"),
        log=records.append,
        reporter=SilentReporter(),
        monitors=[monitor],
    )
    assert lines and all(line.startswith("step 3: COLLAPSED") for line in lines)  # steps 1 and 2 were healthy
    assert any(said in line for line in lines)
    looks = [record for record in records if "loss" not in record]
    assert [record["step"] for record in looks] == [1, 2, 3]
    assert looks[0]["spread"] > 0.01
    flat = [record["probe_flat_patches"] for record in looks if "rankme" in record]
    assert 0.2 < flat[0] < 0.8 and len(set(flat)) == 1  # all but the square's border: of the frames, not the encoder
    assert set(looks[0]) >= {"rankme", "rank_centred", "mean_cosine", "linear_r2_pooled", "knn_r2_cls"}


def test_pretrain_logs_the_probes_and_learns_the_same(tmp_path, capsys):
    store = write_square_store(tmp_path / "store")
    run, plain = tmp_path / "run", tmp_path / "plain"
    probed = [f"probe={store}", "probe_every=2", "probe_frames=30"]
    assert main(["pretrain", *SETTINGS, f"data={store}", f"run={plain}"]) == 0
    capsys.readouterr()
    assert main(["pretrain", *SETTINGS, f"data={store}", *probed, f"run={run}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "probe: 16x16 raw pixels give linear_r2 " in out
    assert "WARNING" not in out
    looks = [record for record in read_metrics(run / "metrics.jsonl") if "linear_r2_pooled" in record]
    assert [record["step"] for record in looks] == [0, 2, 4]
    assert all(np.isfinite(list(record.values())).all() for record in looks)
    prints = {fingerprint(load_encoder(str(folder / "encoder"))) for folder in (run, plain)}
    assert len(prints) == 1  # looking changes nothing
    card = (run / "encoder" / "README.md").read_text()
    assert "loss" in card and "linear_r2_pooled" in card
    assert main(["pretrain", *SETTINGS, f"data={store}", f"run={run}", "resume=true"]) == 0  # a probe is no other run


def test_a_run_that_broke_before_its_first_checkpoint_has_one_start(tmp_path):
    store = write_square_store(tmp_path / "store")
    diverging = ["train.learning_rate=1e6", "train.clip=1e9", "train.steps=20", "train.checkpoint_every=20"]
    given = ["pretrain", *SETTINGS, *diverging, f"data={store}", f"probe={store}", f"run={tmp_path / 'run'}"]
    assert main(given) == main([*given, "resume=true"]) == 1
    assert [record["step"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [0]


def test_a_probe_without_a_state_gives_health_only(tmp_path, capsys):
    store = write_square_store(tmp_path / "store", keys=("observation.images.front",))
    assert main(["pretrain", *SETTINGS, f"data={store}", f"probe={store}", f"run={tmp_path / 'run'}"]) == 0
    assert "health only, it has no observation.state" in " ".join(capsys.readouterr().out.split())
    looks = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "rankme" in record]
    assert [record["step"] for record in looks] == [0, 4]  # at the end too, however seldom else
    assert not any("r2" in name for record in looks for name in record)


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["probe=absent"], 1, "no folder of images or episode store"),
        (["probe_every=0"], 2, "probe_every must be a whole number"),
        (["probe_target=observation.sate"], 2, "did you mean observation.state"),
    ],
)
def test_mistakes(tmp_path, capsys, settings, code, message):
    store = write_square_store(tmp_path / "store")
    given = ["pretrain", *SETTINGS, f"data={store}", f"probe={store}", *settings, f"root={tmp_path / 'runs'}"]
    assert main(given) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()
