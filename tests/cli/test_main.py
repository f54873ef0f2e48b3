"""The command: help, lists, exit codes; no traceback for a user's mistake."""

import errno
import json
import subprocess
import sys

import pytest

from embodied.cli.main import VERBS, explain, main
from embodied.core.errors import UserError


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_command_has_help(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert VERBS[verb].help in out
    if VERBS[verb].config:
        assert "device" in out or "episodes" in out
        assert "_target_" not in out


def test_version(capsys):
    assert run(capsys, "--version")[1].startswith("embodied 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "unknown command 'trian': did you mean train"),
        (["train", "task=hamer-v3"], 2, "did you mean hammer-v3"),
        (["train", "encoder=pixel"], 2, "did you mean pixels"),
        (["train", "evaluate.shift=ligth"], 2, "unknown shift 'ligth': did you mean light"),
        (["train", "evaluate.shift=light", "evaluate.shift_strength=9"], 2, "shift_strength must be 1 to 5, got 9"),
        (["train", "policy=ppo", "encoder=state", "evaluate.shift=ligth"], 2, "did you mean light"),
        (["train", "encoder=path=/absent"], 1, "there is no such folder"),
        (["train", "encoder=hf:/absent"], 1, "there is no such folder"),
        (["train", "encoder=pixels", "policy.feature=pool"], 2, "unknown policy.feature 'pool': did you mean pooled?"),
        (["train", "encoder=state", "policy.head=conv"], 2, "needs a token grid of at least 8x8"),
        (["train", "encoder=proprioception", "policy.head=conv"], 2, "looks at a picture's tokens"),
        (["train", "env=dmc", "env.protocol=cortex", "encoder=proprioception"], 2, "gives no observation.state"),
        (["train", "encoder=pixels", "root=/proc/absent"], 1, "the run folder /proc/absent/"),
        (["train", "tsak=hammer-v3"], 2, "did you mean task"),
        (["train", "-m", "seed=0,1", "task=hamer-v3,reach-v3", "tsak=3"], 2, "did you mean task"),
        (["evaluate"], 2, "which run?"),
        (["evaluate", "run=absent"], 1, "not a run folder"),
        (["pretrain"], 2, "what to train on?"),
        (["pretrain", "data=absent"], 1, "absent"),
        (["pretrain", "objective=mea", "data=x"], 2, "did you mean mae"),
        (["list", "taks"], 2, "did you mean tasks"),
        (["list", "--jsn"], 2, "unknown option"),
        (["doctor", "--jsn"], 2, "unknown option"),
    ],
)
def test_mistakes_give_one_message(capsys, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    got, out, err = run(capsys, *arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err + out
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "evaluate", "--debug")
    assert code == 2
    assert "Traceback" in err


@pytest.mark.parametrize(
    "kind",
    [
        *("envs", "tasks", "cameras", "encoders", "text_encoders", "objectives", "policies", "heads", "necks"),
        *("experts", "shifts"),
    ],
)
def test_lists_for_machines(capsys, kind):
    code, out, _ = run(capsys, "list", kind, "--json")
    listed = json.loads(out)
    assert code == 0
    assert listed
    assert all(isinstance(text, str) and text for text in listed.values())
    if kind == "tasks":
        assert listed["env=metaworld task=hammer-v3"] == "hammer the nail into the box"
        assert sum(name.startswith("env=metaworld ") for name in listed) == 50 + 1  # mt10 holds ten of them


def test_lists_for_people(capsys):
    _, out, _ = run(capsys, "list")
    assert "hammer" not in out.split("experts")[0]
    assert "[e1-e0" in out  # brackets are no markup
    assert "metaworld" in out
    assert "scripted" in out


def test_full_disk_is_explained():
    message, code = explain(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert code == 1
    assert message.startswith("No space left on device at /x/y: free some space")


def test_a_bug_is_called_a_bug():
    message, code = explain(KeyError("x"))
    assert code == 1
    assert "bug in embodied" in message
    assert explain(UserError("plain")) == ("plain", 1)


def test_python_m_embodied_is_the_command():
    result = subprocess.run([sys.executable, "-m", "embodied", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("embodied 0.")


def test_help_does_not_import_torch():
    code = "import sys, embodied.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_one_of_several_processes_leaves_them_when_it_is_done():
    import torch.distributed as distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert main(["list", "bodies"]) == 2  # of a failure the launcher ends the others
        assert distributed.is_initialized()
        assert main(["list", "heads"]) == 0
        assert not distributed.is_initialized()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@pytest.mark.parametrize(("rank", "told"), [(None, True), ("0", True), ("1", False)])
def test_of_several_processes_the_first_tells(monkeypatch, capsys, rank, told):
    from embodied.cli.reporter import RichReporter, open_console

    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    reporter = RichReporter(open_console())
    with reporter.phase("data"):
        reporter.note("a note")
    assert ("a note" in capsys.readouterr().out) == told
