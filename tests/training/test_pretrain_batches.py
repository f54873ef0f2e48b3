"""What an objective asks for reaches it row by row: labels and partners are dealt with their images."""

import numpy as np
import pytest
import torch
from tiny_objectives import frames as moving
from tiny_objectives import make
from torch import nn

from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.frames import Atoms, open_frames
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.objectives.parts.pairings import TimePairs
from embodied.training.batches import batches_for
from embodied.training.optimization import Recipe
from embodied.training.pretrain import pretrain


class Records(nn.Module):
    """Notes every batch; its loss asks for the label and the partner that belong to the image."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(1, 1)
        nn.init.constant_(self.encoder.weight, 0.5)
        nn.init.constant_(self.encoder.bias, 0.1)
        self.seen = []

    def forward(self, batch, generator):
        self.seen.append({name: values.clone() for name, values in batch.items()})
        images, partners = (batch[name].float().flatten(1).mean(dim=1, keepdim=True) for name in ("images", "partners"))
        error = self.encoder(images / 255) - batch["labels"][:, None] - partners / 255
        return error.pow(2).mean(), {}


def read_batch(step):
    """Image, label and partners of a row say the same number."""
    rows = 10 * step + np.arange(8)
    images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (8, 4, 4, 3))
    return {"images": images, "labels": rows, "partners": np.stack([images, images], axis=1)}


def run(folder, objective, *, accumulate=1, read=read_batch, steps=2, rate=0.01, every=None):
    pretrain(
        objective,
        read,
        steps=steps,
        learning_rate=rate,
        weight_decay=0.0,
        warmup_steps=1,
        clip=1e9,
        precision="fp32",
        seed=0,
        checkpoint_folder=folder,
        checkpoint_every=every or steps,
        device=torch.device("cpu"),
        log=lambda record: None,
        reporter=SilentReporter(),
        recipe=Recipe(accumulate=accumulate),
    )
    return objective


def test_every_part_of_a_batch_has_the_labels_and_partners_of_its_images(tmp_path):
    seen = run(tmp_path, Records(), accumulate=4).seen
    assert [len(part["labels"]) for part in seen] == [2] * 8
    for part in seen:
        numbers = part["labels"]
        assert torch.equal(part["images"][:, 0, 0, 0].long(), numbers)
        assert torch.equal(part["partners"][:, :, 0, 0, 0].long(), numbers[:, None].expand(-1, 2))
    assert torch.equal(seen[1]["labels"], torch.tensor([1, 5]))


def test_parts_add_up_to_the_whole(tmp_path):
    whole, parts = (run(tmp_path / str(number), Records(), accumulate=number) for number in (1, 2))
    torch.testing.assert_close(whole.encoder.weight, parts.encoder.weight)
    assert (whole.encoder.weight != 0.5).all()


def test_the_batch_that_diverged_is_kept_with_all_it_has(tmp_path):
    with pytest.raises(UserError, match=r"is (inf|nan) at step") as caught:
        run(tmp_path, Records(), rate=1e30, steps=3)
    tensors, _ = load_checkpoint(str(caught.value).rpartition(" ")[2])
    step = int(tensors["labels"][0]) // 10
    for name, values in read_batch(step).items():
        assert np.array_equal(tensors[name].numpy(), values)


@pytest.fixture
def store(tmp_path):
    with EpisodeStore.create(tmp_path / "s", keys={"observation.images.a": KeySpec("uint8", (4, 4, 3))}, fps=5) as made:
        images = np.arange(5, dtype=np.uint8)[:, None, None, None]
        made.append({"observation.images.a": np.broadcast_to(images, (5, 4, 4, 3))}, task="", seed=0, success=True)
    return made.path


@pytest.fixture
def demos(tmp_path):
    spec = {"observation.images.a": KeySpec("uint8", (32, 32, 3))}
    with EpisodeStore.create(tmp_path / "demos", keys=spec, fps=5) as made:
        for seed in range(2):
            arrays = {"observation.images.a": moving(12, seed=seed).numpy()}
            made.append(arrays, task="", seed=0, success=True)
    return made.path


def test_an_objective_gets_what_it_asks_for(tmp_path, store):
    plain, paired, labelled = Records(), Records(), Records()
    paired.pairing, labelled.wants_labels = TimePairs(gap=(2, 2)), True
    told = []
    labelled.expect_classes = told.append
    frames = open_frames([store], image_size=4, cache_root=tmp_path / "cache")
    assert batches_for(plain, frames, batch_size=3, seed=0)(0).keys() == {"images"}
    batch = batches_for(paired, frames, batch_size=3, seed=0)(0)
    assert (batch["images"] - batch["partners"][:, 0] == 2).all()
    with pytest.raises(UsageError, match="has no labels"):
        batches_for(labelled, frames, batch_size=3, seed=0)
    assert not told
    atoms = open_frames("visual_atoms", image_size=4, cache_root=tmp_path / "cache", atoms=Atoms(2, 6))
    assert sorted(batches_for(labelled, atoms, batch_size=6, seed=0)(0)["labels"]) == [0, 0, 0, 1, 1, 1]
    assert told == [("atom_0", "atom_1")]


def test_pairs_that_were_killed_end_as_those_that_were_not(tmp_path, demos):
    frames = open_frames([demos], image_size=32, cache_root=tmp_path / "cache")

    def train(folder, stop=None):
        objective = make("siammae")
        batches = batches_for(objective, frames, batch_size=4, seed=7)

        def read(step):
            if step == stop:
                raise KeyboardInterrupt
            return batches(step)

        return run(tmp_path / folder, objective, accumulate=2, read=read, steps=6, every=2)

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", stop=5)
    resumed = train("killed")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_frames_to_look_at_come_in_order_and_with_partners(tmp_path, store):
    paired = Records()
    paired.pairing = TimePairs(gap=(1, 1))
    frames = open_frames([store], image_size=4, cache_root=tmp_path / "cache")
    batches = batches_for(paired, frames, batch_size=3, seed=0)
    looked = batches.sample(8)
    assert looked["images"][:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert looked["partners"][:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3]
    again = batches.sample(2)
    assert np.array_equal(again["images"], batches.sample(2)["images"])
    assert len(again["images"]) == 2
