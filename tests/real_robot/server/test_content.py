"""Observations and plans on the wire."""

import dataclasses

import numpy as np
import pytest
from policy_servers import KEY, NEEDS, STATE, observation

from embodied.core.errors import UsageError
from embodied.real_robot.server.content import (
    Encoding,
    most_bytes,
    needs_record,
    pack_observation,
    pack_plan,
    read_needs,
    unpack_observation,
    unpack_plan,
)
from embodied.real_robot.server.framing import Message, ProtocolError


def message(records, data):
    return Message({"arrays": records}, memoryview(data))


def noisy(seed=0):
    rng = np.random.default_rng(seed)
    return {
        KEY: rng.integers(0, 256, (1, 64, 64, 3), np.uint8),
        STATE: rng.standard_normal((1, 4)).astype(np.float32),
    }


def test_raw_pictures_and_states_arrive_bit_by_bit():
    sent = noisy()
    records, data = pack_observation(sent, Encoding("raw"))
    found = unpack_observation(message(records, data), NEEDS)
    assert list(found) == list(sent) and len(data) == 64 * 64 * 3 + 16 < most_bytes(NEEDS)
    for name, array in sent.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_jpeg_is_close_on_smooth_pictures_and_smaller_and_quality_counts():
    ramp = np.broadcast_to(np.linspace(0, 255, 64)[:, None, None], (64, 64, 3)).astype(np.uint8)
    sent = {KEY: ramp[None], STATE: np.ones((1, 4), np.float32)}
    records, data = pack_observation(sent, Encoding("jpeg", 95))
    found = unpack_observation(message(records, data), NEEDS)
    assert np.abs(found[KEY].astype(int) - sent[KEY]).max() <= 4 and len(data) < 64 * 64 * 3 / 4
    np.testing.assert_array_equal(found[STATE], sent[STATE])
    assert len(pack_observation(noisy(), Encoding("jpeg", 20))[1]) < len(pack_observation(noisy(), Encoding())[1]) / 2
    assert len(pack_observation(noisy(), Encoding("jpeg", 100))[1]) < most_bytes(NEEDS)


def test_options_of_pictures_are_checked():
    with pytest.raises(UsageError, match="unknown pictures 'jpg': did you mean jpeg"):
        Encoding("jpg")
    with pytest.raises(UsageError, match=r"quality must be a whole number in 1 \.\. 100, got 0"):
        Encoding("jpeg", 0)


def test_other_observations_are_refused():
    records, data = pack_observation(observation(), Encoding("raw"))
    picture, state = records
    torn = pack_observation(observation(), Encoding("jpeg"))
    large = pack_observation({KEY: np.zeros((1, 128, 128, 3), np.uint8), STATE: np.zeros((1, 4))}, Encoding("jpeg"))
    for changed, behind, reason in [
        ([picture], data, "expected 2 arrays"),
        (None, data, "expected 2 arrays"),
        ([picture, picture], data * 2, "is not what the policy sees"),
        ([picture, state | {"name": "observation.images.wrist"}], data, "is not what the policy sees"),
        ([picture, state | {"bytes": -1}], data, "bytes must be a whole number"),
        ([picture, 3], data, "without a record"),
        (records, data[:-1], "16 bytes were announced, 15 are there"),
        (records, data + b"0", "1 bytes are left over"),
        ([picture | {"as": "pickle"}, state], data, "got 12288 as 'pickle'"),
        ([picture, state | {"as": "jpeg"}], data, "expected 16 bytes raw, got 16 as 'jpeg'"),
        ([picture | {"bytes": 12287}, state | {"bytes": 17}], data, "expected 12288 bytes raw, got 12287"),
        ([picture | {"as": "jpeg"}, state], data, "no JPEG"),
        (torn[0], torn[1].replace(b"\xff\xda", b"\xff\x00", 1), KEY),
        (*large, "of 128 x 128 pixels"),
    ]:
        with pytest.raises(ProtocolError, match=reason):
            unpack_observation(message(changed, behind), NEEDS)


def test_plans_arrive_bit_by_bit_and_others_are_refused():
    plan = np.random.default_rng(0).standard_normal((16, 4))
    data = pack_plan(plan)
    np.testing.assert_array_equal(unpack_plan(Message({}, memoryview(data)), NEEDS), plan)
    assert len(pack_plan(np.zeros((300, 4)))) == 256 * 32
    for bad in (b"", data[:-8], bytes(257 * 32)):
        with pytest.raises(ProtocolError, match="a plan of"):
            unpack_plan(Message({}, memoryview(bad)), NEEDS)


def test_needs_arrive_and_nonsense_is_refused():
    assert read_needs(needs_record(NEEDS)) == NEEDS
    blind = dataclasses.replace(NEEDS, keys=(STATE,), actions=None)
    assert read_needs(needs_record(blind)) == blind
    framed = dataclasses.replace(NEEDS, offsets=((0, 1), (2, 0)))
    assert read_needs(needs_record(framed)) == framed
    record = needs_record(NEEDS)
    for bad in (
        None,
        [],
        record | {"action_dim": 0},
        record | {"image_size": "many"},
        record | {"actions": {"x": 1}},
        {**record, "offsets": [[0, 4]]},
        {**record, "offsets": [1]},
    ):
        with pytest.raises(ProtocolError, match="needs"):
            read_needs(bad)
