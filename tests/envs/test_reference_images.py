"""Every suite looks as it did, roughly: GL libraries differ in single pixels."""

import numpy as np
import pytest
from PIL import Image
from reference_images import FOLDER, distance, frame_of

from embodied.core.errors import MissingExtraError
from embodied.envs.registry import suite_names
from embodied.envs.rendering import free_camera
from embodied.envs.task_env import TaskEnv

TOLERANCE = 12  # grey levels; a light that is out or a camera that is elsewhere makes more
COARSENESS = 2  # grey levels by which `lean+` may differ from `lean`

pytestmark = pytest.mark.sim


def seen(suite, **options):
    try:
        return frame_of(suite, **options)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("suite", suite_names())
def test_a_suite_looks_as_it_did(suite):
    reference = np.asarray(Image.open(FOLDER / f"{suite}.png"))
    frame = seen(suite, render="lean")
    assert distance(frame, reference) < TOLERANCE
    # The tolerance tells this view from others: turned, mirrored and dimmed pictures are outside of it.
    assert min(distance(other, reference) for other in (frame[::-1, ::-1], frame // 2)) > TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("suite", suite_names())
def test_lean_is_the_picture_of_mujocos_renderer(suite):
    import mujoco

    try:
        env = TaskEnv(suite=suite, image_size=96)
    except MissingExtraError as error:
        pytest.skip(str(error))
    env.reset(seed=1)
    simulation = env.simulation
    camera = simulation.spec.cameras[env.cameras[0]]
    plain = mujoco.Renderer(simulation.model, 96, 96)
    for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG"):
        plain.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
    env.action_space.seed(1)
    for _ in range(6):
        env.step(env.action_space.sample())
        view = camera.name or free_camera(simulation.model, simulation.data, camera)
        plain.update_scene(simulation.data, camera=view)
        frame = plain.render()
        assert np.array_equal(env.render(), frame[::-1, ::-1] if camera.flip else frame)
    plain.close()
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("suite", suite_names())
def test_coarse_meshes_hardly_show(suite):
    assert (
        distance(seen(suite, render="lean+", image_size=128), seen(suite, render="lean", image_size=128)) < COARSENESS
    )
