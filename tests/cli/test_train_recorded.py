"""`embodied train data=<store> env=none`: from recordings to a policy that a robot takes, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recorded_store import ACTION, FRONT, STATE, recorded_robot, write_recorded

from embodied.bench.open_loop import HeldOut, errors, held_out_episodes, replay, trivial
from embodied.cli.config import NOT_PART_OF_THE_RUN, compose_config, given_names, identity
from embodied.cli.deploy import instruction
from embodied.cli.main import main
from embodied.cli.recorded_fits import names_apart
from embodied.cli.recorded_settings import make_recorded, notes, resolved
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.demonstrations import require_finite
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.policies.artifact import load_policy
from embodied.real_robot.policy.needs import check_fits, needs_of

CPU = torch.device("cpu")


def arguments(tmp_path, store, *more):
    places = [f"root={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", f"data={store}", "env=none", "device=cpu"]
    small = ["encoder=pixels", "train.steps=20", "train.batch_size=8", "train.checkpoints=2", "policy.hidden=[8]"]
    return ["train", *places, *small, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def store(place):
    return write_recorded(place / "arm")


@pytest.fixture(scope="module")
def run(place, store):
    assert main(arguments(place, store)) == 0
    return place / "runs" / "arm-pixels-mlp-seed0"


def test_it_is_judged_on_whole_episodes_that_it_did_not_learn_from(run):
    summary = json.loads((run / "summary.json").read_text())
    data, found = summary["data"], summary["open_loop"]
    assert len(data["trained"]) == summary["demos"] == 3 and found["episodes"] == data["held_out"]
    assert sorted(data["trained"] + data["held_out"]) == [0, 1, 2, 3]
    assert found["names"] == ["one", "two"] and found["frames"] == 9 and len(found["policy"]["by_axis"]) == 2
    assert set(found["trivial"]) == {"mean action", "last action again", "present state held"}
    assert [row["step"] for row in summary["best_checkpoint"]["checkpoints"]] == [10, 20]
    assert found["policy"]["in_deviations"] == summary["best_checkpoint"]["checkpoints"][-1]["in_deviations"]
    assert "success_rate" not in summary and all((run / path).is_file() for path in summary["artifacts"].values())
    report = (run / "report.html").read_text()
    assert "Open-loop errors are no success rate" in report and report.count("data:image/png;base64") == 2


def test_what_a_policy_learned_from_recordings_fits_the_robot_that_made_them(run):
    needs = needs_of(*load_policy(run / "checkpoints" / "step_000020.safetensors", device=CPU))
    assert (needs.keys, needs.image_size, needs.state_dim, needs.hz) == ((FRONT,), 24, 2, 20.0)
    assert needs.actions.names == needs.state_names == ("one", "two")
    check_fits(needs, recorded_robot())
    turned = {
        "rates": {"policy_hz": 30},
        "cameras": {"front": {"topic": "/a", "type": "sensor_msgs/msg/Image", "input": "x"}},
    }
    with pytest.raises(UsageError) as error:
        check_fits(needs, recorded_robot(**turned))
    assert "it learned from 20 frames/s, and the robot's policy_hz is 30" in str(error.value)
    assert f"it sees {FRONT}" in str(error.value)
    other = recorded_robot()
    object.__setattr__(other, "state", ("two", "one"))
    with pytest.raises(UsageError, match="it reads one, two, and the robot gives two, one"):
        check_fits(needs, other)
    check_fits(needs, other, same_names=False)


def test_what_is_replayed_from_the_cache_is_what_acts_on_squares(run, place, store):
    config = compose_config("train", arguments(place, store)[1:])
    experiment = make_recorded(resolved(config, given_names(arguments(place, store)[1:])))
    policy, _ = load_policy(run / "checkpoints" / "step_000020.safetensors", device=CPU)
    (episode,) = held_out_episodes(experiment, SilentReporter())
    (cached,) = replay(policy, [episode], device=CPU)
    recorded = EpisodeStore.open(store).read_episode(episode.number)
    carry, acted = policy.initial(1), []
    for frame, state in zip(recorded[FRONT], recorded[STATE], strict=True):
        seen = {FRONT: torch.from_numpy(frame[None, :, 4:28].copy()), STATE: torch.from_numpy(state[None])}
        carry, plan = policy.act(carry, seen)
        acted.append(policy.normalizer.within_bounds(plan[0, 0]).numpy())
    np.testing.assert_allclose(cached, np.stack(acted), atol=1e-5)


def test_the_run_goes_on_only_with_the_same_data(run, place, store, tmp_path, capsys):
    assert main(arguments(place, store, "resume=true")) == 0
    assert not (place / "runs" / "arm-pixels-mlp-seed0-2").exists()
    copy = write_recorded(tmp_path / "arm")
    assert main(arguments(tmp_path, copy)) == 0
    opened = EpisodeStore.open(copy, mode="a")
    opened.append(opened.read_episode(0), task="lift")
    assert main(arguments(tmp_path, copy, "resume=true", "demos=4")) == 1
    assert "has changed since" in capsys.readouterr().err


def test_a_policy_without_a_simulator_is_exported_but_not_evaluated(run, capsys):
    assert main(["evaluate", f"run={run}"]) == 1
    assert "there is no simulator to evaluate it in" in capsys.readouterr().err
    assert main(["deploy", f"run={run}", "robot=sim"]) == 2
    assert "write simulate=false" in capsys.readouterr().err
    assert main(["export", f"run={run}", "format=torch"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["policy.head=act", "policy.head_options={width: 16, heads: 2, hidden: 32}", "policy.chunk=4"],
        ["policy.head=diffusion", "policy.head_options={network_options: {channels: [8,16], groups: 4}, levels: 8}"],
        ["encoder=scratch", "env.image_size=16"],
        ["encoder=proprioception", "demos=2"],
    ],
)
def test_other_policies_learn_from_recordings_too(options, store, tmp_path):
    assert main(arguments(tmp_path, store, *options)) == 0
    (run,) = (tmp_path / "runs").iterdir()
    found = json.loads((run / "summary.json").read_text())["open_loop"]
    assert np.isfinite(found["policy"]["in_deviations"])
    if "demos=2" in options:
        assert set(json.loads((run / "summary.json").read_text())["data"]["trained"] + found["episodes"]) == {0, 1}


def test_without_data_a_run_is_the_one_it_was():
    config = compose_config("train", [])
    before = {str(name) for name in config} - {"data", "holdout", "mixing", *NOT_PART_OF_THE_RUN}
    assert set(identity(config)) == before  # the settings that there were when runs without data= were made
    recorded = identity(compose_config("train", ["data=stores/arm", "env=none", "holdout=0.2"]))
    assert set(recorded) == {*before, "data", "holdout"}
    assert (recorded["data"], recorded["holdout"]) == ("stores/arm", 0.2)


def made(kind, tmp_path, store):
    """Where a mistaken `data` points."""
    folder = tmp_path / kind
    if kind == "lerobot":
        assert main(["data", "export", str(store), "format=lerobot", f"to={folder}"]) == 0
    elif kind == "images":
        from PIL import Image

        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    elif kind == "empty":
        write_recorded(folder, episodes=0)
    elif kind == "foreign":
        folder.mkdir()
        (folder / "episode_0.hdf5").write_bytes(b"no robomimic")
    elif kind == "torn":
        (write_recorded(folder) / "zarr.json").write_text("{")
    elif kind == "single":
        write_recorded(folder, episodes=1)
    elif kind == "still":
        write_recorded(folder, leave_out=[ACTION])
    elif kind == "blind":
        write_recorded(folder, leave_out=[FRONT])
    elif kind == "stateless":
        write_recorded(folder, leave_out=[STATE])
    elif kind == "untold":
        write_recorded(folder, task="")
    return folder


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("nowhere", [], "no episode store at"),
        (
            "lerobot",
            [],
            "is a dataset of the format lerobot, not an episode store: import it with embodied data import",
        ),
        ("images", [], "is a folder of images"),
        ("foreign", [], "is not recognised: say format=, one of diffusion_policy_zarr, images, lerobot"),
        ("foreign", [], "format=<format> makes one of it; what has none of these formats is written with Episode"),
        ("torn", [], "zarr.json"),
        ("empty", [], "holds no episodes"),
        ("still", [], "holds no 'action'"),
        ("single", [], "there is only one: record another one"),
        ("blind", [], "holds no images for the encoder to see: write encoder=proprioception"),
        ("stateless", ["encoder=proprioception"], "encoder=proprioception reads proprioception"),
        ("untold", ["policy.instruction=wordllama"], "episode 0 (and 3 more) has no instruction"),
        (None, ["encoder=state"], "encoder=state reads the simulator's state"),
        (None, ["camera=frnt"], "did you mean front?"),
        (None, ["demos=9"], "holds 4 episodes"),
        (None, ["holdout=1"], "holdout must be in (0, 1)"),
        (None, ["collect.noise=0.1"], "with data= nothing is collected"),
        (None, ["episodes=3"], "env=none has no simulator"),
        (None, ["task=hammer-v3"], "env=none has no simulator"),
        (None, ["env.horizon=3"], "unknown setting"),
        (None, ["policy=ppo"], "policies of behaviour cloning learn from recordings"),
        (None, ["data=null"], "env=none is for embodied train data=<episode store>"),
        (None, ["data=[a]"], "or of several robots a list"),
        (None, ["data=3"], "data must be an episode store"),
        (None, ["mixing=uniform"], "mixing=uniform is for several robots"),
        (None, ["data=null", "env=metaworld", "mixing=uniform"], "mixing is for recorded demonstrations"),
        (None, ["env=metaworld", "holdout=0.1"], "holdout is for env=none"),
    ],
)
def test_mistakes_are_told_in_one_message(kind, more, message, store, tmp_path, capsys):
    data = store if kind is None else made(kind, tmp_path, store)
    capsys.readouterr()
    small = ["encoder=pixels", "policy.hidden=[8]"] if not any("policy=" in word for word in more) else []
    given = [f"data={data}", "env=none", *small, f"root={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}"]
    names = {word.split("=")[0] for word in more}
    kept = [word for word in given if word.split("=")[0] not in names]
    assert main(["train", *kept, *more]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ") and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_all_cameras_are_looked_through_and_what_is_not_known_is_said(tmp_path):
    store = write_recorded(tmp_path / "arm", cameras=("front", "wrist"), names=(), leave_out=[STATE])
    given = arguments(tmp_path, store)[1:]
    experiment = make_recorded(resolved(compose_config("train", given), given_names(given)))
    assert experiment.env["camera"] == ["front", "wrist"] and experiment.env["image_size"] == 24
    assert instruction(compose_config("deploy", []), experiment.env) == "lift"
    _, pose, unnamed = notes(experiment)
    assert "sees nothing of the robot's own pose" in pose and "does not name its actions" in unnamed


def test_a_number_that_is_none_is_named_by_its_episode_in_the_store():
    values = np.zeros((5, 2), np.float32)
    values[4, 1] = np.nan
    with pytest.raises(UserError, match="action is not a finite number in episode 7, step 1"):
        require_finite("action", values, [3, 2], numbers=[5, 7])


def test_trivial_predictors_look_as_often_as_the_policy():
    action = np.arange(10, dtype=np.float32)[:, None]
    episode = HeldOut(0, {STATE: [action + 0.5]}, action, "")
    experiment = SimpleNamespace(
        assembly=SimpleNamespace(recurrent=False, ensemble=None, execute=4),
        episode_store=SimpleNamespace(keys={STATE: KeySpec("float32", (1,)), ACTION: KeySpec("float32", (1,))}),
    )
    found = {name: said[0][:, 0].tolist() for name, said in trivial(experiment, [episode], np.array([4.0])).items()}
    assert found["mean action"] == [4.0] * 10
    assert found["last action again"] == [4, 4, 4, 4, 3, 3, 3, 3, 7, 7]
    assert found["present state held"] == [0.5] * 4 + [4.5] * 4 + [8.5] * 2


def test_errors_are_of_all_frames_and_leave_axes_that_stand_still_out():
    episodes = [HeldOut(0, {}, np.zeros((1, 2), np.float32), ""), HeldOut(1, {}, np.zeros((3, 2), np.float32), "")]
    said = [np.full((1, 2), 4.0), np.array([[0.0, 0.0], [2.0, 0.0], [-2.0, 8.0]])]
    found = errors(said, episodes, np.array([2.0, 0.0]))
    assert found["by_axis"] == [2.0, 3.0] and found["overall"] == 2.5
    assert found["in_deviations"] == 1.0 and found["by_episode"] == pytest.approx([2.0, 2 / 3])


def test_a_robot_names_the_axis_that_its_environment_moves_by_displacements():
    moved = ("hand.dx", "hand.dy", "gripper")
    assert not names_apart("actions", ACTION, ("hand.x", "hand.y", "gripper"), moved)
    assert not names_apart("actions", ACTION, (), moved)
    (said,) = names_apart("actions", ACTION, ("hand.y", "hand.x", "gripper"), moved)
    assert said == "actions: action is hand.y, hand.x, gripper, and the environment has hand.dx, hand.dy, gripper"


@pytest.mark.sim
def test_demonstrations_of_another_task_are_refused_with_all_that_differs(store, capsys, tmp_path):
    assert main(["train", f"data={store}", "task=drawer-close-v3", f"cache={tmp_path}"]) == 2
    said = capsys.readouterr().err
    for words in (
        "unknown camera of the store 'corner4'",
        "state:",
        "2 values, and the environment takes 4",
        "env=none",
    ):
        assert words in said
