"""`embodied train data='[a,b]' env=none`: one policy from recordings of several robots, and what is refused."""

import json

import numpy as np
import pytest
import torch
from policy_servers import write_token
from recorded_store import recorded_robot, write_recorded
from several_stores import ACTION, FRONT, STATE, write_robot

from embodied.bench.open_loop import held_out_episodes, replay
from embodied.bench.several_robots import MixedDemonstrations
from embodied.cli.config import compose_config, given_names
from embodied.cli.deploy import deployment
from embodied.cli.main import main
from embodied.cli.recorded_several import make_several, robot_frames
from embodied.cli.serve import digest, load
from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.policies.artifact import load_policy, read_description
from embodied.real_robot.deployment.policy_role import start_policy
from embodied.real_robot.deployment.session import Settings
from embodied.real_robot.policy.inference import load_inference
from embodied.real_robot.policy.needs import needs_of

CPU = torch.device("cpu")
SMALL = ["encoder=pixels", "train.steps=20", "train.batch_size=8", "train.checkpoints=2", "policy.hidden=[8]"]
NAMES = {"state_names": ("a", "b", "c", "d"), "action_names": ("a", "b", "grip")}


def arguments(place, data, *more):
    given = [f"root={place / 'runs'}", f"cache={place / 'cache'}", "device=cpu", *SMALL]
    kept = [f"data={data}", *([] if any(word.startswith("env=") for word in more) else ["env=none"])]
    return ["train", *given, *kept, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def stores(place):
    """An arm of four joints with 32x24 pictures, and one of two whose numbers are fifty times smaller."""
    large = write_robot(place / "arm", states=4, actions=3, scale=5.0, size=(24, 32), **NAMES)
    return {"arm": large, "hand": write_robot(place / "hand", scale=0.1, seed=1, length=6, size=(48, 48))}


@pytest.fixture(scope="module")
def data(stores):
    return f"[{stores['arm']},{stores['hand']}]"


@pytest.fixture(scope="module")
def run(place, data):
    assert main(arguments(place, data)) == 0
    return place / "runs" / "arm+hand-pixels-mlp-seed0"


@pytest.fixture(scope="module")
def policy(run):
    return run / "checkpoints" / "step_000020.safetensors"


def experiment_of(place, data):
    given = arguments(place, data)[1:]
    return make_several(compose_config("train", given), given_names(given))[1]


def test_every_robot_is_judged_on_its_own_episodes(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["robots"]) == ["arm", "hand"] and summary["task"] == "arm+hand"
    sizes = {"arm": (["a", "b", "grip"], 8), "hand": (["action 0", "action 1"], 6)}
    for name, found in summary["robots"].items():
        data, judged = found["data"], found["open_loop"]
        assert len(data["trained"]) == 3 and judged["episodes"] == data["held_out"]
        assert (judged["names"], judged["frames"]) == sizes[name]
        assert "mean action" in judged["trivial"] and np.isfinite(judged["policy"]["in_deviations"])
        rows = found["best_checkpoint"]["checkpoints"]
        assert [row["step"] for row in rows] == [10, 20]
        assert rows[-1]["in_deviations"] == judged["policy"]["in_deviations"]
        assert (run / found["plot"]).is_file()
    tried = summary["best_checkpoint"]["checkpoints"]
    both = [found["open_loop"]["policy"]["in_deviations"] for found in summary["robots"].values()]
    assert tried[-1]["in_deviations"] == pytest.approx(np.mean(both))
    assert all((run / path).is_file() for path in summary["artifacts"].values())
    report = (run / "report.html").read_text()
    assert report.count("data:image/png;base64") == 3 and report.count("<h2>Axes</h2>") == 2
    card = (run / "checkpoints" / "README.md").read_text()
    assert "embodiment=arm" in card and "embodiment=hand" in card and "| grip |" in card


def test_the_file_says_what_each_robot_is_and_its_scales_are_its_own(policy, place, data):
    experiment = experiment_of(place, data)
    for name, (states, actions) in {"arm": (4, 3), "hand": (2, 2)}.items():
        loaded, told = load_policy(policy, device=CPU, embodiment=name)
        assert told == read_description(policy, name) and told["env"]["robot"] == name
        needs = needs_of(loaded, told)
        assert (needs.state_dim, needs.action_dim, needs.image_size, needs.hz) == (states, actions, 24, 10.0)
        assert needs.state_names == (NAMES["state_names"] if name == "arm" else ())
        member = experiment.members[name]
        learned = [member.episode_store.read_episode(number) for number in member.trained_episodes]
        action, state = (np.concatenate([episode[key] for episode in learned]) for key in (ACTION, STATE))
        np.testing.assert_allclose(loaded.normalizer.offset, action.mean(0), rtol=1e-4)
        np.testing.assert_allclose(loaded.normalizer.scale, action.std(0), rtol=1e-4)
        np.testing.assert_allclose(loaded.shared.state_mean, state.mean(0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(loaded.shared.state_std, state.std(0), rtol=1e-4)


def test_what_is_replayed_is_what_acts_on_a_robot(policy, place, data, stores):
    experiment = experiment_of(place, data)
    for name, member in experiment.members.items():
        loaded, _ = load_policy(policy, device=CPU, embodiment=name)
        (episode,) = held_out_episodes(member, SilentReporter())
        (executed,) = replay(loaded, [episode], device=CPU)
        recorded = EpisodeStore.open(stores[name]).read_episode(episode.number)
        inference = load_inference(policy, device=CPU, embodiment=name)
        # Pictures of one colour: what of them is seen, and how it is made smaller, makes no difference.
        plans = [
            inference({FRONT: np.ascontiguousarray(frame[None, :24, :24]), STATE: state[None]})
            for frame, state in zip(recorded[FRONT], recorded[STATE], strict=True)
        ]
        scale = loaded.normalizer.scale.numpy()
        np.testing.assert_allclose(np.stack(plans)[:, 0] / scale, executed / scale, atol=1e-4)


def test_the_graph_of_one_robot_is_its_policy(run, policy, tmp_path, capsys):
    assert main(["export", f"run={run}", "format=torch", f"to={tmp_path}"]) == 2
    assert "policy of several robots: name one of them with embodiment=arm|hand" in _said(capsys)
    assert main(["export", f"run={run}", "format=torch", f"to={tmp_path}", "embodiment=hand"]) == 0
    loaded, _ = load_policy(policy, device=CPU, embodiment="hand")
    graph = torch.export.load(tmp_path / "from_features.pt2").module()
    features, state = torch.randn(3, 1, *loaded.feature_shape), torch.randn(3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(graph(features, state), loaded.predict(features, state))
    assert "float32 [B, 1, 2]" in (tmp_path / "README.md").read_text()


def test_deploy_and_serve_take_one_of_the_robots(run, policy, tmp_path, capsys):
    given = [f"run={policy}", "robot=ros2_arm", "embodiment=hand"]
    settings, _ = deployment(compose_config("deploy", given), policy, read_description(policy, "hand"))
    assert settings.embodiment == "hand" and settings.instruction == "turn"
    inference = load(compose_config("serve", [f"run={run}", "device=cpu", "embodiment=hand"]))
    assert inference.needs.action_dim == 2
    assert len({digest(policy), digest(policy, "arm"), digest(policy, "hand")}) == 3
    assert main(["deploy", f"run={run}", "robot=ros2_arm"]) == 2
    assert "embodiment=arm|hand" in _said(capsys)
    token = write_token(tmp_path)
    assert main(["serve", f"run={run}", f"token_file={token}", "embodiment=hnd"]) == 2
    assert "did you mean hand?" in _said(capsys)
    assert main(["deploy", "robot=ros2_arm", "server=h:1", f"token_file={token}", "embodiment=hand"]) == 2
    assert "name it to embodied serve" in _said(capsys)
    assert main(["evaluate", f"run={run}"]) == 1
    assert "there is no simulator to evaluate it in" in _said(capsys)


def test_a_run_that_was_interrupted_goes_on_and_ends_with_the_same_file(policy, data, tmp_path, monkeypatch, capsys):
    given, batch, left = arguments(tmp_path, data), MixedDemonstrations.batch, iter(range(16))

    def broken(samples, indices):
        if next(left, None) is None:
            raise UserError("the power went out")
        return batch(samples, indices)

    with monkeypatch.context() as patched:
        patched.setattr(MixedDemonstrations, "batch", broken)
        assert main(given) == 1 and "the power went out" in _said(capsys)
    (run,) = (tmp_path / "runs").iterdir()
    assert [path.name for path in (run / "checkpoints").glob("step*")] == ["step_000010.safetensors"]
    assert main([*given, "resume=true"]) == 0
    (ended, told), (whole, wanted) = (load_checkpoint(path) for path in (run / "checkpoints" / policy.name, policy))
    assert told == wanted and ended.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in ended.items())


def test_a_run_goes_on_with_the_same_data_only(tmp_path, capsys):
    stores = write_robot(tmp_path / "arm"), write_robot(tmp_path / "hand")
    given = arguments(tmp_path, f"[{stores[0]},{stores[1]}]", "demos=4", "train.steps=2")
    assert main(given) == 0
    opened = EpisodeStore.open(stores[1], mode="a")
    opened.append(opened.read_episode(0), task="turn")
    opened.close()
    assert main([*given, "resume=true"]) == 1
    assert "hand has changed since" in _said(capsys)


@pytest.mark.parametrize(
    "options",
    [
        ["policy.head=flow", "policy.head_options={network_options: {channels: [8,16], groups: 4}}", "mixing=uniform"],
        ["encoder=scratch", "env.image_size=16", "policy.encoder_learning_rate=1e-4"],
        [
            "encoder=proprioception",
            "demos=3",
            "policy.head=act",
            "policy.head_options={width: 16, heads: 2, hidden: 32}",
        ],
    ],
)
def test_other_policies_learn_from_several_robots_too(options, data, tmp_path):
    assert main(arguments(tmp_path, data, *options)) == 0
    (run,) = (tmp_path / "runs").iterdir()
    for found in json.loads((run / "summary.json").read_text())["robots"].values():
        assert np.isfinite(found["open_loop"]["policy"]["in_deviations"])


def test_robots_may_be_named_and_look_through_cameras_of_other_names(tmp_path):
    one = write_robot(tmp_path / "a" / "arm", cameras=("top", "wrist"), **NAMES, states=4, actions=3)
    other = write_robot(tmp_path / "b" / "arm", cameras=("hand", "front"))
    named = f"{{left: {one}, right: {other}}}"
    options = ["camera={left: [top, wrist], right: [front, hand]}", "train.steps=2"]
    assert main(arguments(tmp_path, named, *options)) == 0
    (run,) = (tmp_path / "runs").iterdir()
    loaded, told = load_policy(run / "checkpoints" / "step_000002.safetensors", device=CPU, embodiment="right")
    assert loaded.cameras == ("front", "hand") and told["env"]["task"] == "arm"


def test_what_stays_absolute_is_named_for_the_robot_that_has_it(stores, tmp_path):
    opened = {name: EpisodeStore.open(store) for name, store in stores.items()}
    opened["other"] = EpisodeStore.open(write_robot(tmp_path / "other", action_names=("grip", "a_2")))
    config = compose_config("train", ["policy.action_frame={kind: delta, keep: [a, gri, nothing]}"])
    assert robot_frames(opened, config) == {
        "arm": {"kind": "delta", "keep": ["a", "gri", "nothing"]},
        "hand": {"kind": "delta", "keep": ["nothing"]},
        "other": {"kind": "delta", "keep": ["gri", "nothing"]},  # a is another's whole name
    }
    assert robot_frames(opened, compose_config("train", ["policy.action_frame=delta"])) == {}


def test_offsets_are_learned_of_the_robots_that_have_them(tmp_path):
    stores = write_recorded(tmp_path / "arm"), write_recorded(tmp_path / "hand", names=("grip", "two"))
    frame = "policy.action_frame={kind: delta, keep: [grip]}"
    assert main(arguments(tmp_path, f"[{stores[0]},{stores[1]}]", frame, "train.steps=2")) == 0
    (run,) = (tmp_path / "runs").iterdir()
    policy = run / "checkpoints" / "step_000002.safetensors"
    known = {name: read_description(policy, name)["arguments"]["action_frame"] for name in ("arm", "hand")}
    assert known == {"arm": {"kind": "delta", "state": [0, 1]}, "hand": {"kind": "delta", "state": [None, 1]}}
    deployed = start_policy(Settings(robot="toy", policy=str(policy), embodiment="arm"), recorded_robot())
    assert deployed.needs.offsets == ((0, 0), (1, 1))
    with pytest.raises(UsageError, match="its actions are grip, two"):
        start_policy(Settings(robot="toy", policy=str(policy), embodiment="hand"), recorded_robot())


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("[{arm},{arm}]", [], "two robots are called arm: name the robots yourself"),
        ("[{arm}]", [], "or of several robots a list, '[a,b]'"),
        ("[{arm},3]", [], "or of several robots a list, '[a,b]'"),
        ("{{le ft: {arm}, right: {hand}}}", [], "a robot's name has letters, digits, ., - and _, got 'le ft'"),
        ("[{arm},nowhere]", [], "no episode store at"),
        ("[{arm},{wide}]", [], "arm has front; wide has front, wrist: choose with camera='{arm: <camera>, wide:"),
        ("[{other},{wide}]", [], "say which go together, in order, with camera='{other: [front, top], wide: [front,"),
        ("[{arm},{hand}]", ["camera={arm: front}"], "expected cameras of arm, hand, got those of arm"),
        ("[{arm},{hand}]", ["camera=frnt"], "robot arm: unknown camera of"),
        ("[{arm},{hand}]", ["env=metaworld"], "write env=none, or one store"),
        ("[{arm},{hand}]", ["policy=ppo"], "policies of behaviour cloning learn from recordings"),
        ("[{arm},{hand}]", ["policy.head=gr1"], "policy.head=gr1 know the state and the actions of one robot"),
        ("[{arm},{hand}]", ["mixing=weights"], "unknown mixing 'weights': choose one of inverse_sqrt, temperature"),
        ("[{arm},{hand}]", ["demos=9"], "robot arm: demos=9"),
        ("[{arm},{hand}]", ["policy.action_frame=delta"], "robot arm: policy.action_frame=delta: actions of"),
        ("[{arm},{hand}]", ["encoder=state"], "robot arm: encoder=state reads the simulator's state"),
        ("[{arm},{hand}]", ["episodes=3"], "env=none has no simulator"),
    ],
)
def test_mistakes_are_told_in_one_message(data, more, message, stores, place, tmp_path, capsys):
    for name, cameras in {"wide": ("front", "wrist"), "other": ("front", "top")}.items():
        if not (place / name).exists():
            write_robot(place / name, cameras=cameras)
    given = data.format(**stores, wide=place / "wide", other=place / "other")
    small = [word for word in SMALL if not any(word.split("=")[0] == other.split("=")[0] for other in more)]
    if "policy=ppo" in more:
        small = []
    single = [] if any(word.startswith("env=") for word in more) else ["env=none"]
    assert main(["train", f"data={given}", f"root={tmp_path / 'runs'}", *single, *small, *more]) in (1, 2)
    said = _said(capsys)
    assert message in said and "Traceback" not in said and not (tmp_path / "runs").exists()


def _said(capsys):
    return " ".join(capsys.readouterr().err.split())
