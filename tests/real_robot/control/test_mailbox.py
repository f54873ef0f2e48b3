"""The policy's and the command process' shared memory."""

import numpy as np
import pytest
from real_robots import toy_robot

from embodied.core.errors import UserError
from embodied.real_robot.control.mailbox import MAX_ACTIONS, PolicyMailbox
from embodied.real_robot.safety.supervisors import Sensor

CAMERA = {"topic": "/front", "type": "sensor_msgs/msg/Image", "input": "observation.images.front"}


def test_chunks_and_signs_of_life_cross(tmp_path):
    robot = toy_robot(cameras={"front": CAMERA, "side": {**CAMERA, "topic": "/side"}})
    writer = PolicyMailbox.create(tmp_path / "box", robot)
    reader = PolicyMailbox.open(tmp_path / "box", robot)
    assert reader.read_chunk() is None and reader.read_heartbeat() is None
    for length in (1, 8, MAX_ACTIONS):
        actions = np.random.default_rng(length).normal(size=(length, 2))
        number = writer.write_chunk(actions, observed_ns=5, written_ns=7, step_ns=50)
        chunk = reader.read_chunk()
        assert chunk[:4] == (number, 5, 7, 50) and (chunk.actions == actions).all()
    writer.write_heartbeat(9, {"side": Sensor(1, 2, 3)})
    beat = reader.read_heartbeat()
    assert beat.beat_ns == 9 and beat.cameras == {"front": Sensor(), "side": Sensor(1, 2, 3)}


def test_the_file_is_this_users_only(tmp_path):
    PolicyMailbox.create(tmp_path / "box", toy_robot())
    assert (tmp_path / "box").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="cannot be made"):
        PolicyMailbox.create(tmp_path / "box", toy_robot())


def test_processes_with_different_robots_do_not_meet(tmp_path):
    PolicyMailbox.create(tmp_path / "box", toy_robot())
    with pytest.raises(UserError, match="another description made it"):
        PolicyMailbox.open(tmp_path / "box", toy_robot(name="other"))
    with pytest.raises(UserError, match="not the mailbox"):
        PolicyMailbox.open(tmp_path / "box", toy_robot(cameras={"front": CAMERA}))
    with pytest.raises(UserError, match="cannot be opened"):
        PolicyMailbox.open(tmp_path / "none", toy_robot())


@pytest.mark.parametrize("shape", [(2,), (0, 2), (1, 3), (MAX_ACTIONS + 1, 2)])
def test_actions_of_a_wrong_shape_are_refused_where_they_are_written(tmp_path, shape):
    box = PolicyMailbox.create(tmp_path / "box", toy_robot())
    with pytest.raises(ValueError, match=r"actions must be \[1 .. 256, 2\]"):
        box.write_chunk(np.zeros(shape), observed_ns=1, written_ns=1, step_ns=1)
