"""Methods outside the package: the examples of docs/extending.md and of its neighbours, in a folder of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied.core import extensions
from embodied.core.errors import UsageError, UserError
from embodied.core.extensions import VARIABLE, check_extensions, extension_conf, import_part
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.real_robot.description.reading import shipped_robot

DOCS = Path(__file__).parents[2] / "docs"


def block(page, language, containing):
    """The block of a page in which these words are."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("my methods")  # a space, on purpose
    files = {
        "policies/heads/tapered.py": block("extending.md", "python", "HEAD = TaperedHead"),
        "envs/suites/slider.py": block("extending.md", "python", "SUITE = Suite("),
        "conf/env/slider.yaml": block("extending.md", "yaml", "suite: slider"),
        "datasets/importers/npz.py": block("../datasets/importers/README.md", "python", "FORMAT = Format("),
        "real_robot/transports/can.py": "def open_transport(*, port=1):\n    raise ValueError(port)\n",
        "encoders/edges.py": block("encoders.md", "python", "class EdgeEncoder"),
        "objectives/simmim.py": block("pretraining.md", "python", "class SimMIM"),
        "conf/objective/simmim.yaml": block("pretraining.md", "yaml", "simmim.SimMIM").replace(
            "masked.simmim", "simmim"
        ),
        "policies/necks/last.py": (
            "from torch import nn\n\n\nclass Last(nn.Module):\n    '''The present moment.'''\n\n"
            "    def __init__(self, *, width):\n        super().__init__()\n        self.output_dim = width\n\n"
            "    def forward(self, features):\n        return features[:, -1:]\n\n\n"
            "NECK = Last\nREADS_VECTORS = FUSES_HISTORY = True\n"
        ),
    }
    for name, text in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def python(folder, *arguments):
    """A process that has the extensions from its beginning, as a user's has."""
    environment = {**os.environ, VARIABLE: str(folder)}
    found = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return found.returncode, " ".join((found.stdout + found.stderr).split())


def embodied(folder, *arguments):
    return python(folder, "-m", "embodied", *arguments)


def test_an_environment_a_head_a_neck_and_an_encoder_of_ones_own_train_and_are_evaluated(folder, tmp_path):
    script = (
        "from embodied.encoders.artifact import save_encoder; from embodied.encoders.edges import EdgeEncoder; "
        f"save_encoder(EdgeEncoder(side=4), {str(tmp_path / 'edges')!r}, card='# edges')"
    )
    assert python(folder, "-c", script) == (0, "")
    run = tmp_path / "run"
    code, said = embodied(
        folder, "train", "env=slider", "task=push", "policy.head=tapered", "policy.neck=last", f"run={run}",
        f"encoder=path={tmp_path / 'edges'}", f"cache={tmp_path / 'cache'}", "demos=3", "episodes=2", "train.steps=40",
        "train.checkpoints=1", "evaluate.selection_episodes=0", "device=cpu", "workers=2",
    )  # fmt: skip
    assert code == 0, said
    code, said = embodied(folder, "evaluate", f"run={run}", "episodes=2", "workers=0")
    assert code == 0, said
    code, said = embodied("", "evaluate", f"run={run}", "episodes=2", "workers=0")
    assert code and "embodied.encoders.edges.EdgeEncoder" in said and VARIABLE in said and "bug" not in said


def test_an_objective_of_ones_own_is_pre_trained(folder, tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(8):
        Image.new("RGB", (40, 40), (30 * number, 90, 200)).save(tmp_path / "photos" / f"{number}.png")
    code, said = embodied(
        folder, "pretrain", "objective=simmim", f"data={tmp_path / 'photos'}", f"run={tmp_path / 'run'}",
        "encoder.image_size=32", "encoder.patch_size=8", "encoder.width=32", "encoder.depth=1", "encoder.heads=2",
        "train.steps=2", "train.batch_size=4", "device=cpu", "panels_every=null",
    )  # fmt: skip
    assert code == 0, said


def test_a_data_format_of_ones_own_is_imported(folder, tmp_path):
    (tmp_path / "recordings").mkdir()
    for number in range(2):
        action, image = np.full((3, 2), number, np.float32), np.zeros((3, 16, 16, 3), np.uint8)
        np.savez(tmp_path / "recordings" / f"{number}.npz", action=action, image_front=image)
    places = [str(tmp_path / "recordings"), str(tmp_path / "store")]
    code, said = embodied(folder, "data", "import", *places, "fps=20", "options.task=pour the tea")
    assert code == 0, said
    store = EpisodeStore.open(tmp_path / "store")
    assert store.lengths == [3, 3] and store.fps == 20 and store.episodes[1].task == "pour the tea"
    assert store.read_episode(1)["action"].tolist() == [[1, 1]] * 3
    assert store.keys["observation.images.front"].shape == (16, 16, 3)


def test_a_transport_of_ones_own_is_named_by_a_description(folder, tmp_path):
    text = shipped_robot("ros2_arm").read_text()
    (tmp_path / "my_arm.yaml").write_text(text.replace("name: dds", "name: can"))
    said = embodied(folder, "robot", "check", str(tmp_path / "my_arm.yaml"), "options.prt=3")[1]
    assert "unknown option of transport can 'prt': did you mean port?" in said
    assert "unknown choice 'can'" in embodied("", "robot", "check", str(tmp_path / "my_arm.yaml"))[1]


def test_lists_show_what_was_found_and_misspellings_its_neighbours(folder):
    code, said = embodied(folder, "list", "heads", "necks", "envs")
    assert code == 0, said
    assert "tapered regression whose later actions count less" in said
    assert "last The present moment." in said and "slider A ball on a rail" in said
    assert "did you mean tapered" in embodied(folder, "train", "policy.head=taperd")[1]
    assert "did you mean slider" in embodied(folder, "train", "env=slidr")[1]


def test_a_file_that_cannot_be_imported_is_named(tmp_path):
    for name, text in {"broken": "import nothing_like_this\n", "empty": "\n"}.items():
        (tmp_path / name / "envs" / "suites").mkdir(parents=True)
        (tmp_path / name / "envs" / "suites" / "mine.py").write_text(text)
    said = embodied(tmp_path / "broken", "list", "cameras")[1]
    assert "embodied.envs.suites.mine cannot be imported: ModuleNotFoundError: No module named 'nothing_like" in said
    assert "embodied.envs.suites.mine defines no SUITE" in embodied(tmp_path / "empty", "list", "cameras")[1]


def test_folders_that_are_none_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=f"{VARIABLE}: no folder at .*nowhere"):
        check_extensions()
    (tmp_path / "other" / "heads").mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
    with pytest.raises(UsageError, match="holds nothing that is laid out like the package"):
        check_extensions()


def test_without_the_variable_nothing_is_installed(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    before = list(sys.meta_path)
    extensions.install()
    assert sys.meta_path == before and extension_conf() == []
    check_extensions()


def test_what_goes_wrong_on_import_is_said():
    with pytest.raises(UserError, match=r"embodied\.nothing cannot be imported: ModuleNotFoundError"):
        import_part("embodied.nothing")
