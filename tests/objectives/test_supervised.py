"""Supervised pre-training: losses against loops, mixed pictures, and that classes are learned."""

from functools import cache

import numpy as np
import pytest
import torch
from tiny_objectives import WHOLE, batch, encoder, generator
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.datasets.loading.visual_atoms import atom_labels, render_atoms
from embodied.objectives.parts.mixing import Mixing, pasted_boxes
from embodied.objectives.parts.neighbours import neighbour_error, voted_classes
from embodied.objectives.parts.queue import NOBODY, Queue
from embodied.objectives.supervised import Supervised


def unit_vectors(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=-1)


def loss_in_a_loop(queries, labels, bank, bank_labels, k, temperature):
    """The definition, one query and one neighbour at a time: losses (None: nothing has the class), and kNN votes."""
    everyone, classes = np.concatenate([queries, bank]).astype(float), np.concatenate([labels, bank_labels])
    losses, winners = [], []
    for i, query in enumerate(queries.astype(float)):
        others = [j for j in range(len(everyone)) if j != i and classes[j] != NOBODY]
        others.sort(key=lambda j: -(query @ everyone[j]))
        weight = {j: np.exp(query @ everyone[j] / temperature) for j in others}
        nearest = others[:k]
        votes = {}
        for j in nearest:
            votes[classes[j]] = votes.get(classes[j], 0) + weight[j]
        winners.append(max(votes, key=votes.get))
        same = [j for j in others if classes[j] == labels[i]]
        if same and not set(same) & set(nearest):
            nearest = [*nearest, same[0]]
        agreeing = sum(weight[j] for j in nearest if classes[j] == labels[i])
        losses.append(-np.log(agreeing / sum(weight[j] for j in nearest)) if same else None)
    return losses, winners


@pytest.mark.parametrize(("k", "remembered"), [(1, 0), (3, 0), (3, 9), (7, 9), (100, 9)])
def test_the_leave_one_out_loss_equals_a_loop(k, remembered):
    queries, bank = unit_vectors(12, 4), unit_vectors(remembered, 4, seed=1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 4])  # the last is alone
    bank_labels = torch.randint(-1, 4, (remembered,), generator=generator(2))
    error, found, votes = neighbour_error(queries, labels, bank, bank_labels, neighbours=k, temperature=0.2)
    expected, winners = loss_in_a_loop(
        *(each.numpy() for each in (queries, labels, bank, bank_labels)), k=k, temperature=0.2
    )
    assert found.tolist() == [each is not None for each in expected]
    np.testing.assert_allclose(error, [each or 0.0 for each in expected], rtol=1e-4, atol=1e-5)
    assert voted_classes(votes, torch.cat([labels, bank_labels]), 5).tolist() == winners
    torch.testing.assert_close(votes.sum(dim=1), torch.ones(12))
    assert ((votes > 0).sum(dim=1) <= k).all() and (votes[:, :12].diagonal() == 0).all()


def test_with_all_neighbours_it_is_neighbourhood_component_analysis():
    queries, labels = unit_vectors(8, 3), torch.tensor([0, 1] * 4)
    nothing = queries[:0], labels[:0]
    error, _, _ = neighbour_error(queries, labels, *nothing, neighbours=7, temperature=0.5)
    probabilities = (queries @ queries.T / 0.5).fill_diagonal_(-torch.inf).softmax(dim=1)
    same = labels[:, None] == labels
    torch.testing.assert_close(error, -(probabilities * same).sum(dim=1).log())


@pytest.mark.parametrize("remembered", [0, 3])
def test_a_picture_alone_costs_nothing_and_breaks_nothing(remembered):
    queries = unit_vectors(1, 4).requires_grad_(True)
    bank = unit_vectors(remembered, 4), torch.full((remembered,), NOBODY)
    error, found, votes = neighbour_error(queries, torch.tensor([2]), *bank, neighbours=5, temperature=0.1)
    error.sum().backward()
    assert error.item() == 0 and not found.any() and not votes.any()
    assert torch.equal(queries.grad, torch.zeros(1, 4))


def test_the_only_one_of_its_class_is_left_out_of_the_mean():
    objective = Supervised(encoder(), classes=3, loss="look", hidden=8, outputs=4, bank=0, neighbours=3)
    queries, labels = unit_vectors(5, 4), torch.tensor([0, 0, 1, 1, 2])
    loss, metrics = objective.neighbour_loss(queries, labels)
    error = neighbour_error(queries, labels, queries[:0], labels[:0], neighbours=3, temperature=0.1)[0]
    torch.testing.assert_close(loss, error[:4].mean())
    assert metrics["alone"].item() == pytest.approx(0.2)


def test_the_bank_keeps_features_with_their_classes():
    queue = Queue(5, 4, labelled=True).train()
    rows, labels = unit_vectors(7, 4), torch.arange(7)
    assert queue.labels.tolist() == [NOBODY] * 5
    queue.note(rows[:3], labels[:3])
    queue.update()
    assert queue.labels.tolist() == [0, 1, 2, NOBODY, NOBODY]
    queue.note(rows[3:5], labels[3:5])
    queue.note(rows[5:], labels[5:])
    queue.update()
    assert queue.labels.tolist() == [5, 6, 2, 3, 4]
    assert torch.equal(queue.value, rows[queue.labels])
    assert "labels" not in Queue(5, 4).state_dict()


def test_pictures_of_earlier_steps_become_neighbours():
    objective = Supervised(encoder(), classes=3, loss="look", hidden=8, outputs=4, bank=6, neighbours=4)
    queries = unit_vectors(4, 4)
    assert objective.neighbour_loss(queries, torch.tensor([0, 1, 2, 2]))[1]["alone"].item() == 0.5
    objective.after_step(1, 10)
    later, metrics = objective.neighbour_loss(queries[:1], torch.tensor([1]))
    assert metrics["alone"].item() == 0
    weights = (queries @ queries[0] / 0.1).exp()  # of the four in the bank, of which the second has the class
    torch.testing.assert_close(later, -(weights[1] / weights.sum()).log())


def test_cross_entropy_of_smoothed_mixed_labels_equals_numpy():
    objective = Supervised(encoder(), classes=4, smoothing=0.2)
    logits, labels = torch.randn(3, 4, generator=generator()), torch.tensor([0, 3, 2])
    partners, shares = torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.7, 0.25])
    loss, metrics = objective.class_loss(logits, labels, partners, shares)
    scores = logits.double().numpy()
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    total, right = 0.0, 0
    for i, (own, share) in enumerate(zip(labels, shares, strict=True)):
        target = np.full(4, 0.2 / 4)
        target[own] += 0.8 * float(share)
        target[labels[partners[i]]] += 0.8 * (1 - float(share))
        total -= target @ logs[i]
        right += scores[i].argmax() == (own if share >= 0.5 else labels[partners[i]])
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)
    assert metrics["accuracy"].item() == pytest.approx(right / 3)
    plain, _ = Supervised(encoder(), classes=4, smoothing=0.0).class_loss(
        logits, labels, torch.arange(3), torch.ones(3)
    )
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_pictures_are_two_pictures_in_the_shares_that_are_told(mixup, cutmix):
    images = torch.arange(1.0, 65).view(64, 1, 1, 1).expand(-1, 3, 10, 10)  # even, each of its own value
    mixed, partners, shares = Mixing(mixup=mixup, cutmix=cutmix)(images, generator())
    assert sorted(partners.tolist()) == list(range(64))
    expected = shares * images[:, 0, 0, 0] + (1 - shares) * images[partners, 0, 0, 0]
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), expected)
    even = (mixed == mixed[:, :, :1, :1]).flatten(1).all(dim=1)
    cut = (mixed == images).flatten(1).any(dim=1) | (mixed == images[partners]).flatten(1).any(dim=1)
    assert (even | cut).all()
    if not cutmix:
        assert even.all() and 0 <= shares.min() < 0.1 and 0.9 < shares.max() <= 1
    elif not mixup:
        assert cut.all()
    else:
        assert 10 < cut.sum() < 54
    assert not Mixing(mixup=0.0, cutmix=0.0).on


def test_boxes_have_the_area_of_the_partner_and_stay_inside():
    boxes = pasted_boxes(torch.tensor([0.75, 0.75, 1.0, 0.0]), torch.tensor([[0.5, 0.0, 0.3, 0.5]] * 2), 8)
    assert boxes.sum(dim=(1, 2)).tolist() == [16, 4, 0, 64]  # the second lies on a corner
    assert boxes[0, 2:6, 2:6].all() and boxes[1, :2, :2].all()


def test_the_data_say_how_many_classes_there_are():
    torch.manual_seed(0)
    given = Supervised(encoder(), classes=3)
    torch.manual_seed(0)
    told = Supervised(encoder())
    with pytest.raises(UsageError, match="how many classes are there"):
        told(batch(2), generator())
    torch.manual_seed(99)  # nothing drawn later matters
    told.expect_classes(["cat", "dog", "rat"])
    assert all(torch.equal(told.state_dict()[name], value) for name, value in given.state_dict().items())
    tensors, settings = told.exports()["classifier"]
    assert settings == {"classes": ["cat", "dog", "rat"]} and tensors["weight"].shape == (3, 32)
    given.expect_classes(["cat", "dog"])  # room for more is no mistake
    with pytest.raises(UsageError, match=r"objective\.classes must be at least 4, as in data; got 3"):
        given.expect_classes(list("abcd"))
    with pytest.raises(UsageError, match="at least two classes to tell apart, got 1"):
        Supervised(encoder()).expect_classes(["cat"])
    with pytest.raises(UsageError, match="needs labelled pictures"):
        told({"images": batch(2)["images"]}, generator())
    assert not Supervised(encoder(), classes=3, loss="look").exports()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "lok"}, "did you mean look"),
        ({"loss": "look", "mixup": 0.8}, "mixup and cutmix must be 0, got 0.8 and 0.0"),
        ({"mixup": -1.0}, "must not be negative, got -1.0"),
        ({"smoothing": 1.0}, "smoothing must be in"),
        ({"temperature": 0.0}, "temperature positive"),
        ({"neighbours": 0}, "neighbours at least 1"),
        ({"classes": 1}, "at least two classes to tell apart, got 1"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(UsageError, match=message):
        Supervised(encoder(), **options)


@cache
def atoms(first, count):
    """Drawn once for all tests."""
    indices = np.arange(first, first + count)
    frames = torch.from_numpy(render_atoms(indices, size=32, classes=8, seed=1))
    return {"images": frames, "labels": torch.from_numpy(atom_labels(indices, 8))}


@pytest.mark.parametrize("options", [{"smoothing": 0.0}, {"loss": "look", "hidden": 32, "outputs": 16, "bank": 256}])
def test_visual_atoms_are_told_apart_on_indices_that_were_never_trained_on(options):
    torch.manual_seed(0)
    objective = Supervised(encoder(), classes=8, crop_scale=WHOLE, **options).train()
    optimizer, draws = torch.optim.AdamW(objective.parameters(), lr=2e-3), generator()
    for step in range(60):
        optimizer.zero_grad()
        objective(atoms(64 * (step % 10), 64), draws)[0].backward()
        optimizer.step()
        objective.after_step(step + 1, 60)
    with torch.no_grad():
        accuracy = objective.eval()(atoms(2000, 100), draws)[1]["accuracy"].item()
    print(f"{options}: {accuracy:.2f} of 100 new pictures, chance 0.125")
    assert accuracy > 0.3
