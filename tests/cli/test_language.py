"""A store, a policy and a benchmark of two tasks that are told apart by their instructions, from the command line."""

import json

import pytest
from tiny_suite import write_suite

from embodied.bench.statistics.chains import in_a_row
from embodied.bench.suite import options_of, tries_static
from embodied.cli.main import main
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.envs.suites._metaworld_words import TRAIN

pytestmark = [pytest.mark.sim]
TASKS = ("reach-v3", "drawer-close-v3")
TWO = "task=[reach-v3,drawer-close-v3]"
SMALL = ("env.image_size=32", "workers=0")


def command(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, " ".join(captured.err.split())


def test_a_store_of_several_tasks_has_an_instruction_per_episode(tmp_path, capsys):
    path = tmp_path / "store"
    given = ("collect", TWO, f"store={path}", "env.instructions=train", *SMALL)
    assert command(capsys, *given, "episodes=2")[0] == 0
    assert command(capsys, *given, "episodes=4")[0] == 0  # goes on where it stopped
    store = EpisodeStore.open(path)
    assert len(store) == 4 and store.provenance["env"]["task"] == "reach-v3+drawer-close-v3"
    assert all(episode.task in TRAIN[TASKS[episode.seed % 2]] for episode in store.episodes)
    code, _, error = command(capsys, *given[:3], *SMALL, "episodes=6")
    assert code == 2 and "made with env.instructions=train" in error


def test_options_at_their_defaults_change_no_name():
    from embodied.cli.config import compose_config
    from embodied.cli.settings import env_options

    options = env_options(compose_config("collect", ["task=reach-v3"]))
    assert set(options) == {
        *("suite", "task", "camera", "image_size", "render", "horizon", "action_repeat", "protocol", "visuals")
    }
    assert env_options(compose_config("collect", ["task=mt10", "env.chain=5"]))["chain"] == 5


def test_a_told_policy_is_trained_and_tried_with_held_out_words_and_in_chains(tmp_path, capsys):
    pytest.importorskip("wordllama")
    run = tmp_path / "run"
    code, _, error = command(
        capsys,
        *("train", TWO, "encoder=pixels", "policy.instruction=wordllama", "env.instructions=train"),
        *("demos=4", "episodes=2", "train.steps=30", "train.checkpoints=1", "evaluate.selection_episodes=0"),
        *("env.horizon=90", "evaluate.env={instructions: heldout}", f"run={run}", f"cache={tmp_path}", *SMALL),
    )
    assert code == 0, error
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "reach-v3+drawer-close-v3" and len(summary["outcomes"]) == 2
    code, out, error = command(
        capsys, "evaluate", f"run={run}", "episodes=3", "options={chain: 2, positions: heldout}", "workers=0"
    )
    assert code == 0, error
    assert "tasks in a row: 1: " in out and "average length" in out
    (path,) = (run / "evaluations").iterdir()
    result = json.loads(path.read_text())
    assert (result["chain"], result["positions"]) == (2, "heldout") and set(result["in_a_row"]["success"]) == {"1", "2"}
    assert {round(2 * outcome["score"], 9) for outcome in result["outcomes"]} <= {0, 1, 2}


def test_a_benchmark_tries_policies_in_unseen_episodes(tmp_path, capsys):
    pytest.importorskip("wordllama")
    suite = write_suite(
        tmp_path,
        tasks=[{"env": "metaworld", "task": "reach-v3+drawer-close-v3"}],
        variants=["static", "with:instructions=heldout+chain=2"],
        controllers={"told": {"policy": "bc", "policy.head": "mlp", "policy.instruction": "wordllama"}},
        baselines={"state": "all", "proprioception": [], "pixels": [], "random": [], "scratch": []},
        exceptions=None,
    )
    code, _, error = command(
        capsys, "bench", f"suite={suite}", "encoders=[pixels]", f"root={tmp_path}", f"cache={tmp_path}", "workers=1"
    )
    assert code == 0, error
    found = [json.loads(path.read_text()) for path in (tmp_path / "tiny" / "results").glob("*.json")]
    unseen = [each for each in found if each["cell"]["variant"].startswith("with:")]
    assert unseen and all(each["status"] == "done" for each in found)
    assert {len(each["episodes"]) for each in unseen} == {2}
    assert "Unseen episodes" in (tmp_path / "tiny" / "report.html").read_text()


def test_tasks_in_a_row_are_counted_as_calvin_does():
    found = in_a_row([0, 0.4, 0.4, 1], 5)
    assert [found["success"][str(number)][0] for number in range(1, 6)] == [0.75, 0.75, 0.25, 0.25, 0.25]
    assert found["average_length"] == 2.25 == sum(share for share, *_ in found["success"].values())
    assert all(low <= share <= high for share, low, high in found["success"].values())


def test_variants_say_how_episodes_differ():
    assert options_of("shift:light+table:3") == {"shift": "light+table", "shift_strength": 3}
    assert options_of("with:instructions=heldout+chain=5") == {"instructions": "heldout", "chain": 5}
    assert options_of("varied") == {} and not tries_static("varied") and tries_static("with:chain=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("collect", "task=[reach-v3,drwer-close-v3]"), "did you mean drawer-close-v3"),
        (("collect", "task=mt10", "env.chain=3"), "a store has one instruction per episode"),
        (("train", TWO, "evaluate.env=heldout"), "evaluate.env must be a group of options"),
        (("train", TWO, "evaluate.env={instruction: heldout}"), "did you mean instructions"),
        (("train", TWO, "evaluate.env={instructions: held}"), "heldout"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, arguments, message):
    code, _, error = command(capsys, *arguments, f"cache={tmp_path}")
    assert code == 2 and message in error
