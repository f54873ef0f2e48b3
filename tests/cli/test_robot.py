"""`embodied robot` from end to end against a simulated robot over DDS on loopback, and mistakes of users."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from embodied.cli.main import main
from embodied.cli.robot import ROBOT_VERBS
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.real_robot.description.reading import load_robot, shipped_robot, shipped_robots
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.simulator.episodes import EpisodeClient
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, SENSOR

DOMAIN = 190 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # a worker has a simulated robot of its own
HERE = ("robot=sim", f"options.domain={DOMAIN}")
SDK = """
from pathlib import Path
import numpy as np
class Arm:
    def servo(self, targets): Path("moved").write_text(str([int(target) for target in targets]))
    def stop(self): pass
    def positions(self): return [0.0, -1.571, 1.571, -1.571, 0.0, 0.0]
    def picture(self): return np.random.default_rng().integers(0, 256, (48, 64, 3), np.uint8)
"""
START_S = 90.0  # for a process on a busy machine
ACTION = KeySpec("float32", (4,), names=("hand.x", "hand.y", "hand.z", "gripper"))


def run(capsys, *arguments):
    """Exit code, stdout and stderr in one line each."""
    capsys.readouterr()
    code = main(["robot", *arguments])
    said = capsys.readouterr()
    return code, said.out, " ".join(said.err.split())


def process(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "EMBODIED_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "embodied", "robot", *arguments], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until(condition):
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@contextmanager
def recorded(folder, transport, *arguments):
    """While a process records, which is known by its listening to commands; yields what it will have said."""
    robot = load_robot("sim")
    writer = transport.advertise(robot.command.name, robot.command.type, COMMAND)
    until(lambda: writer.matched() == 1)  # the simulated robot
    started, said = process(folder, *arguments, *HERE), []
    try:
        until(lambda: started.poll() is not None or writer.matched() > 1)
        yield said
        said.append(said_at_end(started))
        assert started.returncode == 0, said[0]
    finally:
        started.kill()


def said_at_end(started, number=signal.SIGINT):
    started.send_signal(number)
    said, _ = started.communicate(timeout=START_S)
    return said


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """The simulated robot in a process of its own, with a transport to it and a client of its episodes."""
    pytest.importorskip("cyclonedds")
    pytest.importorskip("mcap")
    folder = tmp_path_factory.mktemp("sim")
    started = process(folder, "sim", "task=hammer-v3", "env.image_size=32", f"options.domain={DOMAIN}", "seeds=[1000]")
    transport = open_transport("dds", domain=DOMAIN)
    client = EpisodeClient(transport)
    try:
        until(lambda: started.poll() is not None or client.status is not None)
        yield folder, transport, client
        assert started.poll() is None
        said = said_at_end(started)
        assert "simulating metaworld hammer-v3 as robot sim" in said and "a simulated second takes 4 s" in said
        assert started.returncode == 0
    finally:
        started.kill()
        transport.close()


@pytest.mark.sim
def test_check_and_latency_of_a_healthy_robot(sim, capsys):
    code, out, _ = run(capsys, "check", *HERE, "seconds=3", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["failed"] == 0 and facts["robot"] == "sim"
    assert {"joint names", "pose in limits", "/sim/joint_states rate"} <= {f["what"] for f in facts["findings"]}
    code, out, _ = run(capsys, "latency", *HERE, "seconds=2")
    assert code == 0 and "/sim/corner4/image_raw"[:12] in out and "age p50" in out
    code, out, _ = run(capsys, "latency", *HERE, "seconds=2", "--json")
    joints = json.loads(out)["/sim/joint_states"]
    assert joints["messages"] > 20 and set(joints["age_ms"]) == {"p50", "p90", "p99", "max"}
    assert joints["age_ms"]["p50"] < 100


@pytest.mark.sim
def test_check_names_what_is_wrong(sim, capsys, tmp_path):
    content = yaml.safe_load((Path(__file__).parents[2] / "real_robot/robots/sim.yaml").read_text())
    content["axes"]["hand.w"] = content["axes"].pop("hand.z")
    content["state"][2] = "hand.w"
    content["cameras"]["corner4"]["topic"] = "/sim/corner5/image_raw"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    code, out, _ = run(capsys, "check", f"robot={tmp_path / 'mine.yaml'}", f"options.domain={DOMAIN}", "seconds=2")
    text = " ".join(out.split())
    assert code == 1 and "2 of" in text and "failed" in text
    assert "hand.w missing in" in text and "no message of sensor_msgs/msg/Image" in text


@pytest.mark.sim
def test_replay_record_and_import(sim, capsys, tmp_path):
    """A recorded way is replayed through the safety chain; its recording becomes an episode with the same actions."""
    folder, transport, client = sim
    actions = np.zeros((30, 4), np.float32)
    actions[:20, 1], actions[:, 3] = 0.5, -1.0
    with EpisodeStore.create(tmp_path / "demos", keys={"action": ACTION}, fps=80) as store:
        store.append({"action": actions}, task="go", seed=1003)
    with recorded(folder, transport, "record", str(tmp_path / "run.mcap")) as said:
        code, out, _ = run(capsys, "replay", str(tmp_path / "demos"), *HERE, "live=true")
        assert code == 0 and "all 30 actions" in out and "live" in out and "not ended" in out
        assert (client.status.seed, client.status.phase) == (1003, "running")
        number = client.status.number
        code, out, _ = run(capsys, "replay", str(tmp_path / "demos"), *HERE)
        assert code == 0 and "in the shadow" in out and client.status.number == number
    assert "/shadow/sim/hand_controller/commands" in said[0] and "✓" in said[0]
    assert main(["data", "import", str(tmp_path / "run.mcap"), str(tmp_path / "store"), "robot=sim"]) == 0
    made = EpisodeStore.open(tmp_path / "store")
    assert [info.seed for info in made.episodes] == [1003]
    moved = made.read_episode(0)["action"].sum(0)
    # 20 steps of 0.5, but for the first, and for cycles of the command process that a busy machine leaves out.
    assert 5.0 < moved[1] < 10.5 and np.abs(moved[[0, 2]]).max() < 0.5
    code, out, _ = run(capsys, "replay", str(tmp_path / "run.mcap"), *HERE)
    assert code == 0 and "in the shadow" in out


@pytest.mark.sim
def test_what_others_drive_becomes_episodes(sim, tmp_path):
    folder, transport, client = sim
    robot = load_robot("sim")
    publisher = transport.advertise(robot.command.name, robot.command.type, COMMAND)
    kind = message_type(robot.command.type)

    def drive(seed, seconds):
        """Somebody's joystick: away from the pose of the start, 2 cm/s, at 50 Hz."""
        client.reset(seed)
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            publisher.publish(encode(kind(data=np.array([0.0, 0.4 + 0.02 * elapsed, 0.2, -1.0]))))
            time.sleep(0.02)

    for seed in (1004, 1005):
        with recorded(folder, transport, "teleop-log", str(tmp_path / "demos"), "task='go away'") as said:
            drive(seed, 3.0)
        assert "added to" in said[0]
    store = EpisodeStore.open(tmp_path / "demos")
    assert [info.seed for info in store.episodes] == [1004, 1005]
    assert store.read_episode(0)["action"][5:40, 1].mean() == pytest.approx(0.1, abs=0.03)  # 2 cm/s are 1 mm a step


def test_help_says_what_there_is(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(name in out for name in ROBOT_VERBS)
    for name in ROBOT_VERBS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and f"embodied robot {name}" in out and ("transport:" in out or name == "new")


@pytest.mark.parametrize("template", shipped_robots())
def test_a_new_description_is_that_of_the_template_with_another_name(capsys, tmp_path, template):
    path = tmp_path / "mine" / "7.yaml"
    code, out, _ = run(capsys, "new", template, f"to={path}")
    assert code == 0 and f"as {template}" in out and f"embodied robot check {path}" in out
    assert load_robot(path) == replace(load_robot(template), name="7")
    lines = path.read_text().splitlines()
    assert template in lines[0] and set(shipped_robot(template).read_text().splitlines()) - set(lines) == {
        f"name: {template}"
    }
    path.write_text("mine")
    code, _, err = run(capsys, "new", template, f"to={path}")
    assert code == 2 and "7.yaml exists already" in err and path.read_text() == "mine"


def test_a_new_description_is_checked_as_the_robot_it_describes(capsys, tmp_path):
    pytest.importorskip("cyclonedds")
    assert run(capsys, "new", "ros2_arm", f"to={tmp_path / 'my_arm.yaml'}")[0] == 0
    code, out, _ = run(capsys, "check", str(tmp_path / "my_arm.yaml"), "options.domain=156", "seconds=0.5")
    text = " ".join(out.split())
    assert code == 1 and "my_arm: 7 axes, joint_position" in text and "/joint_states" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chek"], 2, "unknown command of embodied robot 'chek': did you mean check?"),
        (["check"], 2, "which robot? robot=sim"),
        (["new"], 2, "which template? one of ros2_arm, ros2_mobile, sim: embodied robot new ros2_arm to="),
        (["new", "ros2_amr", "to=my.yaml"], 2, "unknown template 'ros2_amr': did you mean ros2_arm"),
        (["new", "panda", "to=my.yaml"], 2, "unknown template 'panda': choose one of ros2_arm, ros2_mobile, sim"),
        (["new", "ros2_arm"], 2, "which file to write?: to=path"),
        (["new", "ros2_arm", "my_arm.yaml"], 2, "write name=value, for example to=my_arm.yaml"),
        (["new", "ros2_arm", "to=my_arm"], 2, "to must end in .yaml, got my_arm"),
        (["new", "ros2_arm", "to=/dev/null/my_arm.yaml"], 1, "/dev/null/my_arm.yaml cannot be written: File exists"),
        (["check", "robot=ros2_amr"], 2, "'ros2_amr' is neither a file nor a robot that comes along: did you mean"),
        (
            ["check", "robot=sim", "secnds=3"],
            2,
            "unknown setting of embodied robot check 'secnds': did you mean sec",
        ),
        (["check", "robot=sim", "seconds=-1"], 2, "seconds must be a positive number of seconds"),
        (["check", "robot=sim", "transport=ddss"], 2, "unknown transport 'ddss': did you mean dds?"),
        (
            ["check", "robot=sim", "options.domian=3"],
            2,
            "option of transport dds 'domian': did you mean domain",
        ),
        (["check", "robot=sim", "--jsn"], 2, "unknown option '--jsn'"),
        (
            ["teleop-log", "robot=sim", "tsk=x"],
            2,
            "setting of embodied robot teleop-log 'tsk': did you mean task",
        ),
        (["record", "robot=sim"], 2, "which file to write?"),
        (["replay", "robot=sim"], 2, "what to replay?"),
        (["replay", "{none}", "robot=sim"], 1, "there is no file or folder at"),
        (["replay", "{store}", "robot=sim", "episode=4"], 2, "has 1, counted from 0"),
        (["replay", "{store}", "robot=sim", "episode=-1"], 2, "episode must be a whole number of at least 0"),
        (["replay", "{store}", "robot=ros2_arm"], 2, "its actions have [4] numbers, robot ros2_arm has 7 axes"),
        (["sim", "hammer-v3"], 2, "'hammer-v3' is not a setting: write name=value"),
        (["sim", "transport=memory", "seeds=[]"], 2, "seeds must be a list of whole numbers"),
        (["sim", "transport=memory", "task=hamer-v3"], 2, "did you mean hammer-v3"),
        (["sim", "transport=memory", "robot=ros2_mobile"], 2, "robot ros2_mobile cannot be simulated"),
        (["sim", "transport=memory", "faults={los: 1}"], 2, "unknown fault 'los': did you mean loss"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, arguments, code, message):
    with EpisodeStore.create(tmp_path / "demos", keys={"action": ACTION}, fps=80) as store:
        store.append({"action": np.zeros((3, 4), np.float32)}, task="go")
    places = {"{store}": str(tmp_path / "demos"), "{none}": str(tmp_path / "none")}
    got, _, err = run(capsys, *[places.get(argument, argument) for argument in arguments])
    assert got == code and message in err and "Traceback" not in err


def test_what_is_there_is_not_recorded_over(capsys, tmp_path):
    (tmp_path / "run.mcap").touch()
    code, _, err = run(capsys, "record", str(tmp_path / "run.mcap"), "robot=sim", "transport=memory")
    assert code == 1 and "exists already" in err
    code, _, err = run(capsys, "record", str(tmp_path / "run.bag"), "robot=sim", "transport=memory")
    assert code == 1 and "ends in .mcap" in err


def test_the_driver_of_the_readme_is_heard_as_the_robot_that_is_described(capsys, tmp_path):
    pytest.importorskip("cyclonedds")
    domain = 40 + DOMAIN - 190
    assert run(capsys, "new", "ros2_arm", f"to={tmp_path / 'my_arm.yaml'}")[0] == 0
    content = yaml.safe_load((tmp_path / "my_arm.yaml").read_text())
    content["command"]["type"] = "std_msgs/msg/Float64MultiArray"
    del content["gripper"]["topic"], content["gripper"]["type"]
    content["transport"]["options"] = {"domain": domain}
    (tmp_path / "my_arm.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    page = (Path(__file__).parents[2] / "real_robot/README.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page.partition("## A driver")[2], re.DOTALL)
    (tmp_path / "driver.py").write_text(source)
    (tmp_path / "my_sdk.py").write_text(SDK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen([sys.executable, "driver.py"], cwd=tmp_path, env=environment)
    transport = open_transport("dds", domain=domain)
    try:
        heard = transport.subscribe(
            "/joint_states", content["joint_states"]["type"], SENSOR, lambda packet, stamp: None
        )
        until(lambda: driver.poll() is not None or heard.matched() == 1)
        code, out, _ = run(capsys, "check", str(tmp_path / "my_arm.yaml"), "seconds=2")
        assert code == 0 and "as described" in out and "1 listen for commands" in " ".join(out.split())
        assert not (tmp_path / "moved").exists()
        told = transport.advertise(content["command"]["topic"], content["command"]["type"], COMMAND)
        until(lambda: told.matched() == 1)
        told.publish(encode(message_type(content["command"]["type"])(data=np.arange(7.0))))
        until((tmp_path / "moved").exists)
        assert (tmp_path / "moved").read_text() == str(list(range(7)))
    finally:
        driver.kill()
        driver.wait()
        transport.close()


def test_a_robot_that_is_not_there(capsys):
    pytest.importorskip("cyclonedds")
    code, out, _ = run(capsys, "check", "robot=sim", "options.domain=155", "seconds=0.5")
    assert code == 1 and "nobody listens" in " ".join(out.split())
    code, _, err = run(capsys, "latency", "robot=sim", "options.domain=155", "seconds=0.5")
    assert code == 1 and "nothing was heard of robot sim in 0.5 s" in err
