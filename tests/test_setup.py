"""The set-up script and the README's two commands."""

import os
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_scripts_are_valid_bash():
    for name in ("run", ".ci/run", "benchmarks/pretraining_data.sh"):
        subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
        assert os.access(ROOT / name, os.X_OK), f"{name} is not executable"


def test_readme_starts_with_exactly_two_commands():
    start = (ROOT / "README.md").read_text().split("## Start")[1].split("\n## ")[0]
    commands = re.findall(r"^    (\./run .*)$", start, flags=re.MULTILINE)
    assert commands == ["./run train env=metaworld", "./run test"]


def test_ci_calls_the_second_command_as_written():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert "./run test" in lines


def test_readme_names_only_files_that_exist():
    text = (ROOT / "README.md").read_text() + (ROOT / "METHODS.md").read_text()
    named = re.findall(r"`((?:embodied|envs|policies|datasets|tests|benchmarks)/[\w/.]*\.(?:py|yaml|sh))`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_without_a_suitable_python_it_says_what_to_install(tmp_path):
    """In a copy, with a PATH that has no Python at all."""
    (tmp_path / "run").write_text((ROOT / "run").read_text())
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "id", "cut", "sha256sum"):
        (tools / tool).symlink_to(
            next(Path(folder) / tool for folder in ("/usr/bin", "/bin") if (Path(folder) / tool).exists())
        )
    result = subprocess.run(
        ["bash", str(tmp_path / "run"), "doctor"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 found" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_wheel_carries_config_and_encoder():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tool["package-data"]["*"]

    def folder_of(package):
        mapped = max((name for name in tool["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len)
        return ROOT / tool["package-dir"][mapped] / package.removeprefix(mapped).strip(".").replace(".", "/")

    for package in tool["packages"]:
        folder = folder_of(package)
        inner = {folder_of(other) for other in tool["packages"] if other.startswith(package + ".")}
        assert any(folder.glob("*")), package
        for path in folder.rglob("*"):
            if path.suffix == ".py" or path.parent.name == "__pycache__":  # other workers write there just now
                continue
            if not path.is_file() or any(owner in path.parents for owner in inner):
                continue
            if any(parent.is_symlink() for parent in path.parents) or (
                path.suffix == ".md" and "assets" not in path.parts
            ):
                continue
            name = path.relative_to(folder).as_posix()
            # fnmatch's * also crosses folders, as ** does for setuptools
            assert any(fnmatch(name, pattern.replace("**/", "*")) for pattern in patterns), f"{package}: {name}"


def test_default_encoder_is_small_enough_to_ship():
    weights = ROOT / "embodied" / "encoders" / "assets" / "default" / "model.safetensors"
    assert weights.stat().st_size <= 15e6


@pytest.mark.xdist_group("setup")
def test_groups_of_tests_stay_on_one_worker(request):
    """They share robots, ports and slow fixtures; under some versions of pytest xdist drops groups in silence."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("without --dist loadgroup there are no groups")
    assert request.node.nodeid.endswith("@setup")
