"""`embodied collect`: grows a store, and never mixes settings in one."""

import pytest

from embodied.cli.main import main
from embodied.datasets.store.episode_store import EpisodeStore

pytestmark = [pytest.mark.sim]


def collect(path, *more):
    settings = ["task=reach-v3", "env.image_size=16", "env.horizon=20", "collect.expert=random"]
    settings += ["collect.only_successes=false", "workers=0", f"store={path}"]
    return main(["collect", *settings, *more])


def test_grows_a_store_and_refuses_other_settings(tmp_path, capsys):
    path = tmp_path / "store"
    assert collect(path, "episodes=1") == 0
    assert collect(path, "episodes=3") == 0
    store = EpisodeStore.open(path)
    assert [episode.seed for episode in store.episodes] == [0, 1, 2]
    assert store.provenance["env"]["task"] == "reach-v3"
    assert {episode.task for episode in store.episodes} == {"reach the goal"}
    capsys.readouterr()
    assert collect(path, "episodes=4", "env.horizon=30") == 2
    assert "was made with env.horizon=20, not 30" in capsys.readouterr().err
    assert len(EpisodeStore.open(path)) == 3
