"""`embodied inspect`, whole: the default encoder on a tiny store; what goes wrong gives one message."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from square_store import write_square_store

from embodied.cli.main import main
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = [
    "Probes",
    "Features as colours",
    "Nearest neighbours",
    "Where the class token looks",
    "Where is this patch?",
]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    store = write_square_store(folder / "store")
    assert main(["inspect", f"data={store}", f"to={folder / 'out'}", "device=cpu"]) == 0
    return folder / "out"


def run(capsys, *arguments):
    code = main(["inspect", "device=cpu", *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, " ".join(captured.err.split())


def spoilt(folder, change):
    encoder = ViTEncoder(image_size=32, patch_size=8, width=24, depth=1, heads=2)
    with torch.no_grad():
        change(encoder.vit)
    save_encoder(encoder, folder, card="# spoilt\n")
    return folder


def test_page_holds_everything_and_asks_nobody(inspected):
    page = (inspected / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == [*SECTIONS, "Health", "Command"]
    assert "://" not in page
    assert page.count("data:image/") > 50
    assert "raw pixels 16x16" in page and "mean state" in page
    assert "No sign of collapse" in page
    assert "embodied inspect" in page


def test_numbers(inspected):
    numbers = json.loads((inspected / "numbers.json").read_text())
    (probe,) = numbers["probes"]
    assert [row["features"] for row in probe["rows"]][:2] == ["pooled", "cls"]
    assert (probe["frames"], probe["episodes"]) == (30, 5)
    assert numbers["complaints"] == [] and numbers["grid"] == [8, 8]
    mean = next(row for row in probe["rows"] if row["features"] == "mean state")
    assert mean["linear"]["r2"] < 0.05 < probe["rows"][2]["linear"]["r2"] <= 1
    assert set(numbers["seconds_per_frame"]) == {"1", "30"}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_it_without_complaint(inspected):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000", "--dump-dom"]
    script = """addEventListener("load", () => {
        document.body.dataset.broken = [...document.images].filter(one => !one.naturalWidth).length;
        const strip = document.querySelector("[data-cosines]");
        const maps = [...strip.querySelectorAll("figure:not(.query)")].map(each => each.querySelectorAll("img")[1]);
        const before = maps.map(map => map.src);
        const picture = strip.querySelector(".query img"), bounds = picture.getBoundingClientRect();
        picture.dispatchEvent(new MouseEvent("click", { clientX: bounds.right - 1, clientY: bounds.top + 1 }));
        const box = strip.querySelector(".box").style;
        const changed = maps.filter((map, number) => map.src != before[number]).length;
        document.body.dataset.clicked = [box.top, box.left, `${changed} of ${maps.length}`].join(" ");
    })"""
    page = inspected / "copy.html"
    page.write_text((inspected / "report.html").read_text().replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run([*command, f"file://{page}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'data-broken="0"' in done.stdout
    assert 'data-clicked="0% 87.5% 3 of 3"' in done.stdout  # the upper right one of 8x8 patches
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_photographs_beside_a_store_and_the_runs_reconstructions(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"<b>{number}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    encoder = spoilt(tmp_path / "run" / "encoder", lambda vit: None)
    (tmp_path / "run" / "plots").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "run" / "plots" / "reconstructions.png")
    data = f"data=[{photos},{write_square_store(tmp_path / 'store')}]"
    settings = [f"encoder=path={encoder}", data, f"to={tmp_path / 'out'}"]
    code, _, err = run(capsys, *settings)
    assert code == 1
    assert "broken.png cannot be read as an image" in err
    code, out, _ = run(capsys, *settings, "on_error=skip")
    assert code == 0
    assert "photos: no probe, it has no observation.state" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Reconstructions</h2>" in page
    assert "&lt;b&gt;0.png" in page and "<b>0.png" not in page


def test_an_encoder_without_class_token_and_a_single_episode(tmp_path, capsys):
    store = write_square_store(tmp_path / "store", episodes=1)
    code, out, _ = run(capsys, "encoder=pixels", f"data={store}", f"to={tmp_path / 'out'}")
    assert code == 0
    assert "it has 1 episodes" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No class token" in page and "no other episodes" in page


def test_what_goes_wrong_gives_one_message(tmp_path, capsys):
    store = write_square_store(tmp_path / "store")
    blind = write_square_store(tmp_path / "blind", keys=("observation.state",))
    nan = spoilt(tmp_path / "nan", lambda vit: vit.norm.weight.fill_(float("nan")))
    same = spoilt(tmp_path / "same", lambda vit: vit.norm.weight.zero_())
    for arguments, code, message in [
        ([], 2, "which frames?"),
        (["encoder=state", f"data={store}"], 2, "looks at no frames"),
        (["encoder=proprioception", f"data={store}"], 2, "looks at no frames"),
        ([f"data={blind}"], 1, "has no frames to look at"),
        ([f"data={tmp_path / 'absent'}"], 1, "no folder of images or episode store"),
        ([f"encoder=path={nan}", f"data={store}"], 1, "gives NaN or infinite features"),
        ([f"encoder=path={same}", f"data={store}"], 1, "gives constant features"),
        (["camera=frnt", f"data={store}"], 2, "did you mean front"),
        (["target=observation.sate", f"data={store}"], 2, "did you mean observation.state"),
        (["on_error=skp", f"data={store}"], 2, "did you mean skip"),
        (["frames=0", f"data={store}"], 2, "frames must be a whole number"),
        (["frames=1", f"data={store}"], 1, "one frame is not enough"),
        (["seed=null", f"data={store}"], 2, "seed must be a whole number, got null: leave it out for 0"),
        ([f"data={store}", f"to={tmp_path / 'nan' / 'config.yaml'}"], 2, "config.yaml is a file: choose a folder"),
    ]:
        got, _, err = run(capsys, f"to={tmp_path / 'out'}", *arguments)
        assert got == code, err
        assert message in err
    assert not (tmp_path / "out").exists()
