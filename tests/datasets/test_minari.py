"""Minari datasets come in as Minari itself reads them, from each of its formats; broken ones give one message."""

import json
import random
import shutil
import warnings

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.importers.minari import FORMAT, open_source
from embodied.datasets.store.episode_index import KeySpec

OBSERVATIONS = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (32, 40, 3), np.uint8),
        "gray": spaces.Box(0, 255, (32, 32), np.uint8),
        "tile": spaces.Box(0, 255, (4, 4, 3), np.uint8),
        "pair": spaces.Tuple((spaces.Box(-9, 9, (2, 3)), spaces.Discrete(5))),
        "bits": spaces.MultiBinary([2, 2]),
        "mission": spaces.Text(30),
    }
)
ACTIONS = spaces.Dict({"arm": spaces.Box(-1, 1, (2,)), "grip": spaces.MultiDiscrete([2, 3])})
KINDS = ("hdf5", "arrow", "parquet")
LENGTHS = (4, 7)


def buffer(number, steps):
    from minari.data_collector import EpisodeBuffer

    rng, rows = np.random.default_rng(number), steps + 1
    force = rng.normal(size=(rows, 2, 2))
    smooth = np.linspace(0, 200, 32 * 40 * 3).reshape(32, 40, 3)
    return EpisodeBuffer(
        id=number,
        seed=number + 10,
        options={"level": number},
        observations={
            "camera": (smooth + rng.integers(0, 50, (rows, 1, 1, 3))).astype(np.uint8),
            "gray": np.full((rows, 32, 32), number * 9 + 1, np.uint8),
            "tile": rng.integers(0, 256, (rows, 4, 4, 3), dtype=np.uint8),
            "pair": (rng.normal(size=(rows, 2, 3)).astype(np.float32), rng.integers(0, 5, rows)),
            "bits": rng.integers(0, 2, (rows, 2, 2), dtype=np.int8),
            "mission": [f"fetch {number}"] * rows,
        },
        actions={"arm": rng.normal(size=(steps, 2)).astype(np.float32), "grip": rng.integers(0, 2, (steps, 2))},
        rewards=rng.normal(size=steps),
        terminations=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, bool),
        infos={"success": [bool(number) and row == steps for row in range(rows)], "deep": {"force": force}},
    )


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Written by Minari: one of each format, all with the same episodes, and one of raw images."""
    import minari

    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about authors and links that a real dataset should have
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        for name in (*KINDS, "raw"):
            minari.create_dataset_from_buffers(
                f"arm/{name}-v0",
                [buffer(number, steps) for number, steps in enumerate(LENGTHS)],
                observation_space=OBSERVATIONS,
                action_space=ACTIONS,
                data_format="hdf5" if name == "raw" else name,
                jpeg_encoding=name != "raw",
                algorithm_name="random",
                author="someone",
            )
        minari.create_dataset_from_buffers("cart/pole-v0", [simple(0)], env="CartPole-v1", data_format="hdf5")
        infos = {"success": np.array([False, True, False, False])}  # Minari writes it as lists of one
        minari.create_dataset_from_buffers("cart/arrow-v0", [simple(0, infos)], env="CartPole-v1", data_format="arrow")
    return root


def simple(number, infos=None):
    from minari.data_collector import EpisodeBuffer

    return EpisodeBuffer(
        id=number,
        observations=np.zeros((4, 4), np.float32),
        actions=np.ones(3, np.int64),
        rewards=[1.0] * 3,
        terminations=[False] * 3,
        truncations=[False, False, True],
        infos=infos or {},
    )


@pytest.fixture
def copied(datasets, tmp_path):
    def copy(name):
        return shutil.copytree(datasets / "arm" / f"{name}-v0", tmp_path / name)

    return copy


def read_all(source):
    found = {}
    for episode in source.episodes():
        blocks = list(episode.blocks())
        found[episode.origin] = {key: np.concatenate([block[key] for block in blocks]) for key in source.keys}
    source.close()
    return found


def by_minari(root, name):
    """The same arrays as Minari gives them, T + 1 rows of observations and infos."""
    import minari

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        for episode in minari.load_dataset(f"arm/{name}-v0").iterate_episodes():
            observations = episode.observations
            yield {
                **{f"observations.{key}": observations[key] for key in ("camera", "gray", "tile", "bits")},
                "observations.pair.0": observations["pair"][0],
                "observations.pair.1": observations["pair"][1],
                "actions.arm": episode.actions["arm"],
                "actions.grip": episode.actions["grip"],
                "rewards": episode.rewards,
                "terminations": episode.terminations,
                "truncations": episode.truncations,
                "infos.success": episode.infos["success"],
            }


@pytest.mark.parametrize("name", [*KINDS, "raw"])
def test_episodes_are_as_minari_reads_them(datasets, name):
    path = datasets / "arm" / f"{name}-v0"
    assert FORMAT.recognizes(path) and FORMAT.recognizes(path / "data")
    source = open_source(path, fps=20)
    assert (source.fps, source.robot, len(source)) == (20.0, "", 2)
    lossy = "zstd" if name == "raw" else "jpeg"
    assert source.keys["observations.camera"] == KeySpec("uint8", (32, 40, 3), codec=lossy)
    assert source.keys["observations.gray"] == KeySpec("uint8", (32, 32))
    assert source.keys["observations.pair.1"] == KeySpec("int64", ())
    assert source.keys["infos.deep.force"] == KeySpec("float64", (2, 2))
    assert list(source.provenance["left_out"]) == ["observations.mission"]
    assert source.provenance["metadata"]["algorithm_name"] == "random"
    json.dumps(source.provenance, allow_nan=False)
    for number, episode in enumerate(source.episodes()):
        assert (episode.origin, episode.task, episode.seed) == (f"episode_{number}", f"fetch {number}", number + 10)
        assert episode.length == LENGTHS[number] and episode.success is bool(number)
        assert episode.notes["options"] == {"level": number}
    arrays = read_all(source)
    for number, expected in enumerate(by_minari(datasets, name)):
        for key, values in expected.items():
            got = arrays[f"episode_{number}"][key]
            assert got.dtype == values.dtype and np.array_equal(got, values[: LENGTHS[number]]), key
        forces = buffer(number, LENGTHS[number]).infos["deep"]["force"]
        assert np.array_equal(arrays[f"episode_{number}"]["infos.deep.force"], forces[:-1])


@pytest.mark.parametrize("name", KINDS)
def test_long_episodes_come_in_blocks(datasets, name, monkeypatch):
    path = datasets / "arm" / f"{name}-v0"
    whole = read_all(open_source(path, fps=20))
    monkeypatch.setattr("embodied.datasets.importers.foreign_keys.BLOCK_BYTES", 15_000)  # about three frames
    source = open_source(path, fps=20)
    lengths = [len(block["rewards"]) for block in list(source.episodes())[1].blocks()]
    assert max(lengths) <= 3 and sum(lengths) == 7
    for origin, arrays in read_all(source).items():
        for key, values in arrays.items():
            assert np.array_equal(values, whole[origin][key])


def test_the_rate_is_asked_for_and_the_environment_is_the_task(datasets):
    path = datasets / "cart" / "pole-v0"
    with pytest.raises(UsageError, match=r"does not record the rate.*options\.fps=30"):
        open_source(path)
    source = open_source(path, fps=50)
    (episode,) = source.episodes()
    assert episode.task == "CartPole-v1" and episode.success is None
    assert source.keys["observations"] == KeySpec("float32", (4,)) and source.keys["actions"] == KeySpec("int64", ())


def test_flags_that_are_stored_as_lists_of_one_are_flags(datasets):
    source = open_source(datasets / "cart" / "arrow-v0", fps=50)
    assert source.keys["infos.success"] == KeySpec("bool", ())
    (episode,) = source.episodes()
    assert episode.success is True
    assert np.array_equal(read_all(source)["episode_0"]["infos.success"], [False, True, False])


def test_a_rate_in_the_environments_arguments_is_taken(copied):
    path = copied("hdf5")
    change_metadata(path, env_spec=json.dumps({"id": "Reach-v0", "kwargs": {"render_fps": 25}}))
    assert open_source(path).fps == 25


def change_metadata(path, **changes):
    file = path / "data" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_infos_that_not_all_episodes_have_are_left_out(copied, caplog):
    path = copied("hdf5")
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/infos/deep"]
    source = open_source(path, fps=20)
    assert source.provenance["left_out"]["infos.deep.force"].startswith("missing in episode_1")
    assert "left out infos.deep.force" in caplog.text and len(read_all(source)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_episodes": 3}, "says it has 3 episodes and has 2"),
        ({"data_format": "lance"}, "data_format 'lance' is unknown"),
        ({"env_spec": "{"}, "env_spec in metadata.json is not JSON"),
        ({"observation_space": 5}, "must be JSON in a text"),
    ],
)
def test_metadata_that_contradicts_the_data_is_refused(copied, changes, message):
    path = copied("hdf5")
    change_metadata(path, **changes)
    with pytest.raises(UserError, match=message):
        open_source(path, fps=20)


def test_spaces_that_lie_do_no_harm(copied):
    path = copied("arrow")
    change_metadata(path, observation_space=json.dumps({"type": "Dict", "subspaces": {"tile": {"shape": [1 << 60]}}}))
    source = open_source(path, fps=20)
    assert source.keys["observations.tile"].shape == (48,) and len(read_all(source)) == 2


@pytest.mark.parametrize("name", KINDS)
def test_an_episode_without_a_part_is_refused_and_the_other_is_not(copied, name):
    path = copied(name)
    if name == "hdf5":
        with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
            del file["episode_1/actions/arm"]
    else:
        next((path / "data" / "1").glob("part-0.*")).write_bytes(b"nothing")
    first, second = open_source(path, fps=20).episodes()
    assert list(first.blocks())
    with pytest.raises(UserError, match=r"actions.arm of episode_1 is missing|damaged"):
        list(second.blocks())


def test_what_is_no_dataset_is_not_recognised(tmp_path, monkeypatch, copied):
    assert not FORMAT.recognizes(tmp_path) and not FORMAT.recognizes(tmp_path / "none")
    with pytest.raises(UserError, match="holds no Minari dataset"):
        open_source(tmp_path, fps=20)
    path = copied("hdf5")
    (path / "data" / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"before 0\.5"):
        open_source(path, fps=20)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[hdf5\]"):
        open_source(copied("raw"), fps=20)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_datasets_give_one_message_or_read(copied, name):
    path = copied(name)
    change_metadata(path, **{f"{kind}_space": shrunk(path, f"{kind}_space") for kind in ("observation", "action")})
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    whole = {file: file.read_bytes() for file in files}
    outcomes = {"read": 0, "refused": 0}
    for seed in range(40):
        rng = random.Random(seed)
        file = rng.choice(files)
        data = bytearray(whole[file])
        if seed % 4 == 0:
            data = data[: rng.randrange(len(data))]
        for _ in range(rng.choice([1, 4, 30]) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        try:
            read_all(open_source(path, fps=10))
            outcomes["read"] += 1
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
        file.write_bytes(whole[file])
    assert min(outcomes.values()) > 1


def shrunk(path, name):
    """A serialised space without its bounds, which would take most of the flipped bytes."""

    def without(space):
        inner = space.get("subspaces")
        if isinstance(inner, dict):
            return {**space, "subspaces": {key: without(value) for key, value in inner.items()}}
        if isinstance(inner, list):
            return {**space, "subspaces": [without(value) for value in inner]}
        return {key: value for key, value in space.items() if key not in ("low", "high", "charset")}

    return json.dumps(without(json.loads(json.loads((path / "data" / "metadata.json").read_text())[name])))
