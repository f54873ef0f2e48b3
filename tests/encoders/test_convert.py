"""What the conversion of a whole MAE refuses; what it gives is compared in tests/objectives/test_mae.py."""

import pytest

from embodied.core.errors import UserError
from embodied.encoders.convert import from_transformers, to_transformers
from embodied.encoders.vit import ViTEncoder
from embodied.objectives.masked.mae import MAE


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"registers": 2}, "encoder.vit.registers"),
        ({"layer_scale": 0.1}, "encoder.vit.blocks.0.scale1"),
        ({"qk_norm": True}, "encoder.vit.blocks.0.query_norm.weight"),
    ],
)
def test_what_theirs_cannot_hold_is_not_dropped(options, name):
    encoder = ViTEncoder(image_size=32, patch_size=8, width=24, depth=1, heads=3, **options)
    mae = MAE(encoder, decoder_width=16, decoder_depth=1, decoder_heads=2)
    with pytest.raises(UserError, match=f"has no place for {name}"):
        to_transformers(
            mae.state_dict(), patch_size=8, positions=encoder.vit.positions, decoder_positions=mae.positions
        )


def test_weights_of_something_else_are_refused():
    with pytest.raises(UserError, match=r"vit\.embeddings\.patch_embeddings\.projection\.weight is missing"):
        from_transformers({})
