"""Looks of episodes on a task: what shifts change, and what they must leave alone."""

import numpy as np
import pytest

from embodied.core.errors import UsageError
from embodied.envs.visuals.draw import SHIFTS, Wardrobe, make_visuals
from embodied.envs.visuals.parts import scene_parts
from embodied.envs.visuals.varied import Ranges


@pytest.fixture(scope="module")
def hammer():
    from embodied.envs.task_env import TaskEnv

    env = TaskEnv(task="hammer-v3", image_size=64)
    env.reset(seed=0)
    yield env
    env.close()


def worn(env, seed, wardrobe):
    """The frame of an env's present state in a look."""
    look = wardrobe.draw(seed, env.simulation, env.cameras)
    camera = env.spec_of_task.cameras[env.cameras[0]]
    return env._renderer.render(env.simulation.data, camera, look)


def test_nothing_to_draw_without_shift_or_variety():
    assert make_visuals(visuals="static", shift=None, strength=3) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visuals": "varied "}, "unknown visuals 'varied ': did you mean varied"),
        ({"shift": "ligth"}, "unknown shift 'ligth': did you mean light"),
        ({"shift": "light+tabel"}, "unknown shift 'tabel': did you mean table"),
        ({"shift": "light+light"}, "light is there twice"),
        ({"shift": ""}, "unknown shift ''"),
        ({"strength": 0}, "shift_strength must be 1 to 5, got 0"),
        ({"strength": 6}, "shift_strength must be 1 to 5, got 6"),
        ({"strength": True}, "shift_strength must be 1 to 5, got True"),
    ],
)
def test_bad_options_say_what_would_be_good(options, message):
    with pytest.raises(UsageError, match=message):
        make_visuals(**{"visuals": "static", "shift": "light", "strength": 3, **options})


@pytest.mark.sim
def test_parts_of_metaworlds_hammer(hammer):
    model = hammer.simulation.model
    parts = scene_parts(model, hammer.simulation.data)
    bodies = {
        part: {model.body(model.geom_bodyid[geom]).name for geom in getattr(parts, part)}
        for part in ("robot", "objects", "table", "background")
    }
    assert bodies["objects"] == {"hammer", "hammerblock", "nail_link"}
    assert bodies["table"] == {"tablelink", "RetainingWall"}
    assert bodies["background"] == {"world"}
    assert {"right_l0", "right_hand", "leftpad", "pedestal"} <= bodies["robot"]
    assert not bodies["robot"] & (bodies["objects"] | bodies["table"])


@pytest.mark.sim
@pytest.mark.parametrize("visuals", ["static", "varied"])
def test_the_same_seed_gives_the_same_look(hammer, visuals):
    frames = []
    for seed in (5, 6, 5):
        wardrobe = make_visuals(visuals=visuals, shift="all", strength=2)
        frames.append(worn(hammer, seed, wardrobe))
    assert np.array_equal(frames[0], frames[2])
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 5


@pytest.mark.sim
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_higher_strength_changes_the_picture_more(hammer, shift):
    plain = worn(hammer, 0, Wardrobe()).astype(float)
    changes = np.zeros(6)
    for strength in range(1, 6):
        for seed in range(3):
            frame = worn(hammer, seed, Wardrobe(shifts=[shift], strength=strength))
            changes[strength] += np.abs(frame - plain).mean() / 3
    assert np.all(np.diff(changes) > 0), changes


@pytest.mark.sim
def test_a_shift_draws_the_same_with_others_beside_it(hammer):
    alone = Wardrobe(shifts=["table"], strength=4).draw(3, hammer.simulation, hammer.cameras)
    beside = Wardrobe(shifts=["light", "table", "noise"], strength=4).draw(3, hammer.simulation, hammer.cameras)
    assert alone.paints.keys() == beside.paints.keys()
    for one, other in zip(alone.pictures, beside.pictures, strict=True):
        assert np.array_equal(one.picture, other.picture)


@pytest.mark.sim
def test_after_a_look_the_plain_picture_is_what_it_was(hammer):
    camera = hammer.spec_of_task.cameras[hammer.cameras[0]]
    before = hammer._renderer.render(hammer.simulation.data, camera)
    worn(hammer, 1, make_visuals(visuals="varied", shift="all", strength=5))
    assert np.array_equal(hammer._renderer.render(hammer.simulation.data, camera), before)


@pytest.mark.sim
def test_physics_does_not_notice():
    from embodied.envs.task_env import TaskEnv

    actions = np.random.default_rng(0).uniform(-1, 1, (8, 4)).astype(np.float32)
    runs = []
    for options in ({}, {"visuals": "varied", "shift": "all", "shift_strength": 5}):
        env = TaskEnv(task="hammer-v3", image_size=32, **options)
        run = [env.reset(seed=7)[0]]
        for action in actions:
            observation, reward, *_ = env.step(action)
            data = env.simulation.data
            run.append({**observation, "qpos": data.qpos.copy(), "qvel": data.qvel.copy(), "reward": np.array(reward)})
        runs.append(run)
        env.close()
    for plain, dressed in zip(*runs, strict=True):
        for key, value in plain.items():
            assert np.array_equal(value, dressed[key]) != key.startswith("observation.images"), key


@pytest.mark.sim
def test_the_task_stays_visible_when_looks_vary(hammer):
    import mujoco

    simulation, camera = hammer.simulation, hammer.spec_of_task.cameras["corner4"]
    model, data = simulation.model, simulation.data
    parts = [np.flatnonzero(model.geom_bodyid == model.body(name).id) for name in ("hammer", "hammerblock")]
    wardrobe = make_visuals(visuals="varied", shift=None, strength=3)
    with mujoco.Renderer(model, 64, 64) as renderer:
        renderer.enable_segmentation_rendering()
        seen = []
        for seed in range(20):
            simulation.reset(seed)
            renderer.update_scene(data, camera=camera.name)
            wardrobe.draw(seed, simulation, hammer.cameras).dress(renderer.scene, camera, still=True)
            number, kind = np.moveaxis(renderer.render(), 2, 0)
            shown = np.where(kind == mujoco.mjtObj.mjOBJ_GEOM.value, number, -1)
            seen.append([int(np.isin(shown, geoms).sum()) for geoms in parts])
    simulation.reset(0)
    assert np.min(seen, axis=0)[0] > 20, seen
    assert np.min(seen, axis=0)[1] > 100, seen
    assert len({tuple(counts) for counts in seen}) > 10


@pytest.mark.sim
def test_ranges_of_nothing_are_the_tasks_own_look(hammer):
    nothing = Ranges(
        azimuth_deg=0.0,
        elevation_deg=0.0,
        distance=0.0,
        aim=0.0,
        light_angle_deg=0.0,
        light=(1.0, 1.0),
        shade=(1.0, 1.0),
        mired=(0.0, 0.0),
        table=(0.0, 0.0),
        background=(0.0, 0.0),
        objects=(0.0, 0.0),
        robot=(0.0, 0.0),
        clutter=(0, 0),
    )
    frame = worn(hammer, 0, make_visuals(visuals="varied", shift=None, strength=3, ranges=nothing))
    plain = worn(hammer, 0, Wardrobe())
    assert np.abs(frame.astype(int) - plain).mean() < 2  # textures are coarser, nothing else
