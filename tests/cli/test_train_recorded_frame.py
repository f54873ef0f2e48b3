"""`embodied train data=<store> env=none policy.action_frame=...`: from recordings to absolute actions, and refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded_store import ACTION, FRONT, STATE, recorded_robot, write_recorded

from embodied.bench.open_loop import HeldOut, errors, held_out_episodes, replay
from embodied.cli.cloning_settings import policy_arguments
from embodied.cli.config import compose_config, given_names, identity
from embodied.cli.main import main
from embodied.cli.recorded_frames import recorded_frame
from embodied.cli.recorded_settings import make_recorded, notes, resolved, without_ends
from embodied.core.errors import UsageError
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.policies.action_space import ActionSpace
from embodied.policies.artifact import load_policy
from embodied.policies.frame_choice import FrameChoice
from embodied.real_robot.description.description import Gripper
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.policy.needs import check_fits, needs_of

CPU = torch.device("cpu")
SMALL = ["encoder=pixels", "train.steps=8", "train.batch_size=8", "train.checkpoints=1", "policy.hidden=[8]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("framed")


@pytest.fixture(scope="module")
def store(place):
    return write_recorded(place / "arm")


@pytest.fixture(scope="module")
def given(place, store):
    places = [f"root={place / 'runs'}", f"cache={place / 'cache'}", f"data={store}", "env=none", "device=cpu"]
    chunks = ["policy.chunk=3", "policy.execute=2", "policy.action_frame={kind: delta, keep: [two]}"]
    return [*places, *SMALL, *chunks]


@pytest.fixture(scope="module")
def trained(place, given):
    """The policy and its description."""
    assert main(["train", *given]) == 0
    folder = place / "runs" / "arm-pixels-mlp-seed0"
    assert "1 of 2 learned as steps, the first from the present state; absolute: two" in (
        (folder / "checkpoints" / "README.md").read_text()
    )
    found = json.loads((folder / "summary.json").read_text())["open_loop"]
    assert np.isfinite(found["policy"]["in_deviations"])
    return load_policy(folder / "checkpoints" / "step_000008.safetensors", device=CPU)


def test_a_run_learns_steps_and_its_policy_is_judged_and_deployed_by_targets(trained, given, store):
    policy, metadata = trained
    assert metadata["arguments"]["action_frame"] == {"kind": "delta", "state": [0, None]}
    experiment = make_recorded(resolved(compose_config("train", given), given_names(given)))
    recorded = EpisodeStore.open(store)
    steps, kept = [], []
    for number in experiment.trained_episodes:
        episode = recorded.read_episode(number)
        action, state = episode[ACTION], episode[STATE]
        for first in range(len(action)):
            targets = action[first : first + 3]
            steps.append(np.diff(targets[:, 0], prepend=state[first, 0]))
            kept.append(targets[:, 1])
    for index, values in enumerate((np.concatenate(steps), np.concatenate(kept))):
        assert float(policy.normalizer.offset[index]) == pytest.approx(values.mean(), abs=1e-5)
        assert float(policy.normalizer.scale[index]) == pytest.approx(values.std(), abs=1e-5)
    policy.normalizer.scale.fill_(1e-7)  # it says nothing but the mean step
    policy.normalizer.offset.copy_(torch.tensor([0.01, 0.2]))
    (episode,) = held_out_episodes(experiment, SilentReporter())
    (executed,) = replay(policy, [episode], device=CPU)
    frames, pose = recorded.read_episode(episode.number)[FRONT], recorded.read_episode(episode.number)[STATE]
    looked = np.arange(len(pose)) // 2 * 2  # every second frame
    wanted = pose[looked, 0] + 0.01 * (1 + np.arange(len(pose)) - looked)
    space = policy.normalizer.space
    np.testing.assert_allclose(executed[:, 0], wanted.clip(space.low[0], space.high[0]), atol=1e-5)
    np.testing.assert_allclose(executed[:, 1], 0.2, atol=1e-5)
    check_fits(needs_of(policy, metadata), recorded_robot())
    inference = Inference(policy, metadata, device=CPU)
    plans = [
        inference({FRONT: frame[None, :, 4:28].copy(), STATE: state[None]})
        for frame, state in zip(frames, pose, strict=True)
    ]
    np.testing.assert_allclose([plan[0] for plan in plans], executed, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "joint_delta"}, "gives targets of what it measures, and the robot takes joint_delta"),
        ({"state": ("two", "one")}, "one is learned as an offset from what is two here"),
        (
            {"gripper": Gripper(axis="one", opened=0, closed=1, action=(0, 0), topic=None)},
            "one is learned as an offset, and is not measured in its commands' unit",
        ),
    ],
)
def test_a_robot_that_takes_or_measures_something_else_is_refused(trained, changes, message):
    robot = replace(recorded_robot(), **changes)
    with pytest.raises(UsageError, match=message):
        check_fits(needs_of(*trained), robot, same_names=False)


def test_runs_and_protocols_without_a_frame_are_those_they_were():
    config = compose_config("train", [])
    assert "action_frame" in config.policy and "action_frame" not in identity(config)["policy"]
    assert "action_frame" not in policy_arguments(config)
    framed = compose_config("train", ["policy.action_frame=delta"])
    assert identity(framed)["policy"]["action_frame"] == "delta"


def test_a_policy_of_joints_without_an_end_moves_no_robot(trained):
    policy, metadata = trained
    frame = {**metadata["arguments"]["action_frame"], "turning": [1]}
    metadata = {**metadata, "arguments": {**metadata["arguments"], "action_frame": frame}}
    with pytest.raises(UsageError, match=r"two was declared a joint without an end .* train without `turning`"):
        check_fits(needs_of(policy, metadata), recorded_robot(), same_names=False)


def test_joints_without_an_end_have_no_bounds_that_clip_and_errors_go_the_shorter_way_round():
    space = without_ends(ActionSpace(low=(-1.0, 0.8), high=(1.0, 3.3)), [1])
    assert space.low[0] == -1 and space.high[0] == 1 and space.low[1] < -2 * np.pi and space.high[1] > 2 * np.pi
    episode = HeldOut(0, {}, np.array([[3.1, 3.1]], np.float32), "")
    found = errors([np.array([[-3.1, -3.1]], np.float32)], [episode], np.ones(2), turning=[1])
    np.testing.assert_allclose(found["by_axis"], [6.2, 2 * np.pi - 6.2], rtol=1e-5)


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_gripper_and_kinds_of_robots_are_known_from_what_recorded_them(kind, tmp_path):
    choice, action = FrameChoice(kind=kind), np.zeros((9, 2), np.float32)
    commanded = {"kind": "joint_position", "gripper": "two"}
    store = EpisodeStore.open(write_recorded(tmp_path / "arm", source={"commanded": commanded}, episodes=1))
    assert recorded_frame(choice, store, [0], action) == {"kind": kind, "state": [0, None]}
    assert recorded_frame(None, store, [0], action) is None
    unnamed = EpisodeStore.open(write_recorded(tmp_path / "unnamed", names=(), episodes=1))
    assert recorded_frame(choice, unnamed, [0], action) == {"kind": kind, "state": [0, 1]}
    moved = write_recorded(tmp_path / "moved", edit={"parents": [{"provenance": {"commanded": {"kind": "twist"}}}]})
    with pytest.raises(UsageError, match="from a robot whose commands are twist, relative already"):
        recorded_frame(choice, EpisodeStore.open(moved), [0], action)
    with pytest.raises(UsageError, match=r"within \[-pi, pi\], got 4 to 4: leave it out"):
        recorded_frame(FrameChoice(kind=kind, turning=("one",)), store, [0], action + 4)


@pytest.mark.parametrize(
    ("made", "more", "message"),
    [
        ({"displaced": True}, [], "do not follow them: less the state they vary"),
        ({"leave_out": [STATE]}, [], "holds no observation.state for offsets to begin at"),
        ({"names": ("gripper", "grippers")}, [], "gripper, grippers stay absolute. Displacements"),
        ({}, ["policy.action_frame=relatve"], "did you mean relative"),
        (
            {},
            ["policy.action_frame={kind: delta, keep: [three]}"],
            "unknown action in policy.action_frame.keep 'three'",
        ),
    ],
)
def test_recordings_that_have_no_such_actions_are_refused(made, more, message, tmp_path, capsys):
    data = write_recorded(tmp_path / "arm", **made)
    places = [f"root={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", f"data={data}", "env=none"]
    assert main(["train", *places, *SMALL, *(more or ["policy.action_frame=relative"])]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert message in said and "Traceback" not in said and not (tmp_path / "runs").exists()


@pytest.mark.sim
def test_a_simulator_is_refused_with_what_its_actions_are(capsys, tmp_path):
    assert main(["train", "policy.action_frame=delta", f"root={tmp_path}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the actions of env=metaworld task=hammer-v3, hand.dx, hand.dy, hand.dz, gripper, are displacements" in said


def test_what_is_learned_is_said_before_training(given):
    experiment = make_recorded(resolved(compose_config("train", given), given_names(given)))
    assert "actions: 1 of 2 learned as steps, the first from the present state; absolute: two" in notes(experiment)
