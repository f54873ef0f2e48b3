"""Text encoders: deterministic, alone or in a batch, refused when something is missing."""

import json

import pytest
import torch

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.encoders.text import wordllama
from embodied.encoders.text.instructions import Instructions
from embodied.encoders.text.load import DEFAULT, load_text_encoder, text_fingerprint

TEXTS = ["open the drawer", "press the red button", "put the red block down"]
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "open", "the", "drawer", "press", "red", "button", "put", "block"]


@pytest.fixture(scope="module")
def default():
    pytest.importorskip("wordllama")
    return load_text_encoder(DEFAULT)


def cosine(encoder, *texts):
    vectors = torch.nn.functional.normalize(encoder.encode(texts), dim=1)
    return vectors @ vectors.T


def test_the_default_gives_a_vector_per_text_and_the_same_one_in_any_batch(default):
    together = default.encode(TEXTS)
    assert together.shape == (3, default.width) and together.dtype == torch.float32 and default.width == 256
    for row, text in enumerate(TEXTS):
        assert torch.equal(default.encode([text])[0], together[row])
    assert torch.equal(load_text_encoder(DEFAULT).encode(TEXTS), together)
    assert default.encode([]).shape == (0, 256)
    assert not any(parameter.requires_grad for parameter in default.parameters())


@pytest.mark.parametrize(
    ("text", "paraphrase", "other"),
    [
        ("open the drawer", "pull the drawer open", "press the red button"),
        ("press the button from the top", "push the button down", "hammer the nail into the wall"),
        ("pick up the cube", "lift the red cube", "close the window"),
        ("hammer a screw on the wall", "hit the nail with the hammer", "open the drawer"),
        ("put the block into the box", "place the block in the bin", "turn the dial"),
    ],
)
def test_a_paraphrase_is_closer_than_another_task(default, text, paraphrase, other):
    similar = cosine(default, text, paraphrase, other)
    assert similar[0, 1] > similar[0, 2] + 0.1


def test_the_default_needs_its_package_and_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(wordllama, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embodied-learning\[text\]'"):
        load_text_encoder(DEFAULT)
    bare = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(wordllama, "find_spec", lambda name: bare)
    with pytest.raises(UserError, match=r"lacks weights/l2_supercat_256\.safetensors"):
        load_text_encoder(DEFAULT)


def test_an_unknown_name_lists_the_valid_ones():
    with pytest.raises(UsageError, match="unknown text encoder 'wordlama': did you mean wordllama"):
        load_text_encoder("wordlama")


def test_each_distinct_instruction_is_encoded_once():
    class Counting:
        width, asked = 2, []

        def encode(self, texts):
            self.asked += texts
            return torch.tensor([[float(len(text)), 1.0] for text in texts])

    encoder = Counting()
    embed = Instructions(encoder)
    assert embed(["ab", "abc", "ab"]).tolist() == [[2.0, 1.0], [3.0, 1.0], [2.0, 1.0]]
    assert embed(["abc", "a"]).tolist() == [[3.0, 1.0], [1.0, 1.0]]
    assert encoder.asked == ["ab", "abc", "a"]
    for wrong in ([""], ["a", " "], [None]):
        with pytest.raises(UsageError, match=r"instructions\[\d\]: expected a text such as"):
            embed(wrong)
    with pytest.raises(UsageError, match="a list with one text per episode"):
        embed("open the drawer")


def make_tower(kind, folder):
    """A small text model with random weights and a tokenizer of a few words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=16
    )
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 16}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config={**text, **tokens}, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    elif kind == "siglip":
        config = transformers.SiglipConfig(text_config={**text, **tokens}, vision_config=vision)
        model = transformers.SiglipModel(config)
    elif kind == "t5":
        config = transformers.T5Config(
            vocab_size=len(WORDS), d_model=24, d_kv=8, d_ff=48, num_layers=2, num_heads=3, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**text, pad_token_id=0))
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return model.eval(), fast


def expected_vector(kind, model, tokenizer, text):
    """By the whole model, as its own documentation calls it."""
    padded = {"padding": "max_length", "max_length": 16} if kind == "siglip" else {}
    tokens = tokenizer(text, return_tensors="pt", return_token_type_ids=False, **padded)
    with torch.no_grad():
        if kind == "clip":
            hidden = model.text_model(**tokens).pooler_output
            return model.text_projection(hidden)[0]
        if kind == "siglip":
            return model.text_model(input_ids=tokens["input_ids"]).pooler_output[0]
        whole = model.encoder(**tokens) if kind == "t5" else model(**tokens)
        return whole.last_hidden_state.mean(dim=1)[0]


@pytest.mark.parametrize(("kind", "width"), [("clip", 12), ("siglip", 24), ("t5", 24), ("bert", 24)])
def test_towers_of_transformers_give_what_the_whole_model_gives(kind, width, tmp_path):
    model, tokenizer = make_tower(kind, tmp_path / "a")
    encoder = load_text_encoder(f"hf:{tmp_path / 'a'}")
    vectors = encoder.encode(TEXTS)
    assert encoder.width == width and vectors.shape == (3, width) and vectors.dtype == torch.float32
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(vectors[row], expected_vector(kind, model, tokenizer, text))
        assert torch.equal(encoder.encode([text])[0], vectors[row])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    with pytest.raises(UsageError, match="reads 16 tokens, got 22: shorten 'open open"):
        encoder.encode([" ".join(["open"] * 20)])
    with pytest.raises(UsageError, match="at least one word"):
        encoder.encode([" "])


def test_the_fingerprint_knows_weights_and_tokenizer_but_not_the_folder(tmp_path):
    for name in ("a", "b", "c"):
        make_tower("clip", tmp_path / name)
    prints = [text_fingerprint(load_text_encoder(f"hf:{tmp_path / name}")) for name in ("a", "b")]
    assert prints[0] == prints[1]
    file = tmp_path / "c" / "tokenizer.json"
    written = json.loads(file.read_text())
    vocabulary = written["model"]["vocab"]
    vocabulary["red"], vocabulary["put"] = vocabulary["put"], vocabulary["red"]
    file.write_text(json.dumps(written))
    assert text_fingerprint(load_text_encoder(f"hf:{tmp_path / 'c'}")) != prints[0]


def test_folders_that_hold_no_text_model_give_one_message(tmp_path):
    transformers = pytest.importorskip("transformers")
    with pytest.raises(UserError, match="there is no such folder"):
        load_text_encoder(f"hf:{tmp_path / 'absent'}")
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_text_encoder(f"hf:{tmp_path / 'vit'}")
    model, _ = make_tower("bert", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_text_encoder(f"hf:{tmp_path / 'pickled'}")
