"""Choosing a GL library, and what the user hears when there is none."""

import pytest

from embodied.core.errors import UsageError, UserError
from embodied.envs import gl
from embodied.envs.gl import GLBackend, select_gl_backend


def answer(monkeypatch, **works):
    monkeypatch.setattr(gl, "probe", lambda name: GLBackend(name, works[name], "no such library", gl.FIXES[name]))
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "LP_NUM_THREADS", "EMBODIED_GL_CHECKED"):
        monkeypatch.delenv(name, raising=False)


def test_takes_the_first_that_works_and_tells_child_processes(monkeypatch):
    import os

    answer(monkeypatch, egl=False, osmesa=True)
    assert select_gl_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_the_users_choice_stands(monkeypatch):
    answer(monkeypatch, egl=True, osmesa=True)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert select_gl_backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert select_gl_backend() == "glfw"


def test_a_choice_that_mujoco_does_not_know_is_refused(monkeypatch):
    answer(monkeypatch, egl=True, osmesa=True)
    monkeypatch.setenv("MUJOCO_GL", "elg")
    with pytest.raises(UsageError, match="MUJOCO_GL 'elg': did you mean egl"):
        select_gl_backend()


def test_a_choice_that_does_not_work_is_refused(monkeypatch):
    answer(monkeypatch, egl=True, osmesa=False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match=r"MUJOCO_GL=osmesa does not work here .osmesa: no such library"):
        select_gl_backend()


def test_child_processes_do_not_try_again(monkeypatch):
    answer(monkeypatch, egl=True, osmesa=True)
    assert select_gl_backend() == "egl"
    answer_again = []
    monkeypatch.setattr(gl, "probe", answer_again.append)
    assert select_gl_backend() == "egl"
    assert answer_again == []


def test_without_any_the_message_has_the_command(monkeypatch):
    answer(monkeypatch, egl=False, osmesa=False)
    with pytest.raises(UserError, match=r"no GL library can render off-screen .* apt-get install -y libosmesa6"):
        select_gl_backend()


def test_a_backend_that_breaks_its_process_is_reported(monkeypatch):
    monkeypatch.setattr(gl, "_PROBE", "import os; print('no libEGL', file=__import__('sys').stderr); os._exit(9)")
    assert gl.probe("egl") == GLBackend("egl", False, "no libEGL", gl.FIXES["egl"])
