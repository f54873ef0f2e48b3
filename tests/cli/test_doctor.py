"""The doctor finds faults, says how to fix them, and survives a broken library."""

import json

import pytest

from embodied.cli import doctor
from embodied.cli.doctor import Check, run_checks
from embodied.cli.main import main
from embodied.envs.gl import GLBackend


def fake_gl(monkeypatch, works):
    from embodied.envs import gl

    reports = [GLBackend("egl", works, "software", "" if works else "apt-get install -y libegl1")]
    monkeypatch.setattr(gl, "gl_report", lambda: reports)


def test_healthy_machine(capsys, monkeypatch):
    fake_gl(monkeypatch, True)
    assert main(["doctor"]) == 0
    assert "The main job can run" in capsys.readouterr().out


def test_missing_gl_is_a_fault_with_its_command(capsys, monkeypatch):
    fake_gl(monkeypatch, False)
    assert main(["doctor", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["rendering: egl"]["status"] == "fault"
    assert checks["rendering: egl"]["fix"] == "apt-get install -y libegl1"


def test_one_broken_check_does_not_stop_the_others(monkeypatch):
    def broken():
        raise RuntimeError("driver exploded")

    monkeypatch.setattr(doctor, "check_gpu", broken)
    fake_gl(monkeypatch, True)
    checks = {check.name: check for check in run_checks()}
    assert any(check.detail == "RuntimeError: driver exploded" and check.status == "fault" for check in checks.values())
    assert checks["torch"].status == "ok"


def test_missing_and_untested_packages(monkeypatch):
    from importlib import metadata

    def version(package):
        if package == "torch":
            raise metadata.PackageNotFoundError
        return {"mujoco": "3.9.9"}.get(package, "1.0")

    monkeypatch.setattr(doctor.metadata, "version", version)
    checks = {check.name: check for check in doctor.check_packages()}
    assert checks["torch"] == Check("torch", "fault", "not installed", "pip install 'torch'")
    assert checks["mujoco"] == Check("mujoco", "note", "3.9.9; tested with 3.3.0", "pip install 'mujoco==3.3.0'")


@pytest.mark.parametrize("free", [0.1e9, 100e9])
def test_disk_space(monkeypatch, free):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    (check,) = doctor.check_disk()
    assert check.status == ("ok" if free > 1e9 else "fault")
