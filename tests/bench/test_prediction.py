"""Judging predicted clips: what a model is shown, what the rows of the table are, and that a good model wins."""

import av
import numpy as np
import pytest
import torch
from moving_squares import SIDE, make, tokenizer
from PIL import Image
from torch import nn
from video_runs import video_store

from embodied.bench.prediction.judge import COPY, MODEL, TOKENIZER, as_seen, judge, judgement_record, predict_clips
from embodied.bench.prediction.page import judgement_rows, words
from embodied.bench.prediction.pictures import write_contact_sheet, write_curves, write_film
from embodied.bench.video_metrics import FeatureNetwork
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.clip_sources import Codes, open_clips
from embodied.datasets.loading.sequence_sources import Caches
from embodied.encoders.artifact import fingerprint, freeze
from embodied.encoders.vit import ViTEncoder

FRAMES, CONTEXT = 6, 2


class Told(nn.Module):
    """Predicts what it is told to; remembers what it was shown."""

    def __init__(self, encoder, answers=None):
        super().__init__()
        self.encoder, self.answers, self.shown = encoder, answers, []

    def predict(self, batch, *, context, generator):
        self.shown.append({key: value.clone() for key, value in batch.items()})
        if self.answers is None:
            return torch.randint(0, 8, batch["codes"].shape, generator=generator)
        return torch.from_numpy(self.answers)[: len(batch["codes"])]


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = freeze(ViTEncoder(image_size=SIDE, patch_size=8, width=8, depth=1, heads=2))
    return FeatureNetwork("tiny", encoder, fingerprint(encoder))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prediction")
    return open(folder, video_store(folder / "store"))


def open(folder, store, **options):
    coder = tokenizer()
    caches = Caches(root=folder / "cache", max_bytes=None, device=torch.device("cpu"), reporter=SilentReporter())
    codes = Codes(tokenizer=coder, fingerprint=fingerprint(coder))
    return open_clips([store], codes=codes, caches=caches, frames=FRAMES, **options)


def predicted(objective, data, *, context=CONTEXT, indices=(0, 3, 5, 7)):
    return predict_clips(objective, data, np.array(indices), context=context, seed=0, reporter=SilentReporter())


def test_a_model_is_shown_no_later_code_but_all_actions(data):
    objective = Told(make().encoder)
    predicted(objective, data)
    (shown,) = objective.shown
    true = torch.from_numpy(data.batch(np.array([0, 3, 5, 7]))["codes"])
    assert torch.equal(shown["codes"][:, :CONTEXT], true[:, :CONTEXT])
    assert not shown["codes"][:, CONTEXT:].any() and true[:, CONTEXT:].any()
    assert (shown["action"][:, :-1, 1] == 1).all()


def test_rows_share_the_context_and_differ_after_it(data):
    clips = predicted(Told(make().encoder), data)
    assert clips.truth.shape == (4, FRAMES, SIDE, SIDE, 3)
    for name in (MODEL, COPY, TOKENIZER):
        assert (clips.rows[name][:, :CONTEXT] == clips.truth[:, :CONTEXT]).all()
    assert (clips.rows[COPY][:, CONTEXT:] == clips.truth[:, CONTEXT - 1 : CONTEXT]).all()
    assert (clips.codes[COPY][:, CONTEXT:] == clips.codes["truth"][:, CONTEXT - 1 : CONTEXT]).all()
    decoded = make().encoder.decode_clip(torch.from_numpy(clips.codes["truth"]))
    assert (clips.rows[TOKENIZER][:, CONTEXT:] == decoded.numpy()[:, CONTEXT:]).all()
    assert predicted(Told(make().encoder), data).codes[MODEL].tolist() == clips.codes[MODEL].tolist()  # by the seed


def test_who_predicts_the_truth_is_as_good_as_the_tokenizer(data, network):
    encoder = make().encoder
    true = data.batch(np.array([0, 3, 5, 7]))["codes"]
    right = judge(predicted(Told(encoder, true), data), network, seed=0, reporter=SilentReporter())
    assert right.code_accuracy[MODEL] == 1
    assert right.rows[MODEL]["psnr_db"] == right.rows[TOKENIZER]["psnr_db"]
    # Random codes are worse than the right ones by every measure of a frame.
    wrong = judge(predicted(Told(encoder), data), network, seed=0, reporter=SilentReporter())
    assert wrong.code_accuracy[MODEL] < 0.5
    assert len(wrong.horizon[MODEL]["ssim"]) == FRAMES - CONTEXT
    value, low, high = wrong.rows[MODEL]["frechet"]
    assert value > 0 and low <= value <= high
    assert set(right.halves) == {"frechet", "kernel"}


def test_the_record_and_the_words_say_what_the_numbers_are_not(data, network):
    judgement = judge(predicted(Told(make().encoder), data), network, seed=0, reporter=SilentReporter())
    record = judgement_record(judgement, network)
    assert record["comparable_with_published_lpips_or_fvd"] is False
    assert record["feature_network"] == {"spec": "tiny", "fingerprint": network.fingerprint}
    assert record["rows"][COPY]["psnr_db"]["low"] <= record["rows"][COPY]["psnr_db"]["value"]
    said = " ".join(words(judgement, network, trained_on=True))
    assert "never with published LPIPS or FVD" in said and "was trained on these clips" in said
    assert "was trained on" not in " ".join(words(judgement, network, trained_on=False))
    assert [row[0] for row in judgement_rows(judgement)] == [MODEL, COPY, TOKENIZER]


def test_one_clip_has_no_distance_between_sets(data, network):
    judgement = judge(predicted(Told(make().encoder), data, indices=[1]), network, seed=0, reporter=SilentReporter())
    assert "frechet" not in judgement.rows[MODEL] and judgement.halves == {}
    assert judgement_rows(judgement)[0][4] == "needs 2 clips"


def test_films_and_pictures_show_what_they_should(data, network, tmp_path):
    clips = predicted(Told(make().encoder), data)
    write_film(clips, 0, tmp_path / "film.mp4", fps=10)
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == FRAMES
    left, middle = frames[0].shape[1] // 6, frames[0].shape[1] // 2
    given, foreseen = frames[CONTEXT - 1][-2, [left, middle]], frames[CONTEXT][-2, [left, middle]]
    assert (given[:, 1] > given[:, 0]).all()  # green borders
    assert foreseen[0, 1] > foreseen[0, 0] and foreseen[1, 0] > foreseen[1, 1]  # the prediction's turns red
    write_contact_sheet(clips, [0, 2], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture)
    side = 96 // SIDE * SIDE
    assert sheet.shape == (2 * (4 * side + 7), 104 + side * (FRAMES - CONTEXT + 1), 3)
    assert (sheet[side : side + 6 : 6, 104 : 104 + side : 6] == clips.rows[MODEL][0, CONTEXT - 1, :1]).all()
    judgement = judge(clips, network, seed=0, reporter=SilentReporter())
    write_curves(judgement.horizon, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size[0] > 1000


def test_frames_of_another_size_are_shown_as_the_tokenizer_sees_them():
    flat = np.full((2, 40, 30, 3), 90, np.uint8)
    assert (as_seen(tokenizer(), flat) == 90).all()
    assert as_seen(tokenizer(), flat).shape == (2, SIDE, SIDE, 3)


def test_what_makes_no_sense_is_refused(data, tmp_path):
    for context in (0, FRAMES):
        with pytest.raises(UsageError, match=rf"context must be in \[1, 5\].*got {context}"):
            predicted(Told(make().encoder), data, context=context)
    other = open(tmp_path, video_store(tmp_path / "store", action_dim=3))
    with pytest.raises(UserError, match="trained on actions of 2 values per step of a clip, the data have 3"):
        predicted(Told(make().encoder), other)
