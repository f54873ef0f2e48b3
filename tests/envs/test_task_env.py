"""The one environment class, on a suite of three lines of physics."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from embodied.core.errors import UsageError
from embodied.envs import registry, task_env
from embodied.envs.registry import load_suite, suite_names
from embodied.envs.simulation import Camera, Progress, Suite, TaskSpec
from embodied.envs.task_env import TaskEnv

pytestmark = pytest.mark.sim
MODEL = """<mujoco><worldbody><light pos="0 0 3"/><camera name="top" pos="0 0 2"/><body name="ball">
<joint name="x" type="slide" axis="1 0 0"/><geom size=".2" rgba="1 0 0 1"/></body></worldbody></mujoco>"""
SPEC = TaskSpec(
    suite="toy",
    task="push",
    instruction="push the ball",
    robot="none",
    cameras={"top": Camera(name="top"), "side": Camera(position=(0.0, -2.0, 0.0), target="ball")},
    fps=20.0,
    horizon=8,
    horizon_limit=10,
    state=("x",),
    environment_state=("x", "target"),
    action=("dx", "grip"),
    action_low=np.array([-1, 0], np.float32),
    action_high=np.array([1, 2], np.float32),
)


class ToySimulation:
    """Moves by dx; done beyond 1; broken beyond -1."""

    def __init__(self, task, *, protocol=None, spec=SPEC, **options):
        import mujoco  # after the choice of a GL library

        self._forward = mujoco.mj_forward
        self.spec, self.options = spec, options
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.data = mujoco.MjData(self.model)

    def reset(self, seed):
        self.data.qpos[0] = 0.001 * (seed % 100)
        self._forward(self.model, self.data)

    def step(self, action):
        self.data.qpos[0] += action[0]
        self._forward(self.model, self.data)
        x = self.data.qpos[0]
        return Progress(float(action[0]), success=bool(x > 1), failed=bool(x < -1))

    def observe(self):
        x = self.data.qpos.astype(np.float32)
        return x, np.append(x, np.float32(1))


SUITE = Suite(
    name="toy",
    help="a ball on a line",
    distribution="none",
    instructions={"push": "push the ball"},
    cameras=("top", "side"),
    default_task="push",
    default_camera="top",
    make=ToySimulation,
    options={"weight": 1.0},
)


@pytest.fixture
def make(monkeypatch):
    made = []

    def build(suite=SUITE, **options):
        monkeypatch.setattr(task_env, "load_suite", lambda name: suite)
        made.append(TaskEnv(suite="toy", image_size=16, **options))
        return made[-1]

    yield build
    for env in made:
        env.close()


def act(dx):
    return np.array([dx, 0], np.float32)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*")  # the toy has odd bounds on purpose
def test_gymnasiums_checker_passes(make):
    check_env(make(), skip_render_check=True)  # render modes need a registered environment


def test_ends_on_success_on_failure_and_at_the_horizon(make):
    env = make(horizon=2)
    env.reset(seed=0)
    assert env.step(act(0.6))[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step(act(0.6))
    assert (terminated, truncated) == (True, False)
    assert info == {"success": True, "success_once": True, "score": 1.0}
    env.reset(seed=0)
    assert env.step(act(0.0))[2:4] == (False, False)
    assert env.step(act(0.0))[2:4] == (False, True)
    env.reset(seed=0)
    env.step(act(-0.6))
    assert env.step(act(-0.6))[2:] == (True, False, {"success": False, "success_once": False, "score": 0.0})


def test_action_repeat_adds_rewards_and_stops_at_the_end(make):
    env = make(action_repeat=3)
    assert env.fps == pytest.approx(20 / 3)
    env.reset(seed=0)
    observation, reward, terminated, *_ = env.step(act(0.1))
    assert reward == pytest.approx(0.3)
    assert observation["observation.state"] == pytest.approx(0.3)
    _, reward, terminated, *_ = env.step(act(0.5))
    assert terminated
    assert reward == pytest.approx(1.0)  # two of three


def test_history_keeps_separate_moments_and_repeats_the_first(make):
    env = make(history=3, camera=["top", "side"])
    observation, _ = env.reset(seed=0)
    assert observation["observation.images.side"].shape == (3, 16, 16, 3)
    assert observation["observation.environment_state"].shape == (2,)
    env.step(act(0.1))
    observation = env.step(act(0.1))[0]
    assert observation["observation.state"].ravel() == pytest.approx([0.0, 0.1, 0.2])
    observation = env.step(act(0.1))[0]
    assert observation["observation.state"].ravel() == pytest.approx([0.1, 0.2, 0.3])
    frames = observation["observation.images.top"]
    assert not np.array_equal(frames[0], frames[2])
    assert np.array_equal(frames[2], env.render())
    assert env.observation_space.contains(observation)


def test_without_images_nothing_is_rendered(make):
    env = make(images=False)
    assert set(env.reset(seed=0)[0]) == {"observation.state", "observation.environment_state"}
    assert env._renderer is None


def test_a_robot_that_knows_nothing_of_itself_has_no_state(make):
    blind = replace(SUITE, make=lambda *a, **k: ToySimulation(*a, spec=replace(SPEC, state=()), **k))
    env = make(suite=blind)
    observation, _ = env.reset(seed=0)
    assert "observation.state" not in observation
    assert env.observation_space.contains(observation)


def test_a_new_model_gets_a_new_renderer(make):
    env = make()
    env.reset(seed=0)
    reset = env.simulation.reset

    def rebuild(seed):
        env.simulation.__init__("push")
        reset(seed)

    env.simulation.reset = rebuild
    env.reset(seed=1)
    assert env._renderer._model is env.simulation.model


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(3), r"action: expected shape \[2\], got \[3\]"),
        (np.array([0.0, np.nan]), r"action\[1\] \(grip\) must be in \[0, 2\], got nan"),
        (np.array([1.5, 0.0]), r"action\[0\] \(dx\) must be in \[-1, 1\], got 1.5"),
        (np.array([0.0, -np.inf]), r"action\[1\]"),
    ],
)
def test_wrong_actions_are_refused(make, action, message):
    env = make()
    env.reset(seed=0)
    with pytest.raises(UsageError, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "pish"}, "unknown task of toy 'pish': did you mean push"),
        ({"camera": "tip"}, "unknown camera of toy 'tip': did you mean top"),
        ({"camera": ["top", "top"]}, "several different names"),
        ({"camera": []}, "several different names"),
        ({"protocol": "cortex"}, "unknown protocol 'cortex' of toy: it has none"),
        ({"wieght": 2}, "unknown option of toy 'wieght': did you mean weight"),
        ({"horizon": 11}, r"horizon must be in \[1, 10\], got 11"),
        ({"horizon": 0}, "horizon must be a whole number of at least 1"),
        ({"history": 0}, "history must be a whole number"),
        ({"action_repeat": 1.5}, "action_repeat must be a whole number"),
        ({"render": "leann"}, "unknown render 'leann': did you mean lean"),
        ({"visuals": "vared"}, "unknown visuals 'vared': did you mean varied"),
        ({"shift": "lihgt"}, "unknown shift"),
        ({"shift": "light", "shift_strength": 6}, "shift_strength must be"),
    ],
)
def test_wrong_options_say_what_is_right(make, options, message):
    with pytest.raises(UsageError, match=message):
        make(**options)


def test_options_reach_the_simulation(make):
    assert make().simulation.options == {"weight": 1.0}
    assert make(weight=3.0).simulation.options == {"weight": 3.0}


def test_suites_are_found_without_a_list():
    assert "metaworld" in suite_names()
    assert load_suite("metaworld").default_task == "hammer-v3"
    with pytest.raises(UsageError, match="unknown env 'metawrold': did you mean metaworld"):
        load_suite("metawrold")


def test_finding_suites_imports_no_simulator():
    import subprocess
    import sys

    code = (
        "import sys, embodied.envs.registration\n"
        "heavy = {'mujoco', 'metaworld', 'dm_control', 'robosuite', 'gymnasium_robotics', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_suite_describes_itself():
    for name in registry.suite_names():
        suite = load_suite(name)
        assert suite.name == name
        assert suite.default_task in suite.instructions
        assert suite.default_camera in suite.cameras
        assert all(len(text.split()) >= 2 for text in suite.instructions.values())
        assert all(set(tasks) <= set(suite.instructions) for tasks in suite.protocols.values())


def test_who_does_not_look_sees_the_frames_of_before(make):
    env = make(camera=["top", "side"])
    before, _ = env.reset(seed=3)
    env.looking = False
    after = env.step(np.array([0.5, 0], np.float32))[0]
    for camera in ("top", "side"):
        key = f"observation.images.{camera}"
        assert np.array_equal(after[key], before[key])
    assert after["observation.state"] != before["observation.state"]
    env.looking = True
    assert not np.array_equal(env.step(np.zeros(2, np.float32))[0][key], before[key])
    env.looking = False
    assert np.array_equal(env.reset(seed=3)[0][key], before[key])  # the start of an episode is seen anyway


def test_a_history_is_seen_whole(make):
    env = make(history=2)
    env.reset(seed=3)
    env.looking = False
    frames = env.step(np.array([0.5, 0], np.float32))[0]["observation.images.top"]
    assert not np.array_equal(frames[0], frames[1])
