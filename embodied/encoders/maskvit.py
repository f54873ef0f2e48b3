"""The sequence encoder of MaskViT (Gupta et al. 2022, https://arxiv.org/abs/2206.11894)."""

from __future__ import annotations

from embodied.encoders.sensorimotor import MASKVIT_NAME
from embodied.encoders.video import VideoEncoder
from embodied.models.sequence.maskvit import MaskViTNetwork


class MaskViTEncoder(VideoEncoder):
    """A frozen tokenizer, and the mean of what MaskViT makes of the present frame's codes.

    The frames until now are the beginning of a clip whose rest is hidden, as in pre-training. The paper evaluates
    predictions alone; the readout is ours.
    """

    name = MASKVIT_NAME
    network_class = MaskViTNetwork
