"""Foreign keys get the names of the store by rules, users change that, and no value changes unasked."""

import numpy as np
import pytest
import yaml

from embodied.core.errors import UsageError, UserError
from embodied.datasets.key_casting import ImageOptions, cast, cast_spec
from embodied.datasets.key_mapping import mapping_yaml, own_name, revise
from embodied.datasets.key_proposal import hints, propose
from embodied.datasets.store.episode_index import KeySpec

HWC = ImageOptions()


def picture(size=64, **more):
    return KeySpec("uint8", (size, size, 3), **more)


def floats(*shape, names=()):
    return KeySpec("float64", shape, names=names)


def names(keys, **options):
    return {name: foreign for name, foreign in propose(keys, **options).sources.items()}


@pytest.mark.parametrize(
    ("foreign", "spec", "name"),
    [
        ("actions", floats(7), "action"),
        ("steps/action", floats(7), "action"),
        ("teleop/action", floats(7), "action"),
        ("/cmd_vel", floats(6), "action"),
        ("state", floats(7), "observation.state"),
        ("obs/proprio", floats(7), "observation.state"),
        ("observations/qpos", floats(7), "observation.state"),
        ("agent_pos", floats(2), "observation.state"),
        ("/joint_states.position", floats(6), "observation.state"),
        ("obs/object", floats(10), "observation.environment_state"),
        ("rewards", floats(), "next.reward"),
        ("reward", floats(1), "next.reward"),
        ("dones", KeySpec("int64", ()), "next.done"),
        ("steps/is_last", KeySpec("bool", ()), "next.done"),
        ("success", KeySpec("uint8", ()), "next.success"),
        ("timestamp", KeySpec("float32", (1,)), "timestamp"),
        ("image", picture(), "observation.images.image"),
        ("jpg", picture(), "observation.images.image"),
        ("left.png", picture(), "observation.images.left"),
        ("wrist_image_left", picture(), "observation.images.wrist_left"),
        ("obs/agentview_image", picture(), "observation.images.agentview"),
        ("camera0_rgb", picture(), "observation.images.camera0"),
        ("steps/observation/image_0", picture(), "observation.images.image_0"),
        ("/head/color/image_raw/compressed", picture(), "observation.images.head"),
        ("observation.images.front_rgb", picture(), "observation.images.front_rgb"),
        ("obs/agentview_depth", KeySpec("float32", (64, 64, 1)), "observation.depth.agentview"),
        ("/head/aligned_depth_to_color/image_raw", KeySpec("uint16", (48, 64)), "observation.depth.head"),
        ("/head/image_raw", KeySpec("uint16", (48, 64)), "observation.raw.head"),
        ("bayer", KeySpec("uint8", (48, 64)), "observation.raw.bayer"),
    ],
)
def test_known_names_are_recognised(foreign, spec, name):
    assert names({foreign: spec}) == {name: (foreign,)}


@pytest.mark.parametrize(
    ("foreign", "spec"),
    [
        ("states", floats(32)),  # a simulator's state is neither proprioception nor fit for float32
        ("action", floats(2, 7)),
        ("image", KeySpec("uint8", (4, 4, 3))),
        ("image", KeySpec("float32", (64, 64, 3))),
        ("segmentation", KeySpec("uint8", (64, 64))),
        ("depth", KeySpec("float64", (64, 64))),
        ("reward", floats(2)),
        ("next_obs/robot0_eef_pos", floats(3)),
        ("something", floats(3)),
    ],
)
def test_what_is_unfamiliar_keeps_its_own_name_or_is_dropped(foreign, spec):
    keys = {foreign: spec, "actions": floats(7)}
    if foreign == "action":
        keys.pop("actions")
    kept = names(keys)
    assert kept[own_name(foreign)] == (foreign,)
    if len(keys) > 1:
        assert list(names(keys, unfamiliar="drop")) == ["action"]


def test_pieces_of_a_state_are_joined_when_no_key_is_the_whole():
    pieces = {"obs/robot0_eef_pos": floats(3), "obs/robot0_eef_quat": floats(4), "obs/robot0_gripper_qpos": floats(2)}
    others = {"obs/robot0_joint_vel": floats(7), "action_dict/joint_position": floats(7)}
    assert names({**pieces, **others})["observation.state"] == tuple(pieces)
    assert names({**pieces, "state": floats(9)})["observation.state"] == ("state",)


def test_gymnasiums_two_ends_become_one_done():
    keys = {"terminations": KeySpec("bool", ()), "truncations": KeySpec("bool", ())}
    mapping = propose(keys)
    assert mapping.sources == {"next.done": ("terminations", "truncations")}
    block = {"terminations": np.array([False, True, False]), "truncations": np.array([False, False, True])}
    made = mapping.apply(block, mapping.specs(keys, HWC), HWC)
    assert made["next.done"].tolist() == [False, True, True]


def test_two_pictures_of_one_camera_keep_their_whole_names():
    keys = {"head/color/image": picture(), "head/rgb/image": picture(), "left/image": picture()}
    assert list(names(keys)) == [f"observation.images.{key.replace('/', '.')}" for key in keys]


def test_our_own_names_stay_and_count_as_no_change():
    keys = {"observation.images.a": picture(), "observation.state": KeySpec("float32", (3,)), "action": floats(2)}
    assert names(keys) == {key: (key,) for key in keys}
    assert propose(keys).changes(keys, HWC)  # the action becomes float32
    keys["action"] = KeySpec("float32", (2,))
    assert not propose(keys).changes(keys, HWC)


def test_changes_win_and_give_displaced_keys_their_own_names_back():
    keys = {"actions": floats(7), "actions_abs": floats(7), "debug": floats(2), "j": floats(6), "g": floats(1)}
    changes = {"actions_abs": "action", "debug": None, "observation.state": ["j", "g"]}
    mapping = revise(propose(keys), keys, changes)
    assert mapping.sources == {"actions": ("actions",), "action": ("actions_abs",), "observation.state": ("j", "g")}


def test_a_piece_can_be_taken_out_of_a_joined_proposal():
    keys = {"eef_pos": floats(3), "eef_quat": floats(4), "gripper_pos": floats(1)}
    assert revise(propose(keys), keys, {"eef_quat": None}).sources == {"observation.state": ("eef_pos", "gripper_pos")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acton": "action"}, "unknown key of the source 'acton': did you mean actions?"),
        ({"actions": "action", "state": "action"}, "actions and state both become action"),
        ({"actions": "state"}, "map: actions and state both become state: map state too"),
        ({"actions": "a/b"}, "'a/b' is not the name of a key"),
        ({"actions": 3}, "3 is not the name of a key"),
        ({"actions": ["state"], "state": "x"}, "state is used twice"),
        ({"observation.state": ["state", "state"]}, "state is used twice"),
        ({"observation.state": []}, "is not the name of a key"),
        ({"observation.state": ["stat"]}, "did you mean state"),
    ],
)
def test_mistakes_in_a_mapping_are_named(changes, message):
    keys = {"actions": floats(7), "state": floats(3)}
    proposal = propose(keys) if "both become state" not in message else revise(propose(keys), keys, {"state": "state"})
    with pytest.raises(UsageError, match=message):
        revise(proposal, keys, changes)


def test_the_printed_mapping_reads_back_as_itself():
    keys = {
        "on": floats(2),
        "it's odd": floats(),
        "obs/eef_pos": floats(3),
        "obs/gripper_pos": floats(1),
        "x": floats(9),
    }
    mapping = revise(propose(keys), keys, {"x": None, "on": "action"})
    text = mapping_yaml(mapping, keys, HWC)
    assert revise(propose(keys), keys, yaml.safe_load(text)) == mapping
    assert "on'" in text and "-> float32 [T, 4]" in text and "left out" in text


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("observation.images.a", KeySpec("float32", (64, 64, 3)), "float_images=1 or 255"),
        ("observation.images.a", KeySpec("uint8", (3, 64, 64)), "layout=chw"),
        ("observation.images.a", KeySpec("uint8", (64, 64)), r"takes uint8 \[H, W, 3\], and x is uint8"),
        ("observation.depth.a", KeySpec("float64", (64, 64)), "takes uint16 or float32"),
        ("observation.state", floats(2, 3), "takes a number or a vector"),
        ("next.reward", floats(2), "takes one number per frame"),
    ],
)
def test_a_name_refuses_what_does_not_fit(name, spec, message):
    with pytest.raises(UsageError, match=message):
        cast_spec(name, {"x": spec}, HWC)


def made(name, spec, array, images=HWC):
    return cast(name, cast_spec(name, {"x": spec}, images), {"x": array}, images)


def test_vectors_become_float32_and_keep_their_names():
    joined = cast_spec("action", {"arm": floats(2, names=("a", "b")), "grip": floats(), "free": floats(2)}, HWC)
    assert joined == KeySpec("float32", (5,), names=("arm.a", "arm.b", "grip", "free.0", "free.1"))
    assert cast_spec("action", {"arm": floats(2, names=("a", "b"))}, HWC).names == ("a", "b")
    array = np.array([[1.0, 0.1], [2.0, -3.5]])
    assert np.array_equal(made("action", floats(2), array), array.astype(np.float32))
    assert made("action", KeySpec("int64", ()), np.array([3, 1])).tolist() == [[3.0], [1.0]]
    with pytest.raises(UserError, match="cannot hold whole numbers"):
        made("action", KeySpec("int64", ()), np.array([1 << 24, (1 << 24) + 1]))
    with pytest.raises(UserError, match="nan or infinity at frame 1"):
        made("action", floats(), np.array([0.0, 1e300]))


def test_flags_must_be_zero_or_one():
    assert made("next.done", floats(1), np.array([[0.0], [1.0]])).tolist() == [False, True]
    with pytest.raises(UserError, match=r"expected only 0 and 1 for next\.done, got 2"):
        made("next.done", KeySpec("int64", ()), np.array([0, 2]))


def test_depth_and_raw_keep_every_bit():
    depth = np.array([np.nan, np.inf, -0.0, 1.5], np.float32).reshape(1, 2, 2, 1)
    kept = made("observation.depth.a", KeySpec("float32", (2, 2, 1)), depth)
    assert kept.shape == (1, 2, 2) and kept.tobytes() == depth.tobytes()
    raw = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    assert made("observation.raw.a", KeySpec("uint16", (2, 2)), raw) is raw


def test_images_are_turned_and_scaled_only_on_request():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 3, 8, 10), dtype=np.uint8)
    turned = made("observation.images.a", KeySpec("uint8", (3, 8, 10)), frames, ImageOptions(layout="chw"))
    assert np.array_equal(turned, frames.transpose(0, 2, 3, 1))
    whole = frames.transpose(0, 2, 3, 1)
    for white, array in ((1, whole.astype(np.float32) / 255), (255, whole.astype(np.float64))):
        images = ImageOptions(float_images=white)
        assert np.array_equal(made("observation.images.a", KeySpec(str(array.dtype), (8, 10, 3)), array, images), whole)
    with pytest.raises(UserError, match=r"expects values in \[0, 1\]"):
        made("observation.images.a", floats(8, 10, 3), whole.astype(np.float64), ImageOptions(float_images=1))


def test_codecs_follow_the_source_unless_told():
    lossy = picture(codec="jpeg")
    assert [cast_spec("observation.images.a", {"x": lossy}, ImageOptions(codec=c)).codec for c in ("auto", "zstd")] == [
        "jpeg",
        "zstd",
    ]
    assert cast_spec("observation.images.a", {"x": picture()}, ImageOptions(codec="jpeg")).codec == "jpeg"
    with pytest.raises(UsageError, match="did you mean jpeg"):
        ImageOptions(codec="jpg")


def test_pictures_that_need_an_option_are_hinted_at():
    keys = {"img": KeySpec("float32", (96, 96, 3)), "image": KeySpec("uint8", (3, 96, 96)), "state": floats(3)}
    assert [hint.split(":")[0].split(" ")[0] for hint in hints(keys, HWC)] == ["img", "image"]
    assert not hints(keys, ImageOptions(layout="chw", float_images=255))
