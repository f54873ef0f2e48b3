"""The layout rules of the repository, checked on the source text."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAPPED = ("envs", "policies", "datasets", "real_robot")
LAYERS = (
    "core",
    "models",
    "encoders",
    "objectives",
    "datasets",
    "envs",
    "policies",
    "training",
    "bench",
    "real_robot",
    "cli",
)  # low to high
SIBLINGS = {"datasets", "envs"}  # neither imports the other


def sources():
    for folder in ("embodied", *MAPPED):
        for path in (ROOT / folder).rglob("*.py"):
            if not any(parent.is_symlink() for parent in path.parents):
                yield path, folder


def layer_of(path, folder):
    parts = path.relative_to(ROOT / folder).with_suffix("").parts
    return folder if folder in MAPPED else parts[0]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_layers_import_downwards_only():
    bad = []
    for path, folder in sources():
        here = layer_of(path, folder)
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "embodied" and len(parts) > 1 and parts[1] in LAYERS and here in LAYERS:
                upward = LAYERS.index(parts[1]) > LAYERS.index(here)
                if upward or {parts[1], here} == SIBLINGS:
                    bad.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not bad, "\n".join(bad)


def test_every_package_is_listed_in_pyproject():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = set(tool["packages"])
    found = set()
    for path, folder in sources():
        rel = path.parent.relative_to(ROOT).parts
        found.add(".".join(rel if folder == "embodied" else ("embodied", *rel)))
    assert found <= listed, f"add to [tool.setuptools] packages: {sorted(found - listed)}"


def test_mapped_folders_have_no_init():
    assert not [f for f in MAPPED if (ROOT / f / "__init__.py").exists()], (
        "an __init__.py in datasets/ would shadow Hugging Face `datasets` when the root is on sys.path"
    )
