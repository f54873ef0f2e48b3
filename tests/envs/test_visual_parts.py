"""What looks are made of: parts of a scene, surfaces, light, cameras, clutter."""

from types import SimpleNamespace

import numpy as np
import pytest

from embodied.envs.simulation import Camera
from embodied.envs.visuals.cameras import View, orbit
from embodied.envs.visuals.distractors import scatter
from embodied.envs.visuals.draw import Wardrobe, make_visuals
from embodied.envs.visuals.lighting import daylight
from embodied.envs.visuals.look import Draft
from embodied.envs.visuals.parts import scene_parts
from embodied.envs.visuals.patterns import PATTERNS, draw_texture
from embodied.envs.visuals.surfaces import Projection, Surface

pytestmark = pytest.mark.sim  # importing mujoco warns where nothing renders

ROOM = """<mujoco><worldbody>
  <light pos="0 0 3"/><camera name="front" pos="0 -1.5 1.2" xyaxes="1 0 0 0 0.5 0.866"/>
  <geom name="floor" type="plane" size="3 3 .1"/>
  <geom name="wall" type="box" size="2 .02 1" pos="0 2 1"/>
  <body name="bench" pos="0 0 .38"><geom name="top" type="box" size=".5 .5 .02" contype="0"/>
    <geom name="leg" type="box" size=".02 .02 .18" pos=".4 .4 -.2"/></body>
  <body name="cup" pos=".1 .1 .43"><freejoint/><geom name="cup" type="box" size=".03 .03 .03"/></body>
  <body name="chest" pos="-.3 .3 .45"><geom name="frame" type="box" size=".05 .05 .05"/>
    <body name="lid" pos="0 0 .06"><joint type="hinge"/><geom name="lid" type="box" size=".05 .05 .01"/></body></body>
  <body name="base" pos="0 -.3 .4"><geom name="base" type="cylinder" size=".05 .05"/>
    <body name="arm"><joint name="turn" type="hinge"/><geom name="arm" type="capsule" size=".03 .3" pos="0 0 .4"/>
    </body></body>
  <geom name="hidden" type="sphere" size=".1" group="4"/>
</worldbody><actuator><motor joint="turn"/></actuator></mujoco>"""
RUNNER = """<mujoco><worldbody><light pos="0 0 3"/><geom name="ground" type="plane" size="0 0 1"/>
  <body name="torso" pos="0 0 .5"><freejoint/><geom name="torso" type="capsule" size=".05 .2" euler="0 90 0"/>
    <camera name="front" pos="0 -2 .2" xyaxes="1 0 0 0 0 1" mode="trackcom"/>
    <body name="leg" pos=".1 0 0"><joint name="hip" axis="0 1 0"/><geom name="leg" type="capsule" size=".03 .1"/></body>
  </body></worldbody><actuator><motor joint="hip"/></actuator></mujoco>"""
FRONT = {"front": Camera(name="front")}


def simulated(xml):
    import mujoco

    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return SimpleNamespace(model=model, data=data, spec=SimpleNamespace(cameras=FRONT))


@pytest.fixture(scope="module")
def room():
    return simulated(ROOM)


@pytest.fixture
def runner():
    return simulated(RUNNER)


def names(model, geoms):
    return {model.geom(int(geom)).name for geom in geoms}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_squares_of_values_in_0_to_1(pattern):
    for seed in range(5):
        values = pattern(np.random.default_rng(seed), 32)
        assert values.shape == (32, 32)
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1


def test_more_contrast_is_more_spread():
    spreads = [
        draw_texture(np.random.default_rng(2), 32, contrast=contrast).std((0, 1)).sum() for contrast in (0, 0.3, 1)
    ]
    assert spreads[0] == 0
    assert spreads[1] < spreads[2]


def test_a_surface_mixes_with_a_picture_and_with_a_colour():
    grey = Surface(rgba=np.array([0.5, 0.5, 0.5, 0.25], np.float32))
    half = grey.mixed(amount=0.5, colour=np.array([1, 0, 0], np.float32))
    assert half.picture is None
    assert np.allclose(half.rgba, [0.75, 0.25, 0.25, 0.25])
    papered = grey.mixed(amount=0.5, picture=np.full((128, 128, 3), 255, np.uint8))
    assert np.allclose(papered.rgba, [1, 1, 1, 0.25])
    assert papered.picture.shape == (128, 128, 3)
    assert np.all(papered.picture == 191)  # half way from 127 to 255
    faded = papered.mixed(amount=1.0, colour=np.array([0, 1, 0], np.float32))
    assert np.all(faded.picture == 255)
    assert np.allclose(faded.rgba, [0, 1, 0, 0.25])


def test_light_is_as_bright_whatever_its_colour():
    warm, cold = daylight(150.0), daylight(-60.0)
    assert np.allclose(daylight(0.0), 1)
    assert warm[0] > 1 > warm[2]
    assert cold[0] < 1 < cold[2]
    assert warm.mean() == pytest.approx(1)


def test_an_orbit_keeps_what_it_looks_at():
    axes = np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    view = View(position=np.array([0, -0.8, 0.6]), axes=axes, fovy=45.0, distance=1.0, mounted=False)
    assert np.allclose(view.look_at, 0)
    moved = orbit(view, azimuth=20, elevation=-10, distance=1.5, aim=np.zeros(2))
    assert np.allclose(moved.look_at, 0, atol=1e-9)
    assert np.linalg.norm(moved.position) == pytest.approx(1.5)
    assert np.allclose(moved.axes.T @ moved.axes, np.eye(3), atol=1e-9)
    assert moved.axes[2, 0] == pytest.approx(0, abs=1e-9)  # the horizon stays level
    assert view.sees(np.array([[0.0, 0, 0], [2, 0, 0], [0, -2, 1.5]])).tolist() == [True, False, False]


def test_parts_of_a_room(room):
    parts = scene_parts(room.model, room.data)
    assert names(room.model, parts.robot) == {"base", "arm"}
    assert names(room.model, parts.objects) == {"cup", "frame", "lid"}
    assert names(room.model, parts.table) == {"top", "leg"}
    assert names(room.model, parts.background) == {"floor", "wall"}
    assert parts.high[2] == pytest.approx(0.4)
    assert parts.size == pytest.approx(0.5)
    assert not parts.on_floor


def test_a_robot_alone_on_the_floor_is_its_own_object(runner):
    parts = scene_parts(runner.model, runner.data)
    assert names(runner.model, parts.robot) == {"torso", "leg"}
    assert names(runner.model, parts.table) == {"ground"}
    assert len(parts.objects) == len(parts.background) == 0
    assert parts.on_floor
    look = Wardrobe(shifts=["objects"], strength=3).draw(0, runner, ["front"])
    assert names(runner.model, look.paints) == {"torso", "leg"}


def test_clutter_repeats_for_a_camera_that_travels(runner):
    import mujoco

    look = Wardrobe(shifts=["distractors"], strength=5).draw(0, runner, ["front"])
    assert look.props
    offsets = []
    for distance in (0.0, 0.3, 10 * look.period):
        runner.data.qpos[0] = distance
        mujoco.mj_forward(runner.model, runner.data)
        scene, view = mujoco.MjvScene(runner.model, 100), mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, 0
        mujoco.mjv_updateScene(runner.model, runner.data, mujoco.MjvOption(), None, view, 7, scene)
        before = scene.ngeom
        look.dress(scene, FRONT["front"], still=True)
        offsets.append(scene.geoms[before].pos[0] - look.props[0][0].position[0])
    assert offsets == pytest.approx([0, 0, 10 * look.period], abs=1e-5)


def test_clutter_stands_on_the_table_and_apart(room):
    for seed in range(5):
        draft = Draft(room, ["front"], {})
        scatter(draft, np.random.default_rng(seed), 6)
        assert 2 <= len(draft.props) <= 6
        view = draft.views[FRONT["front"]]
        for prop in draft.props:
            assert np.all(np.abs(prop.position[:2]) < 0.5)
            assert prop.position[2] - prop.height == pytest.approx(0.4, abs=1e-6)
            assert np.linalg.norm(prop.position[:2] - [0.1, 0.1]) > 0.05
            assert view.sees(prop.position[None] - [0, 0, prop.height])[0]


def test_more_clutter_keeps_the_first_in_place(room):
    few, many = Draft(room, ["front"], {}), Draft(room, ["front"], {})
    scatter(few, np.random.default_rng(1), 2)
    scatter(many, np.random.default_rng(1), 8)
    assert len(many.props) > len(few.props)
    for one, other in zip(few.props, many.props, strict=False):
        assert np.array_equal(one.position, other.position)


def test_a_full_scene_takes_no_more(room):
    import mujoco

    look = make_visuals(visuals="varied", shift="all", strength=5).draw(0, room, ["front"])
    assert len(look.props) + len(look.room) > 6
    for capacity in (12, 14, 18):
        scene = mujoco.MjvScene(room.model, capacity)
        mujoco.mjv_updateScene(room.model, room.data, mujoco.MjvOption(), None, mujoco.MjvCamera(), 7, scene)
        before = scene.ngeom
        look.dress(scene, FRONT["front"], still=True)
        assert before < scene.ngeom <= capacity


def test_what_is_added_belongs_to_the_parts_that_stand_still(room):
    import mujoco

    look = make_visuals(visuals="varied", shift=None, strength=3).draw(0, room, ["front"])
    scene = mujoco.MjvScene(room.model, 100)
    mujoco.mjv_updateScene(room.model, room.data, mujoco.MjvOption(), None, mujoco.MjvCamera(), 6, scene)
    before = scene.ngeom
    look.dress(scene, FRONT["front"], still=False)
    assert scene.ngeom == before


def test_the_model_is_only_read(room):
    def contents():
        arrays = (name for name in dir(room.model) if isinstance(getattr(room.model, name), np.ndarray))
        return {name: getattr(room.model, name).tobytes() for name in arrays}

    before = contents()
    assert len(before) > 200
    make_visuals(visuals="varied", shift="all", strength=5).draw(0, room, ["front"])
    assert contents() == before


def test_cubes_and_planes_take_pictures_their_own_way(room):
    draft = Draft(room, ["front"], {})
    model = room.model
    picture = np.zeros((128, 128, 3), np.uint8)
    draft.cover(np.array([model.geom("floor").id, model.geom("cup").id]), amount=1.0, picture=picture)
    assert {surface.projection for surface in draft.finished().pictures} == {Projection.FLAT, Projection.CUBE}
