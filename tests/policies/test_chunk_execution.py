"""The queue of planned actions, and noise that belongs to an episode."""

import torch

from embodied.policies.chunk_execution import (
    advance,
    episode_keys,
    episode_noise,
    initial_queue,
    refill,
)

LIKE = torch.zeros(())


def test_a_plan_is_taken_action_by_action_and_its_end_repeated():
    queue = initial_queue(2, 3, 1, like=LIKE)
    assert queue.left.tolist() == [0, 0]
    queue = refill(queue, torch.tensor([1]), torch.tensor([[[1.0], [2.0], [3.0]]]), execute=2)
    taken = []
    for _ in range(3):
        queue, plan = advance(queue)
        taken.append(plan[1, :, 0].tolist())
    assert taken == [[1.0, 2.0, 3.0], [2.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    assert queue.left.tolist() == [-3, -1]


def test_refilling_leaves_other_rows_and_the_given_queue_alone():
    first = refill(initial_queue(2, 2, 1, like=LIKE), torch.tensor([0, 1]), torch.ones(2, 2, 1), execute=2)
    second = refill(first, torch.tensor([1]), torch.full((1, 2, 1), 5.0), execute=1)
    assert first.actions.flatten().tolist() == [1, 1, 1, 1] and first.left.tolist() == [2, 2]
    assert second.actions.flatten().tolist() == [1, 1, 5, 5] and second.left.tolist() == [2, 1]


def test_keys_come_from_every_byte_and_from_no_other_row():
    frames, state = torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.zeros(3, 2)
    frames[1, 3, 3, 2] = 1
    state[2, 0] = -0.0
    keys = episode_keys(frames, state)
    assert len(set(keys.tolist())) == 3
    assert episode_keys(frames[1:2], state[1:2]).tolist() == [keys[1].item()]


def test_noise_is_standard_normal_and_the_same_for_the_same_key_and_step():
    keys, steps = torch.tensor([7, 7, 8]), torch.tensor([0, 1, 0])
    noise = episode_noise(keys, steps, (50, 40), like=LIKE)
    assert torch.equal(noise, episode_noise(keys, steps, (50, 40), like=LIKE))
    assert noise.mean().abs() < 0.05 and (noise.std() - 1).abs() < 0.05
    correlation = torch.corrcoef(noise.flatten(1))
    assert (correlation - torch.eye(3)).abs().max() < 0.1
