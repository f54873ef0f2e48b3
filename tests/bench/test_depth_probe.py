"""The probe of a model of videos at each depth: its windows, attention, the curve, and the verb."""

import json

import numpy as np
import pytest
import torch
from moving_squares import VIEW
from square_store import write_square_store
from tiny_toto import make_encoder

from embodied.bench.inspection.depth_clips import read_windows
from embodied.bench.inspection.depth_probe import attention_guesses, depth_curve, plot_depths, read_depth
from embodied.bench.inspection.probes import linear_probe, moving_values, score
from embodied.cli.main import main
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.encoders.artifact import freeze, save_encoder


def write_store(folder, *, lengths=(4, 9, 7, 6)):
    """Frames that are random, numbers that say which frame of the store it is."""
    keys = {VIEW: KeySpec("uint8", (16, 16, 3)), STATE: KeySpec("float32", (1,)), ACTION: KeySpec("float32", (2,))}
    random, count = np.random.default_rng(0), 0
    with EpisodeStore.create(folder, keys=keys, fps=10.0) as store:
        for number, length in enumerate(lengths):
            rows = np.arange(count, count + length, dtype=np.float32)
            frames = random.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
            actions = np.stack([rows, -rows], axis=1)
            store.append({VIEW: frames, STATE: rows[:, None], ACTION: actions}, task="t", seed=number, success=True)
            count += length
    return folder


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_end_at_the_frame_and_do_not_reach_into_another_episode(tmp_path, stride):
    encoder = freeze(make_encoder(actions=True, action_dim=2 * stride, steps=3))
    path = str(write_store(tmp_path / "store"))
    found = read_windows(path, encoder, frames=12, camera=None, target=STATE, stride=stride)
    store = EpisodeStore.open(path)
    part, window = found.part, found.window
    assert len(part) == len(window[VIEW]) == 12 and window[VIEW].shape == (12, 3, 16)
    for number in range(len(part)):
        present = int(part.states[number, 0])
        start = store.offsets[part.episodes[number]]
        for step in range(3):
            row = present - stride * (2 - step)
            assert bool(window[f"{VIEW}_is_pad"][number, step]) == bool(window["action_is_pad"][number, step])
            assert bool(window[f"{VIEW}_is_pad"][number, step]) == (row < start)
            if row < start:
                continue
            frame = torch.from_numpy(store.read(VIEW, row, row + 1))
            assert torch.equal(window[VIEW][number, step], encoder.tokenizer.codes(frame)[0])
            if step < 2:  # the last one is not looked at
                expected = [value for later in range(row, row + stride) for value in (later, -later)]
                assert window[ACTION][number, step].tolist() == expected
    tokens = read_depth(encoder, found, 1)
    assert torch.equal(tokens, encoder.at_depths(window, [1])[1][:, -1])


def test_attention_finds_the_token_that_tells_the_state():
    """The mean over 25 tokens, of which any may be the one, hides it in the others' noise."""
    draws = torch.Generator().manual_seed(0)
    frames, places, width = 240, 25, 16
    states = torch.randn(frames, 1, generator=draws)
    tokens = torch.randn(frames, places, width, generator=draws)
    marked = torch.randint(places, (frames,), generator=draws)
    tokens[torch.arange(frames), marked, 0] = 6.0
    tokens[torch.arange(frames), marked, 1] = 2 * states[:, 0]
    episodes, known = np.arange(frames) // 10, moving_values(states.numpy().astype(np.float64))
    guesses = attention_guesses(tokens, known, episodes, steps=200)
    found = score(guesses, known, episodes)
    assert found.r2 > linear_probe(tokens.mean(dim=1).numpy(), known, episodes).r2 + 0.5
    first, again = (attention_guesses(tokens, known, episodes, steps=3) for _ in range(2))
    assert np.array_equal(first, again)


def test_the_curve_has_every_depth_and_pooling(tmp_path):
    encoder = freeze(make_encoder(steps=3))
    windows = read_windows(str(write_store(tmp_path / "store")), encoder, frames=24, camera=None, target=STATE)
    curve = depth_curve(encoder, windows, target=STATE, depths=[0, 2], steps=5, reporter=SilentReporter())
    states = moving_values(windows.part.states)
    assert curve.scores.keys() == {"mean", "last", "attention", "trained_mean"} and curve.read_depth == 1
    for number, depth in enumerate((0, 2)):
        tokens = read_depth(encoder, windows, depth)
        for name, pooled in (("mean", tokens.mean(dim=1)), ("last", tokens[:, -1])):
            assert curve.scores[name][number] == linear_probe(pooled.numpy(), states, windows.part.episodes)
        mean = tokens.mean(dim=1, keepdim=True)
        guesses = attention_guesses(mean, states, windows.part.episodes, steps=5)
        assert curve.scores["trained_mean"][number] == score(guesses, states, windows.part.episodes)
    plot_depths([curve, curve], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_the_verb(tmp_path, capsys):
    encoder = make_encoder(steps=3)
    save_encoder(encoder, tmp_path / "encoder", card="")
    store = write_square_store(tmp_path / "store")
    given = ["inspect", f"encoder=path={tmp_path / 'encoder'}", f"to={tmp_path / 'out'}", "device=cpu", "probe_steps=3"]
    assert main([*given, f"data={store}", "frames=30"]) == 0
    record = json.loads((tmp_path / "out" / "depths.json").read_text())
    (probe,) = record["probes"]
    assert probe["depths"] == [0, 1, 2] and probe["target"] == STATE
    assert len(probe["scores"]["attention"]) == 3 and probe["baselines"].keys() == {"raw pixels 16x16", "mean state"}
    assert (tmp_path / "out" / "depths.png").is_file()
    assert "1 (features)" in capsys.readouterr().out
    write_square_store(tmp_path / "blind", keys=("observation.images.front",))
    (tmp_path / "photos").mkdir()
    for setting, message in (
        ([f"data={tmp_path / 'photos'}"], "is no episode store: a model of videos is probed on what came before"),
        ([f"data={tmp_path / 'blind'}"], "there is nothing to probe"),
        ([f"data={store}", "depths=[3]"], "depths must be in [0, 2]"),
        ([f"data={store}", "probe_steps=0"], "probe_steps must be a whole number of at least 1"),
    ):
        assert main([*given, *setting]) in (1, 2)
        shown = capsys.readouterr()
        assert message in " ".join((shown.err + shown.out).split()) and "Traceback" not in shown.err


def test_a_window_of_another_number_of_action_values_is_refused(tmp_path):
    encoder = freeze(make_encoder(actions=True, action_dim=2, steps=3))
    windows = read_windows(str(write_store(tmp_path / "s")), encoder, frames=8, camera=None, target=STATE, stride=2)
    with pytest.raises(UsageError, match="action: expected 2 values per step, got 4"):
        read_depth(encoder, windows, 1)
