"""What actions tell a model of videos."""

import pytest
from moving_squares import GRID, clips, make_encoder

from embodied.bench.decoding_cost import action_use
from embodied.core.protocols import ACTION
from embodied.objectives.video.maskvit import MaskViT


class Mover(MaskViT):
    """Moves the last frame of the context sideways by the actions, or leaves it there."""

    obeys = True

    def predict(self, batch, *, context=None, generator=None):
        codes = batch["codes"].clone().unflatten(2, (GRID, GRID))
        assert not codes[:, self.context :].any()
        for row in range(len(codes)):
            for step in range(self.context, codes.shape[1]):
                turn = int(batch[ACTION][row, step - 1, 1]) if self.obeys else 0
                codes[row, step] = codes[row, step - 1].roll(turn, dims=-1)
        return codes.flatten(2)


def test_a_model_that_obeys_actions_does_worse_with_those_of_other_clips():
    found = action_use(Mover(make_encoder()).eval(), clips(40))
    assert found["right_true"] == 1.0 and found["right_shuffled"] < 0.95
    assert found["actions_help"] == pytest.approx(1.0 - found["right_shuffled"])
    assert 0 < found["actions_help_low"] < found["actions_help"] < found["actions_help_high"]


def test_a_model_that_ignores_actions_is_seen():
    model = Mover(make_encoder()).eval()
    model.obeys = False
    found = action_use(model, clips(40))
    assert found["right_true"] == found["right_shuffled"] < 1
    assert found["actions_help"] == found["actions_help_low"] == found["actions_help_high"] == 0


def test_without_actions_there_is_nothing_to_say():
    blind = {key: each for key, each in clips(8).items() if not key.startswith(ACTION)}
    assert action_use(Mover(make_encoder()).eval(), blind) == {}
    assert action_use(Mover(make_encoder(action_dim=0)).eval(), clips(8)) == {}
