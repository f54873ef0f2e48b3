"""A tokenizer as an encoder: codes, their vectors, frames of codes, its artifact, and what it refuses."""

import pytest
import torch
from tiny_clips import VIT, tokenizer

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import Encoder
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.tokenizer import (
    DEFAULT_FOLDER,
    FOLDER,
    FrameTokenizer,
    load_frame_tokenizer,
    require_tokenizer,
)
from embodied.encoders.vit import ViTEncoder
from embodied.models.codebooks import Codebook

KINDS = [("vit", 16), ("vit", None), ("conv", 16), ("conv", None)]


def frames(count=3, height=16, width=16, seed=0):
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=_generator(seed))


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_codes_their_vectors_and_frames(kind, codes):
    made = tokenizer(kind=kind, codes=codes)
    assert isinstance(made, Encoder)
    assert (made.grid, made.vocabulary, made.num_codes) == ((2, 2), 16 if codes else 18, 4)
    found = made.codes(frames())
    assert found.dtype == torch.int64 and found.shape == (3, 4)
    assert 0 <= int(found.min()) <= int(found.max()) < made.vocabulary
    tokens, out = made(made.preprocess(frames()))
    assert torch.equal(out["codes"], found.float()) and tokens.shape == (3, 4, made.width)
    assert torch.equal(tokens, made.quantizer.lookup(found))
    torch.testing.assert_close(out["pooled"], tokens.mean(dim=1))
    drawn = made.decode(found)
    assert drawn.dtype == torch.uint8 and drawn.shape == (3, 16, 16, 3)
    assert (drawn[1:2].int() - made.decode(found[1:2]).int()).abs().max() <= 1  # whatever else is in the batch


def test_the_nearest_vector_is_taken():
    made = tokenizer()
    vectors = made.vectors(made.preprocess(frames()))
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    book = torch.nn.functional.normalize(made.quantizer.book, dim=-1)
    assert torch.equal(made.codes(frames()), torch.cdist(unit, book[None]).argmin(dim=-1))


def test_frames_of_other_sizes_are_resized_and_autocast_changes_no_code():
    made = tokenizer()
    large = frames(2).repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    assert made.codes(large).shape == made.codes(frames(2, 20, 50)).shape == (2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.codes(frames(20)), tokenizer().codes(frames(20)))
        assert made.decode(made.codes(frames())).dtype == torch.uint8


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_the_artifact_rebuilds_it(tmp_path, kind, codes):
    made = tokenizer(kind=kind, codes=codes)
    save_encoder(made, tmp_path / "run" / FOLDER, card="tiny\n")
    for spec in (tmp_path / "run", tmp_path / "run" / FOLDER):
        again = load_frame_tokenizer(spec)
        assert fingerprint(again) == fingerprint(made)
        assert torch.equal(again.codes(frames()), made.codes(frames()))
        assert torch.equal(again.decode(made.codes(frames())), made.decode(made.codes(frames())))
    assert not any(part.requires_grad for part in again.parameters()) and not again.train().training
    assert isinstance(load_encoder(str(tmp_path / "run" / FOLDER)), FrameTokenizer)


def test_mixtures_of_vectors_can_be_decoded_with_gradients():
    made = tokenizer(kind="conv")
    weights = torch.rand(2, 4, 16, generator=_generator(0)).softmax(dim=-1).requires_grad_(True)
    made.decode_vectors(weights @ made.quantizer.lookup(torch.arange(16))).sum().backward()
    assert weights.grad.abs().sum() > 0


def test_what_is_no_tokenizer_or_another_one_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*: train one with embodied pretrain objective=vq"):
        load_frame_tokenizer(tmp_path / "none")
    save_encoder(ViTEncoder(image_size=16, patch_size=8, width=8, depth=1, heads=2), tmp_path / "vit", card="")
    with pytest.raises(UserError, match="vit is an encoder, but no tokenizer: it gives no codes"):
        load_frame_tokenizer(tmp_path / "vit")
    made = tokenizer()
    require_tokenizer(made, fingerprint(made), what="the run")
    with pytest.raises(UserError, match=r"the run was trained on the codes of tokenizer .*, this one is "):
        require_tokenizer(tokenizer(seed=1), fingerprint(made), what="the run")


def test_codes_that_cannot_be():
    made = tokenizer()
    with pytest.raises(UsageError, match=r"codes: expected \[B, 4\], got \[2, 5\]"):
        made.decode(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(UsageError, match="codes must be in 0 to 15, got 0 to 16: they are of another tokenizer"):
        made.decode(torch.tensor([[0, 1, 2, 16]]))
    with pytest.raises(UsageError, match="a tokenizer wants square patches"):
        FrameTokenizer(encoder=_Oblong(), quantizer=Codebook(codes=4, width=2), decoder=VIT)
    with pytest.raises(UsageError, match="the decoder of a tokenizer is vit or conv, got 'rnn'"):
        FrameTokenizer(
            encoder=ViTEncoder(image_size=16, patch_size=8, width=8, depth=1, heads=2),
            quantizer=Codebook(codes=4, width=2),
            decoder={"kind": "rnn"},
        )


class _Oblong(ViTEncoder):
    def __init__(self):
        super().__init__(image_size=16, patch_size=8, width=8, depth=1, heads=2)
        self.grid = (2, 1)


def test_the_shipped_one_loads_and_is_small():
    made = load_frame_tokenizer("default")
    assert made.decode(made.codes(frames(2, 64, 64))).shape == (2, *made.image_size, 3)
    assert sum(file.stat().st_size for file in DEFAULT_FOLDER.iterdir()) < 10e6
    assert "embodied pretrain" in (DEFAULT_FOLDER / "README.md").read_text()
