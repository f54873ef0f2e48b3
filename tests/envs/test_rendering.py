"""The renderer: to the last bit what MuJoCo's own gives, whatever it leaves out, puts together or keeps."""

from itertools import pairwise

import numpy as np
import pytest

from embodied.core.errors import UsageError
from embodied.envs.coarse_meshes import clustered_faces
from embodied.envs.rendering import FrameRenderer, free_camera
from embodied.envs.simulation import Camera
from embodied.envs.still_layer import StillLayer, put_over, upright
from embodied.envs.task_env import TaskEnv

# A room with a texture, a lamp, a standing and a moving camera, something that moves into view, and something behind.
ROOM = """
<mujoco>
  <asset>
    <texture name="t" type="2d" builtin="checker" width="32" height="32" rgb1=".2 .3 .4" rgb2=".8 .7 .6"/>
    <material name="m" texture="t" texrepeat="4 4" reflectance=".3"/>
  </asset>
  <worldbody>
    <light pos="0 0 3" castshadow="true"/>
    <camera name="front" pos="0 -2 1" xyaxes="1 0 0 0 .4 .9"/>
    <geom name="floor" type="plane" size="2 2 .1" material="m"/>
    <geom name="wall" type="box" size="1 .05 .5" pos="0 1 .5" rgba=".5 .4 .3 1"/>
    <geom name="behind" type="box" size=".1 .1 .1" pos="0 -3 1" rgba="1 1 0 1"/>
    <body name="slider" pos="-.4 0 .3">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <camera name="carried" pos="0 -.8 .3" xyaxes="1 0 0 0 .4 .9"/>
      <geom name="ball" type="sphere" size=".2" rgba=".9 .1 .1 1"/>
      <geom name="stick" type="capsule" size=".05 .3" pos="0 0 .2" rgba=".1 .8 .1 {alpha}"/>
    </body>
    <body name="far" pos="3 0 .3">
      <joint name="far" type="slide" axis="1 0 0"/>
      <geom name="distant" type="sphere" size=".2" rgba=".1 .1 .9 1"/>
    </body>
    <site name="off" pos="0 0 .4" size=".3" rgba="0 1 0 -1"/>
  </worldbody>
</mujoco>
"""
FRONT = Camera(name="front")
TURNED = Camera(name="front", flip=True)
CARRIED = Camera(name="carried")
FREE = Camera(position=(0.5, -1.5, 1.5), target="slider", fovy=60.0)
OFF = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG")


def room(alpha=1.0):
    import mujoco

    model = mujoco.MjModel.from_xml_string(ROOM.format(alpha=alpha))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def move(model, data, *, slide=0.0, far=0.0):
    import mujoco

    data.joint("slide").qpos[0], data.joint("far").qpos[0] = slide, far
    mujoco.mj_forward(model, data)


class Plain:
    """MuJoCo's own renderer, with the same left out."""

    def __init__(self, model, size):
        import mujoco

        self.renderer = mujoco.Renderer(model, size, size)
        for flag in OFF:
            self.renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        self.model = model

    def render(self, data, camera):
        self.renderer.update_scene(data, camera=camera.name or free_camera(self.model, data, camera))
        frame = self.renderer.render()
        return frame[::-1, ::-1] if camera.flip else frame

    def close(self):
        self.renderer.close()


@pytest.mark.sim
@pytest.mark.parametrize("alpha", [1.0, 0.5], ids=["opaque", "see-through"])
def test_lean_is_the_picture_of_mujocos_renderer(alpha):
    model, data = room(alpha)
    lean = FrameRenderer(model, height=64, width=64)
    plain = Plain(model, 64)
    frames = []
    for slide, far in ((0, 0), (0, 0), (0.1, 0), (0.3, -2.5), (0.4, -3), (0.5, -3)):
        move(model, data, slide=slide, far=far)
        for camera in (FRONT, TURNED, CARRIED, FREE):
            frame = lean.render(data, camera)
            assert np.array_equal(frame, plain.render(data, camera)), (slide, far, camera)
        frames.append(frame)
    assert any(not np.array_equal(*pair) for pair in pairwise(frames))
    layered = [layer.opaque and layer.frame is not None for layer in lean._layers.values()]
    assert layered == ([True, True, False, False] if alpha == 1 else [False] * 4)
    lean.close()
    plain.close()


@pytest.mark.sim
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.geom("wall").rgba.__setitem__(slice(None), [0, 1, 1, 1]),
        lambda model: model.geom("wall").pos.__setitem__(2, 0.8),
        lambda model: model.geom("wall").rgba.__setitem__(3, 0.4),
        lambda model: model.mat("m").rgba.__setitem__(slice(None), [1, 0, 0, 1]),
        lambda model: model.light(0).diffuse.__setitem__(slice(None), 0.2),
        lambda model: model.light(0).pos.__setitem__(0, 2.0),
        lambda model: model.cam("front").pos.__setitem__(2, 1.3),
        lambda model: model.cam("front").fovy.__setitem__(0, 70.0),
        lambda model: model.vis.headlight.ambient.__setitem__(slice(None), 0.5),
        lambda model: model.site("off").rgba.__setitem__(3, 1.0),
    ],
    ids=["colour", "place", "opacity", "material", "light", "lamp", "camera", "zoom", "headlight", "site"],
)
def test_what_is_drawn_once_is_drawn_again_when_it_has_changed(change):
    model, data = room()
    lean = FrameRenderer(model, height=48, width=48)
    plain = Plain(model, 48)
    for _ in range(3):
        before = lean.render(data, FRONT)
    change(model)
    move(model, data)
    for _ in range(3):
        assert np.array_equal(lean.render(data, FRONT), plain.render(data, FRONT))
    assert not np.array_equal(lean.render(data, FRONT), before)
    lean.close()
    plain.close()


@pytest.mark.sim
@pytest.mark.parametrize("quality", ["lean", "full"])
def test_new_terrain_is_seen(quality):
    import mujoco

    model = mujoco.MjModel.from_xml_string(
        """<mujoco><asset><hfield name="h" nrow="3" ncol="3" size="1 1 1 .1"/></asset><worldbody><light pos="0 0 3"/>
        <camera name="front" pos="0 -2 2" xyaxes="1 0 0 0 .7 .7"/><geom type="hfield" hfield="h"/>
        </worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = FrameRenderer(model, height=32, width=32, quality=quality)
    flat = [renderer.render(data, FRONT) for _ in range(3)][-1]
    model.hfield_data[4] = 1
    other = FrameRenderer(model, height=32, width=32, quality=quality)
    hill = other.render(data, FRONT)
    assert not np.array_equal(hill, flat)
    for _ in range(3):
        assert np.array_equal(renderer.render(data, FRONT), hill)
    renderer.close()
    other.close()


@pytest.mark.sim
def test_the_model_is_left_as_it_was():
    model, data = room()
    names = ("geom_group", "site_group", "geom_rgba", "site_rgba", "geom_pos")
    before = {name: getattr(model, name).copy() for name in names}
    renderer = FrameRenderer(model, height=16, width=16, quality="lean+")
    for _ in range(3):
        renderer.render(data, FRONT)
    assert all(np.array_equal(getattr(model, name), before[name]) for name in names)
    renderer.close()


@pytest.mark.sim
def test_several_cameras_of_one_renderer_are_those_of_several():
    model, data = room()
    together = FrameRenderer(model, height=32, width=48)
    for camera in (FRONT, CARRIED, FREE, TURNED):
        alone = FrameRenderer(model, height=32, width=48)
        for slide in (0.0, 0.0, 0.2):
            move(model, data, slide=slide)
            frame = together.render(data, camera)
            assert frame.shape == (32, 48, 3)
            assert frame.dtype == np.uint8
            assert np.array_equal(frame, alone.render(data, camera))
        alone.close()
    together.close()


@pytest.mark.sim
def test_frames_have_memory_of_their_own():
    model, data = room()
    renderer = FrameRenderer(model, height=16, width=16)
    frames = [renderer.render(data, FRONT) for _ in range(4)]
    kept = frames[3].copy()
    frames[0][:] = frames[1][:] = frames[2][:] = 0
    assert np.array_equal(renderer.render(data, FRONT), kept)
    renderer.close()


@pytest.mark.sim
def test_full_keeps_shadows_and_edges_smooth():
    model, data = room()
    samples = model.vis.quality.offsamples
    renderer = FrameRenderer(model, height=64, width=64, quality="full")
    assert model.vis.quality.offsamples == samples > 0
    full = renderer.render(data, FRONT)
    renderer.close()
    renderer = FrameRenderer(model, height=64, width=64)
    assert np.abs(full.astype(int) - renderer.render(data, FRONT)).mean() > 2
    renderer.close()


@pytest.mark.sim
def test_the_context_is_given_back():
    model, data = room()
    renderer = FrameRenderer(model, height=8, width=8)
    renderer.render(data, FRONT)
    renderer.close()
    renderer.close()
    for _ in range(3):
        again = FrameRenderer(model, height=8, width=8)
        assert again.render(data, FRONT).any()
        again.close()


def test_misspelt_quality():
    with pytest.raises(UsageError, match="did you mean lean"):
        FrameRenderer(None, height=8, width=8, quality="leann")


def test_what_moves_is_put_over_by_its_depth():
    still = StillLayer((b"", b""), None, True, np.full((2, 2, 3), 1, np.uint8), np.float32([[0, 0.5], [0.5, 0.5]]))
    moving, depth = np.full((2, 2, 3), 9, np.uint8), np.float32([[0, 0.4], [0.5, 0.6]])
    assert put_over(still, moving, depth, turned=False)[..., 0].tolist() == [[9, 9], [1, 1]]  # bottom up before
    assert put_over(still, moving, depth, turned=True)[..., 0].tolist() == [[1, 1], [9, 9]]


def test_frames_are_put_upright():
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert upright(frame, turned=False).tolist() == [[[6, 7, 8], [9, 10, 11]], [[0, 1, 2], [3, 4, 5]]]
    assert upright(frame, turned=True).tolist() == [[[3, 4, 5], [0, 1, 2]], [[9, 10, 11], [6, 7, 8]]]


def test_vertices_of_a_cell_become_the_one_nearest_to_their_mean():
    vertices = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.3, 0, 0], [1.2, 0, 0], [0, 1.2, 0], [0.1, 1.3, 0]])
    faces = np.array([[0, 3, 4], [0, 1, 3], [3, 5, 1], [1, 4, 3], [2, 3, 5]])
    kept, corners = clustered_faces(vertices, faces, cell=1.0)
    # The second has collapsed; the third and the last are the first again; the fourth is its other side.
    assert kept.tolist() == [0, 3]
    assert corners.tolist() == [[1, 3, 4], [1, 4, 3]]


def test_a_cell_smaller_than_all_edges_changes_nothing():
    vertices = np.eye(3)
    kept, corners = clustered_faces(vertices, np.array([[0, 1, 2]]), cell=0.1)
    assert (kept.tolist(), corners.tolist()) == ([0], [[0, 1, 2]])


@pytest.mark.sim
def test_coarse_meshes_are_the_renderers_alone():
    env = TaskEnv(render="lean+", image_size=32)
    model = env.simulation.model
    faces, count = model.mesh_face.copy(), model.mesh_facenum.copy()
    env.reset(seed=0)
    assert np.array_equal(model.mesh_face, faces)
    assert np.array_equal(model.mesh_facenum, count)
    env.close()
