"""`embodied data`: imports, looks, checks and edits stores; every mistake is one message."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from processes import started

from embodied.cli.data import DATA_VERBS, quoted
from embodied.cli.episode_numbers import episode_numbers
from embodied.cli.main import main
from embodied.core.errors import UsageError, UserError
from embodied.core.files import write_json
from embodied.datasets import formats
from embodied.datasets.episode_source import Format, SourceEpisode
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

IMAGE = "observation.images.front"
KEYS = {
    IMAGE: KeySpec("uint8", (32, 24, 3)),
    "observation.state": KeySpec("float32", (3,), names=("x", "y", "z")),
    "action": KeySpec("float32", (2,)),
    "observation.depth.front": KeySpec("float32", (32, 24)),
}


def frames(seed, length):
    rng = np.random.default_rng(seed)
    depth = rng.normal(size=(length, 32, 24)).astype(np.float32)
    depth[:, 0] = np.nan
    return {
        IMAGE: rng.integers(0, 256, (length, 32, 24, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "observation.depth.front": depth,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Only to be read."""
    path = tmp_path_factory.mktemp("stores") / "demos"
    with EpisodeStore.create(path, keys=KEYS, fps=10, robot="arm") as opened:
        for seed in range(4):
            opened.append(frames(seed, 12 + seed), task="open" if seed % 2 else "close", seed=seed, success=seed > 1)
    return EpisodeStore.open(path)


class Folder:
    """A foreign dataset for these tests: a folder with `fake.json`, the lengths of its episodes."""

    keys = MappingProxyType(
        {
            "cam_rgb": KeySpec("uint8", (16, 16, 3), codec="jpeg"),
            "actions": KeySpec("float64", (2,)),
            "odd one": KeySpec("int64", ()),
        }
    )
    fps, robot, provenance = 10.0, "arm", MappingProxyType({})

    def __init__(self, path, scale):
        self.lengths, self.scale = json.loads((path / "fake.json").read_text()), scale

    def __len__(self):
        return len(self.lengths)

    def episodes(self):
        for number, length in enumerate(self.lengths):
            yield SourceEpisode(origin=f"e{number}", task="t", blocks=lambda n=length: self.blocks(n), length=length)

    def blocks(self, length):
        actions = np.full((length, 2), float(self.scale))
        yield {"cam_rgb": np.zeros((length, 16, 16, 3), np.uint8), "actions": actions, "odd one": np.arange(length)}

    def close(self):
        pass


def open_fake(path, *, scale=1):
    return Folder(path, scale)


def export_fake(store, path, *, reporter, tag="x"):
    write_json(path, [tag, len(store)])


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The path of a dataset in a format `fake` that only this test has."""
    form = Format("fake", "for tests", lambda path: (path / "fake.json").is_file())
    modules = {"fake": SimpleNamespace(FORMAT=form, open_source=open_fake, export=export_fake)}
    monkeypatch.setattr(formats, "_modules", lambda direction: modules)
    (tmp_path / "robot").mkdir()
    write_json(tmp_path / "robot" / "fake.json", [3, 5, 2])
    return tmp_path / "robot"


def run(capsys, *arguments):
    code = main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return code, " ".join(captured.out.split()), captured.err


def test_help_names_every_command_and_setting(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(f"embodied data {name}" in out for name in DATA_VERBS)
    for name, verb in DATA_VERBS.items():
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and verb.help in out and f"data {name}" in out
    assert "on_error: raise" in run(capsys, "import", "-h")[1]


def test_every_format_is_listed(capsys):
    assert main(["list", "formats", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {*formats.formats("import"), *formats.formats("export")}
    for direction in formats.DIRECTIONS:
        for name, form in formats.formats(direction).items():
            assert form.name == name and direction in listed[name]
            formats.described_options(direction, name)


def test_the_documentation_has_every_format_and_command():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for direction in formats.DIRECTIONS:
        for name in formats.formats(direction):
            assert f"| `{name}` |" in text
    assert all(f"`{name}`" in text or f"embodied data {name}" in text for name in DATA_VERBS)


def test_import_recognises_maps_and_goes_on(capsys, tmp_path, fake):
    code, out, _ = run(capsys, "import", fake, tmp_path / "s", "map={odd one: count}", "episodes=0,2")
    assert code == 0 and "fake, 3 episodes, 10 frames/s, robot arm" in out
    assert "cam_rgb: observation.images.cam # uint8 [T, 16, 16, 3], jpeg" in out
    assert "actions: action # float64 [T, 2] -> float32 [T, 2]" in out and f"writes to {tmp_path / 's'}" in out
    assert EpisodeStore.open(tmp_path / "s").lengths == [3, 2]
    code, out, _ = run(capsys, "import", f"source={fake}", f"to={tmp_path / 's'}", "map={odd one: count}")
    assert code == 0 and "✓ 1 episodes, 5 frames" in out and "2 were there already" in out
    store = EpisodeStore.open(tmp_path / "s")
    assert list(store.keys) == ["observation.images.cam", "action", "count"]
    assert store.keys["observation.images.cam"].codec == "jpeg"


def test_the_proposal_can_be_written_edited_and_used(capsys, tmp_path, fake):
    file = tmp_path / "map.yaml"
    code, out, _ = run(capsys, "import", fake, f"map_file={file}", "dry_run=true")
    assert code == 0 and "dry run: nothing was imported" in out and not (tmp_path / "s").exists()
    assert yaml.safe_load(file.read_text()) == {
        "cam_rgb": "observation.images.cam",
        "actions": "action",
        "odd one": "odd.one",
    }
    file.write_text(file.read_text().replace("odd.one", "null").replace("images.cam ", "images.wrist "))
    assert run(capsys, "import", fake, tmp_path / "s", f"map_file={file}", "images=zstd")[0] == 0
    store = EpisodeStore.open(tmp_path / "s")
    assert list(store.keys) == ["observation.images.wrist", "action"]
    assert store.keys["observation.images.wrist"].codec == "zstd"


def test_options_reach_the_format(capsys, tmp_path, fake):
    assert run(capsys, "import", fake, tmp_path / "s", "options.scale=3", "episodes=0")[0] == 0
    assert EpisodeStore.open(tmp_path / "s").read_episode(0)["action"].max() == 3
    code, _, err = run(capsys, "import", fake, tmp_path / "s", "options.scale=4")
    assert code == 2 and "was made with options={'scale': 3}, not {'scale': 4}" in err


def test_export_writes_what_the_format_writes(capsys, tmp_path, fake, store):
    assert run(capsys, "export", store.path, tmp_path / "out", "format=fake", "options.tag=y")[0] == 0
    assert json.loads((tmp_path / "out").read_text()) == ["y", 4]
    code, _, err = run(capsys, "export", store.path, tmp_path / "out", "format=fake")
    assert code == 2 and "exists already" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["improt"], 2, "unknown command of embodied data 'improt': did you mean import?"),
        (["import"], 2, "what to import?: source=path"),
        (["import", "{fake}"], 2, "where to write the store?: to=path"),
        (["import", "{fake}", "s", "extra"], 2, "'extra' is one path too many"),
        (["import", "{fake}", "s", "fromat=fake"], 2, "unknown setting of embodied data import 'fromat'"),
        (["import", "{fake}", "s", "format=fka"], 2, "unknown format 'fka'"),
        (["import", "{fake}", "s", "fps=5"], 2, "unknown option of format=fake 'fps': choose one of scale"),
        (["import", "{fake}", "s", "options.scael=1"], 2, "unknown option of format=fake 'scael': did you mean scale?"),
        (["import", "{fake}", "s", "map={acton: action}"], 2, "unknown key of the source 'acton': did you mean action"),
        (["import", "{fake}", "s", "map={actions: cam_rgb, cam_rgb: cam_rgb}"], 2, "both become cam_rgb"),
        (["import", "{fake}", "s", "map={actions"], 2, "map cannot be read as YAML"),
        (["import", "{fake}", "s", "map=[a]"], 2, "map must be like '{foreign_key: name}'"),
        (["import", "{fake}", "s", "map={actions: observation.images.a}"], 2, "takes uint8 [H, W, 3], and actions is"),
        (["import", "{fake}", "s", "images=jpg"], 2, "unknown images 'jpg': did you mean jpeg?"),
        (["import", "{fake}", "s", "unfamiliar=droop"], 2, "did you mean drop?"),
        (["import", "{fake}", "s", "on_error=ignore"], 2, "on_error must be raise or skip"),
        (["import", "{fake}", "s", "episodes=7"], 2, "there is no episode 7, only 0 to 2"),
        (["import", "{fake}", "s", "episodes=x"], 2, "'x' is no episode number"),
        (["import", "absent", "s"], 1, "there is no file or folder at absent"),
        (["import", "{store}", "s"], 2, "is an episode store already"),
        (["import", "{tmp}", "s"], 2, "is not recognised: say format=, one of fake"),
        (["export", "{store}", "s"], 2, "which format?"),
        (["export", "{store}", "s", "format=fkae"], 2, "unknown format 'fkae': did you mean fake?"),
        (["export", "{store}", "s", "format=fake", "options.tga=1"], 2, "did you mean tag?"),
        (["info"], 2, "which store?: store=path"),
        (["info", "absent"], 1, "no episode store at absent"),
        (["info", "{fake}"], 1, "is not an episode store"),
        (["info", "{store}", "--jsn"], 2, "unknown option '--jsn'"),
        (["stats", "{store}", "keys=acton"], 2, "unknown key 'acton': did you mean action?"),
        (["merge", "{store}"], 2, "where to write the merged store?"),
        (["merge", "{store}", "to=s"], 2, "two stores or more"),
        (["merge", "to=s"], 2, "which stores?"),
        (["split", "{store}", "s"], 2, "how to split?"),
        (["split", "{store}", "s", "fractions=0.5"], 2, "fractions must be like"),
        (["split", "{store}", "s", "fractions=[0.9,0.9]"], 2, "add up to at most 1"),
        (["split", "{store}", "s", "episodes={a: 0:3, b: 2:4}"], 2, "episode 2 is in a and in b"),
        (["split", "{store}", "s", "episodes={../a: 0:3}"], 2, "cannot be"),
        (["filter", "{store}", "s", "success=maybe"], 2, "success must be true or false"),
        (["filter", "{store}", "s", "task=nothing"], 1, "its tasks are 'close', 'open'"),
        (["filter", "{store}", "s", "min_length=0"], 2, "min_length must be a whole number of at least 1"),
        (["view", "{store}", "s", "episode=9"], 2, "there is no episode 9, only 0 to 3"),
        (["view", "{store}", "s", "columns=0"], 2, "columns must be a whole number of at least 1"),
        (["view", "{store}", "s", "spawn=true"], 2, "needs a display"),
    ],
)
def test_mistakes_give_one_message_and_write_nothing(
    capsys, tmp_path, monkeypatch, fake, store, arguments, code, message
):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    places = {"{fake}": fake, "{store}": store.path, "{tmp}": tmp_path}
    got, _, err = run(capsys, *(places.get(argument, argument) for argument in arguments))
    assert got == code and message in " ".join(err.split())
    assert not (tmp_path / "cwd" / "s").exists()


def test_info_for_machines_and_people(capsys, store):
    assert main(["data", "info", str(store.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["episodes"], facts["frames"], facts["fps"], facts["robot"]) == (4, 54, 10.0, "arm")
    assert facts["keys"]["observation.state"] == {
        "dtype": "float32",
        "shape": [3],
        "codec": "zstd",
        "names": ["x", "y", "z"],
    }
    assert facts["success"] == {"true": 2, "false": 2, "unknown": 0} and facts["tasks"] == {"close": 2, "open": 2}
    assert facts["lengths"] == {"min": 12, "median": 13.5, "max": 15} and facts["fingerprint"] == store.fingerprint()
    files = [path for path in store.path.rglob("*") if path.is_file()]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    code, out, _ = run(capsys, "info", f"store={store.path}")
    assert code == 0
    assert "4 (2 successful, 2 failed)" in out and "54 (5.4 s at 10 frames/s), 12 to 15 per episode" in out
    assert "observation.state float32 [3] zstd x, y, z" in out


def test_stats_show_the_stores_statistics(capsys, store):
    assert main(["data", "stats", str(store.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(KEYS) and len(found[IMAGE]["mean"]) == 3
    everything = np.concatenate([store.read_episode(number)["action"] for number in range(4)])
    assert np.allclose(found["action"]["mean"], everything.mean(axis=0))
    assert np.allclose(found["action"]["q50"], np.quantile(everything, 0.5, axis=0), atol=0.1)
    code, out, _ = run(capsys, "stats", store.path, "keys=observation.s*")
    assert code == 0 and "observation.state float32 [T, 3]" in out and "action" not in out and "q99" in out


def test_validate_names_the_damage(capsys, tmp_path, store):
    path = shutil.copytree(store.path, tmp_path / "copy")
    code, out, _ = run(capsys, "validate", path)
    assert code == 0 and "4 episodes, 54 frames are whole" in out
    victim = next(file for file in (path / "action" / "c").rglob("*") if file.is_file())
    data = bytearray(victim.read_bytes())
    data[3] ^= 1
    victim.write_bytes(data)
    code, out, _ = run(capsys, "validate", path)
    assert code == 1 and "key action" in out and "episode 0" in out and "chunk 0" in out
    assert main(["data", "validate", str(path), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["key"] for row in rows} == {"action"}


def test_validate_reads_a_store_whose_index_is_damaged(capsys, tmp_path, store):
    path = shutil.copytree(store.path, tmp_path / "copy")
    victim = sorted((path / "_index").glob("*.jsonl"))[1]
    victim.write_bytes(victim.read_bytes().replace(b'"', b"'", 1))
    code, out, _ = run(capsys, "validate", path)
    assert code == 1 and f"damaged episode 1: {path}/_index/{victim.name}" in out


def test_pack_makes_one_file_that_is_read_in_place(capsys, tmp_path, store):
    code, out, _ = run(capsys, "pack", store.path, tmp_path / "demos.zip")
    assert code == 0 and "4 episodes, 54 frames" in out
    assert EpisodeStore.open(tmp_path / "demos.zip").fingerprint() == store.fingerprint()
    code, _, err = run(capsys, "pack", store.path, tmp_path / "demos.zip")
    assert code == 2 and "exists already" in err
    code, _, err = run(capsys, "pack", store.path, tmp_path / "demos.tar")
    assert code == 2 and "must end in .zip" in err


def test_merge_split_and_filter(capsys, tmp_path, store):
    parts = tmp_path / "parts"
    code, out, _ = run(capsys, "split", store.path, parts, "fractions={train: 0.75, val: 0.25}", "seed=1")
    assert code == 0 and "3 episodes" in out
    train, val = EpisodeStore.open(parts / "train"), EpisodeStore.open(parts / "val")
    seeds = [info.seed for part in (train, val) for info in part.episodes]
    assert sorted(seeds) == [0, 1, 2, 3] and val.provenance["edit"]["part"] == "val"
    assert run(capsys, "merge", parts / "train", parts / "val", f"to={tmp_path / 'all'}")[0] == 0
    assert [info.seed for info in EpisodeStore.open(tmp_path / "all").episodes] == seeds
    assert run(capsys, "filter", store.path, tmp_path / "good", "success=true", "task=CL*", "keys=[action]")[0] == 0
    good = EpisodeStore.open(tmp_path / "good")
    assert [info.seed for info in good.episodes] == [2] and list(good.keys) == ["action"]
    assert run(capsys, "split", store.path, tmp_path / "by", "episodes={a: 0:2, b: [3]}")[0] == 0
    assert [info.seed for info in EpisodeStore.open(tmp_path / "by" / "b").episodes] == [3]
    assert "embodied data filter of demos" in run(capsys, "info", tmp_path / "good")[1]


def test_a_half_made_store_says_so(capsys, tmp_path, store):
    provenance = {"edit": {"verb": "merge", "parents": [], "episodes": 9}}
    EpisodeStore.create(tmp_path / "half", keys=KEYS, fps=10, provenance=provenance).close()
    assert "incomplete 9 episodes are meant to be here" in run(capsys, "info", tmp_path / "half")[1]


def test_view_draws_a_sheet_and_a_video(capsys, tmp_path, store):
    code, out, _ = run(capsys, "view", store.path, tmp_path / "v", "episode=1:3", "columns=4")
    assert code == 0 and f"writes to {tmp_path / 'v'}" in out
    for number in (1, 2):
        with Image.open(tmp_path / "v" / f"episode_{number:06d}.png") as sheet:
            pixels = np.asarray(sheet)
        assert pixels.shape[1] >= 900 and pixels.std() > 10
        with av.open(str(tmp_path / "v" / f"episode_{number:06d}.mp4")) as video:
            assert video.streams.video[0].average_rate == 10
            assert sum(1 for _ in video.decode(video=0)) == 12 + number


def test_view_writes_a_rerun_recording(capsys, tmp_path, store):
    pytest.importorskip("rerun")
    code, _, _ = run(capsys, "view", store.path, tmp_path / "v", "rerun=true", "video=false", "curves=false")
    assert code == 0
    data = (tmp_path / "v" / "episode_000000.rrd").read_bytes()
    assert data[:3] == b"RRF" and len(data) > 5000
    assert not (tmp_path / "v" / "episode_000000.mp4").exists()


def test_an_episode_without_pictures_is_drawn_too(capsys, tmp_path):
    keys = {"action": KEYS["action"]}
    with EpisodeStore.create(tmp_path / "s", keys=keys, fps=10) as store:
        store.append({"action": np.zeros((1, 2), np.float32)}, task="a $task$ with \n odd [bold]letters", seed=0)
    assert run(capsys, "view", tmp_path / "s", tmp_path / "v")[0] == 0


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (3, [3]),
        ("-1", [9]),
        ("0:3", [0, 1, 2]),
        ("8:", [8, 9]),
        ("[0:2,5,-1]", [0, 1, 5, 9]),
        (["7:99", 1], [1, 7, 8, 9]),
    ],
)
def test_episode_numbers(value, numbers):
    assert episode_numbers(value, 10) == numbers


@pytest.mark.parametrize("value", ["10", "-11", "5:2", "1.5", "", "a:b"])
def test_episode_numbers_that_are_none(value):
    with pytest.raises(UsageError):
        episode_numbers(value, 10)


@pytest.mark.parametrize(
    "text", ["a b", "it's", "x=1,2", "{a..b}.tar", "back\\slash", "end\\", "end\\\\", "\\'", "ü*?[]"]
)
def test_any_text_survives_hydras_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"source={quoted(text)}").value() == text


def test_options_of_a_format_are_its_keyword_arguments():
    assert formats.option_defaults(export_fake) == {"tag": "x"}
    with pytest.raises(UsageError, match=r"needs options\.must=\.\.\."):
        formats.checked_options(lambda path, *, must: None, {}, "format=fake")
    with pytest.raises(UsageError, match="takes no options"):
        formats.checked_options(lambda path: None, {"a": 1}, "format=fake")


def committed(path):
    """Episodes of the store that another process is making."""
    try:
        return len(EpisodeStore.open(path))
    except UserError:
        return 0


def test_an_import_killed_through_the_command_goes_on(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "demo.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        for number in range(6):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = 120
            demo["actions"] = rng.uniform(-1, 1, (120, 7))
            demo["rewards"], demo["dones"] = np.zeros(120), np.zeros(120, np.int64)
            demo["obs/agentview_image"] = rng.integers(0, 256, (120, 84, 84, 3), dtype=np.uint8)
            demo["obs/robot0_eef_pos"] = rng.normal(size=(120, 3))
    command = [sys.executable, "-m", "embodied", "data", "import", str(path)]
    with started([*command, str(tmp_path / "s")], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not committed(tmp_path / "s") and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert 1 <= len(EpisodeStore.open(tmp_path / "s")) < 6
    for name in ("s", "whole"):
        assert main(["data", "import", str(path), str(tmp_path / name)]) == 0
    finished, whole = EpisodeStore.open(tmp_path / "s"), EpisodeStore.open(tmp_path / "whole")
    assert finished.fingerprint() == whole.fingerprint() and len(finished) == 6
    assert [info.origin for info in finished.episodes] == [f"demo_{number}" for number in range(6)]
