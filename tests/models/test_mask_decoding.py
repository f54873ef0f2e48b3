"""Iterative decoding: schedules, orders, draws, passes, what a pass may see."""

from itertools import pairwise

import pytest
import torch

from embodied.core.errors import UsageError
from embodied.models.sequence.mask_decoding import (
    ORDERS,
    SCHEDULES,
    Decoding,
    choose_codes,
    decode,
    decode_one_by_one,
    hidden_counts,
    hidden_share,
)

FRAMES, PLACES, VOCABULARY = 4, 6, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Table:
    """Fixed logits of every place, noting what each pass was shown."""

    def __init__(self, batch=3, seed=0):
        self.logits = torch.randn(batch, FRAMES * PLACES, VOCABULARY, generator=generator(seed))
        self.seen = []

    def __call__(self, codes, hidden, places):
        self.seen.append((codes.clone(), hidden.clone(), places.clone()))
        return self.logits.gather(1, places[..., None].expand(-1, -1, VOCABULARY))


def start(batch=3):
    return torch.randint(VOCABULARY, (batch, FRAMES, PLACES), generator=generator(1))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 7, 256, 2560])
def test_fewer_codes_are_hidden_after_every_pass_and_none_at_the_end(schedule, count):
    shares = [hidden_share(schedule, number / 20) for number in range(21)]
    assert shares[0] == 1 and shares[-1] == 0
    assert all(after < before for before, after in pairwise(shares))
    for iterations in {1, 2, min(8, count), count}:
        if iterations > count:
            continue
        counts = hidden_counts(schedule, iterations, count)
        assert len(counts) == iterations and counts[-1] == 0
        assert all(after < before for before, after in pairwise([count, *counts]))


def test_counts_follow_the_schedule():
    assert hidden_counts("cosine", 4, 100) == [92, 70, 38, 0]  # 100 cos(pi k / 8), rounded down
    assert hidden_counts("linear", 4, 100) == [75, 50, 25, 0]
    assert hidden_counts("square", 4, 100) == [93, 75, 43, 0]
    assert hidden_counts("linear", 5, 5) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("by_frame", [False, True])
def test_one_pass_gives_the_most_probable_codes(order, by_frame):
    table, codes = Table(), start()
    decoding = Decoding(iterations=1, order=order, frame_by_frame=by_frame)
    found = decode(table, codes, first=1, stop=FRAMES, decoding=decoding, generator=generator())
    best = table.logits.argmax(dim=-1).unflatten(1, (FRAMES, PLACES))
    assert torch.equal(found.codes[:, 1:], best[:, 1:])
    assert torch.equal(found.codes[:, :1], codes[:, :1])
    assert found.passes == len(table.seen) == (3 if by_frame else 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_pass_hides_exactly_as_many_as_the_schedule_says(order, schedule):
    table = Table()
    decoding = Decoding(iterations=4, order=order, schedule=schedule)
    decode(table, start(), first=1, stop=3, decoding=decoding, generator=generator())
    counts = [2 * PLACES, *hidden_counts(schedule, 4, 2 * PLACES)[:-1]]
    for (_, hidden, places), count in zip(table.seen, counts, strict=True):
        assert not hidden[:, 0].any() and bool(hidden[:, 3].all())  # a frame that is not wanted stays hidden
        assert hidden[:, 1:3].flatten(1).sum(dim=1).tolist() == [count] * 3
        assert bool(hidden.flatten(1).gather(1, places).all())


def test_sure_codes_come_first_and_noise_changes_the_order():
    table = Table()
    plain = Decoding(iterations=6, schedule="linear", temperature=0.0)
    decode(table, start(), first=2, stop=FRAMES, decoding=plain, generator=generator())
    surety = table.logits.log_softmax(dim=-1).amax(dim=-1)[:, 2 * PLACES :]  # (B, 12)
    for row in range(3):
        ranked = surety[row].argsort(descending=True).tolist()
        for number, (_, hidden, _) in enumerate(table.seen):
            shown = (~hidden[row, 2:].flatten()).nonzero().flatten().tolist()
            assert sorted(ranked[: 2 * number]) == shown
    noisy = Table()
    decode(
        noisy, start(), first=2, stop=FRAMES, decoding=Decoding(iterations=6, schedule="linear"), generator=generator()
    )
    assert not torch.equal(noisy.seen[1][1], table.seen[1][1])


def test_what_is_found_is_shown_to_the_passes_after_it():
    table = Table()
    found = decode(table, start(), first=1, stop=FRAMES, decoding=Decoding(iterations=5), generator=generator())
    for codes, hidden, _ in table.seen:
        assert torch.equal(codes[~hidden], found.codes[~hidden])


def test_one_by_one_takes_a_pass_for_every_code_in_raster_order():
    table, codes = Table(), start()
    found = decode_one_by_one(table, codes, first=1, stop=3)
    assert found.passes == len(table.seen) == 2 * PLACES
    for number, (_, hidden, places) in enumerate(table.seen):
        assert places.tolist() == [[PLACES + number]] * 3
        assert not hidden.flatten(1)[:, : PLACES + number].any()
        assert bool(hidden.flatten(1)[:, PLACES + number :].all())
    assert torch.equal(found.codes[:, 3], codes[:, 3])


def test_draws_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).expand(1, 40_000, 4)
    for temperature in (1.0, 0.5):
        drawn, surety = choose_codes(logits, sampling=temperature, generator=generator())
        shares = drawn.flatten().bincount(minlength=4) / drawn.numel()
        torch.testing.assert_close(shares, (logits[0, 0] / temperature).softmax(dim=0), atol=0.01, rtol=0)
        torch.testing.assert_close(surety, logits.log_softmax(dim=-1).gather(-1, drawn[..., None])[..., 0])


def test_the_generator_decides_and_without_one_nothing_is_drawn():
    decoding = Decoding(iterations=4, sampling=1.0)
    runs = [
        decode(Table(), start(), first=1, stop=FRAMES, decoding=decoding, generator=generator(seed)).codes
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    table, plain = Table(), Table()
    decode(table, start(), first=1, stop=FRAMES, decoding=Decoding(iterations=4))
    decode(
        plain, start(), first=1, stop=FRAMES, decoding=Decoding(iterations=4, temperature=0.0), generator=generator()
    )
    assert all(torch.equal(one[1], other[1]) for one, other in zip(table.seen, plain.seen, strict=True))
    for drawing in (Decoding(iterations=2, order="random"), decoding):
        with pytest.raises(UsageError, match="they need a generator"):
            decode(Table(), start(), first=1, stop=FRAMES, decoding=drawing)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "unknown decoding.schedule 'cosin': did you mean cosine"),
        ({"order": "confident"}, "unknown decoding.order 'confident': did you mean confidence"),
        ({"iterations": 0}, "at least one iteration"),
        ({"temperature": -1.0}, "temperatures of at least 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        Decoding(**settings)


def test_spans_that_make_no_sense():
    for first, stop in ((0, 2), (2, 2), (1, FRAMES + 1)):
        with pytest.raises(UsageError, match="expected at least one frame given and one wanted of 4"):
            decode(Table(), start(), first=first, stop=stop, decoding=Decoding(iterations=1))
    with pytest.raises(UsageError, match=r"iterations must be in \[1, 6\], the codes to find, got 7"):
        hidden_counts("cosine", 7, 6)


def test_where_there_are_fewer_codes_than_iterations_each_gets_a_pass():
    table = Table()
    found = decode(table, start(), first=1, stop=2, decoding=Decoding(iterations=99, schedule="sqrt"))
    assert found.passes == PLACES
    assert [int(hidden[0, 1].sum()) for _, hidden, _ in table.seen] == [6, 5, 4, 3, 2, 1]
