"""Codes: the nearest one, straight-through gradients, averages, dead codes, levels; and the tokenizer's file."""

import pytest
import torch
from tiny_objectives import DECODER, encoder, frames, generator, make, tokenizer

from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError, UserError
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import FSQ
from embodied.objectives.masked.beit import BEiT
from embodied.objectives.masked.vq import VQ
from embodied.objectives.parts.quantizers import VectorQuantizer, code_use
from embodied.objectives.parts.tokenizer import FILE, load_tokenizer


def vectors(count=200, width=3, seed=0):
    return torch.randn(1, count, width, generator=generator(seed))


def test_the_nearest_code_and_the_gradient_of_the_vector():
    book = VectorQuantizer(codes=5, width=3, unit=False, average=None)
    given = vectors(7).requires_grad_(True)
    quantized, codes, _ = book(given)
    assert torch.equal(codes[0], torch.cdist(given[0], book.book).argmin(dim=1))
    torch.testing.assert_close(quantized, book.book[codes])
    (gradient,) = torch.autograd.grad((quantized * 3).sum(), given)
    assert torch.equal(gradient, torch.full_like(given, 3.0))


def test_losses_of_codes_and_commitment():
    book = VectorQuantizer(codes=5, width=3, unit=False, average=None, commitment=0.5)
    given = vectors(7)
    _, codes, loss = book(given)
    torch.testing.assert_close(loss, 1.5 * (given - book.book[codes]).pow(2).mean())


def test_averages_converge_to_the_means_of_clusters():
    centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    given = (centres.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=generator()))[None]
    torch.manual_seed(0)
    book = VectorQuantizer(codes=3, width=2, unit=False, average=0.5)
    for _ in range(40):
        book(given.requires_grad_(True))
        book.update()
    assert torch.cdist(book.book, centres).min(dim=0).values.max() < 0.1
    torch.testing.assert_close(book.share, torch.full((3,), 1 / 3), atol=0.01, rtol=0.0)


def test_a_planted_collapse_is_reported_and_undone():
    torch.manual_seed(0)
    book = VectorQuantizer(codes=32, width=3, average=0.8, restart_below=0.1)
    with torch.no_grad():
        book.book[1:] = -book.book[:1]  # two codes for everybody
    given = vectors(400)
    before = code_use(book.nearest(given), 32)
    assert before["perplexity"] < 3
    for _ in range(40):
        book(given.requires_grad_(True))
        book.update()
    after = code_use(book.nearest(given), 32)
    assert after["perplexity"] > 20
    assert after["codes_used"] > 0.9


def test_nothing_moves_in_evaluation():
    book = VectorQuantizer(codes=4, width=3).eval()
    before = book.book.clone()
    book(vectors())
    book.update()
    assert torch.equal(book.book, before)


def test_levels():
    fsq = FSQ(levels=(8, 6, 5))
    assert fsq.vocabulary == 240
    codes = torch.arange(240)
    assert torch.equal(fsq._codes((fsq.lookup(codes) * (fsq.levels // 2)).round()), codes)
    quantized, found, loss = fsq(3 * vectors(5000))
    assert loss == 0
    assert [len(quantized[0, :, axis].unique()) for axis in range(3)] == [8, 6, 5]
    torch.testing.assert_close(fsq.lookup(found), quantized)
    assert quantized.abs().max() <= 1
    assert torch.equal(fsq.nearest(3 * vectors(5000)), found)
    given = vectors(4).requires_grad_(True)
    assert torch.autograd.grad(fsq(given)[0].sum(), given)[0].abs().min() > 0


def test_use_of_codes():
    even = code_use(torch.arange(8).repeat(4)[None], 16)
    assert even["perplexity"].item() == pytest.approx(8.0, rel=1e-5)
    assert even["codes_used"] == 0.5


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "fsq"])
def test_a_tokenizer_survives_its_file(tmp_path, quantizer):
    torch.manual_seed(0)
    vq = VQ(encoder(), quantizer=quantizer, codes=16, levels=(4, 4), **DECODER)
    tensors, config = vq.exports()["tokenizer"]
    save_checkpoint(tmp_path / FILE, tensors, config)
    loaded = load_tokenizer(tmp_path)
    images = vq.encoder.preprocess(frames(3))
    assert torch.equal(loaded.codes(images), vq.tokenizer.codes(frames(3)))
    assert not any(part.requires_grad for part in loaded.parameters())
    assert BEiT(encoder(), tokenizer=tmp_path).head.out_features == 16


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    """It named the codebook otherwise, and held the averages of its training."""
    made = tokenizer()
    tensors = {**made.state_dict(), "quantizer.share": torch.ones(16), "quantizer.sums": torch.ones(16, 4)}
    book = {"codes": 16, "width": 4, "unit": True}
    save_checkpoint(tmp_path / FILE, tensors, {"encoder": made.encoder.config(), "book": book})
    images = made.encoder.preprocess(frames(3))
    assert torch.equal(load_tokenizer(tmp_path).codes(images), made.codes(images))


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*train one with embodied pretrain objective=vq"):
        load_tokenizer(tmp_path)
    save_checkpoint(tmp_path / FILE, {"a": torch.zeros(1)}, {"step": 3})
    with pytest.raises(UserError, match="but not of a tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UsageError, match=r"objective\.tokenizer: give the run folder"):
        BEiT(encoder())
    with pytest.raises(UsageError, match="patches of 8 pixels in images of 32, the encoder sees 16 in 32"):
        BEiT(ViTEncoder(image_size=32, patch_size=16, width=32, depth=1, heads=2), tokenizer=tokenizer())


def test_beits_tokenizer_stays_as_it_is():
    beit = make("beit")
    before = {name: part.clone() for name, part in beit.tokenizer.state_dict().items()}
    beit({"images": frames(4)}, generator())[0].backward()
    assert not beit.tokenizer.training
    assert all(torch.equal(part, before[name]) for name, part in beit.tokenizer.state_dict().items())


def test_beits_loss_is_the_cross_entropy_of_hidden_patches():
    beit = make("beit")
    images = beit.encoder.preprocess(frames(3))
    codes, mask = beit.tokenizer.codes(images), torch.rand(3, 16, generator=generator()) < 0.4
    loss, logits = beit.masked_loss(images, mask, codes)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[mask], codes[mask]))
