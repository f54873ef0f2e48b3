"""One policy for several robots: padding reaches nothing, scales are each robot's own, one is loaded by its name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_policies import PLAIN_HEADS, SMALL, TinyEncoder

from embodied.bench.several_robots import MixedDemonstrations, measure_several
from embodied.core.checkpoint import load_checkpoint, save_checkpoint
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, FEATURES, PAD_MASK, STATE
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.demonstrations import Demonstrations
from embodied.encoders.artifact import freeze
from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.policies.artifact import build_policy, describe_policy, load_policy
from embodied.policies.embodiment_files import EMBODIMENT, description_of, tensors_of
from embodied.policies.embodiments import Embodiments
from embodied.training.imitate import Training, imitate

CPU = torch.device("cpu")
MOST = 11  # actions: it divides the width of no layer but those of actions
SIZES = {"one": (5, MOST), "two": (2, 2)}  # values of proprioception, of actions
BINS = 8


def described(head="mlp", *, sizes=SIZES, frames=None, **options):
    """The description of a policy of these robots on a tiny encoder."""
    settings = {"head": head, "feature_shape": [64, 3] if head == "conv" else [3], "hidden": [8], **options}
    if head == "conv":
        settings |= {"channels": 8, "bottleneck": None}
    robots = [
        {
            "name": name,
            "env": {"suite": "none", "task": name},
            "arguments": {"camera": "front", "proprioception_dim": states, "action_dim": actions}
            | ({"action_frame": frames[name]} if frames else {}),
        }
        for name, (states, actions) in sizes.items()
    ]
    encoder = {"spec": "pixels", "seed": 0, "state_dim": None, "fingerprint": ""}
    return describe_policy(
        "embodied.policies.bc.BCPolicy",
        {**settings, "head_options": {**SMALL.get(head, {}), **settings.get("head_options", {})}},
        encoder=encoder, env={"suite": "none"}, robots=robots,
    )  # fmt: skip


def build(metadata, encoder=None):
    torch.manual_seed(0)
    encoder = encoder or TinyEncoder()
    names = [robot["name"] for robot in metadata["robots"]]
    return Embodiments([build_policy(description_of(metadata, name, where=""), encoder) for name in names])


def recordings(states, actions, *, seed, frames=24, scale=1.0, shape=(3,), history=1, chunk=1, forward=False):
    random = np.random.default_rng(seed)
    state, action = random.normal(seed, scale, (frames, states)), random.normal(-seed, 2 * scale, (frames, actions))
    return Demonstrations(
        random.normal(size=(frames, *shape)).astype(np.float32), state=state.astype(np.float32),
        action=action.astype(np.float32), lengths=[frames // 2, frames - frames // 2],
        history=history, chunk=chunk, forward=forward,
    )  # fmt: skip


def parts_of(policy, **options):
    """Recordings of each robot."""
    made, (first, *_) = policy.policies[0].assembly, policy.policies
    sizes = {"history": made.history, "chunk": made.chunk, "forward": made.recurrent, "shape": first.feature_shape}
    return [
        recordings(
            each.proprioception_dim, each.action_dim, seed=3 + 4 * place, scale=1 + 9 * place, **sizes, **options
        )
        for place, each in enumerate(policy.policies)
    ]


def trained(head, **options):
    """A measured policy and its samples."""
    policy = build(described(head, **options))
    parts = parts_of(policy)
    samples = MixedDemonstrations(parts)
    measure_several(policy, parts, samples, device=CPU)
    return policy.train(), samples, parts


def gradients(policy, batch):
    policy.zero_grad()
    loss, _ = policy.loss(batch, torch.Generator().manual_seed(5))
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def spoiled(batch, value):
    """The batch with something else where a robot has no values."""
    batch = {name: tensor.clone() for name, tensor in batch.items()}
    two = batch[EMBODIMENT] == 1
    batch[ACTION][two, :, SIZES["two"][1] :] = value
    batch[STATE][two, :, SIZES["two"][0] :] = value
    return batch


@pytest.mark.parametrize("head", [*PLAIN_HEADS, "vq_bet-codes"])
def test_padded_dimensions_never_change_the_loss_and_get_no_gradient(head):
    head, _, codes = head.partition("-")
    policy, samples, _ = trained(head, head_options={"codebook_steps": 9} if codes else {})
    initial = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    batch = samples.batch(np.arange(len(samples)))
    assert set(batch[EMBODIMENT].tolist()) == {0, 1}
    first = gradients(policy, batch)
    for value in (float("nan"), 1e6):
        policy.load_state_dict(initial)
        other = gradients(policy, spoiled(batch, value))
        assert torch.equal(first[0], other[0])
        assert all(torch.equal(first[1][name], other[1][name]) for name in first[1])
    policy.load_state_dict(initial)
    rows = batch[EMBODIMENT] == 1
    _, found = gradients(policy, {name: tensor[rows] for name, tensor in batch.items()})
    inner, seen = BINS if head == "bins" else 1, 0
    for name, gradient in found.items():
        if not name.startswith("controller.head"):
            continue
        for axis in range(min(2, gradient.ndim)):  # weights that make an action, weights that read one
            if gradient.shape[axis] % (MOST * inner):
                continue
            by_action = gradient.movedim(axis, 0).reshape(-1, MOST, inner, *gradient.movedim(axis, 0).shape[1:])
            assert not by_action[:, 2:].any(), f"{name} learns of actions that the robot has not"
            seen += bool(by_action[:, :2].any())
    assert seen, "no weight of an action was looked at"


def test_each_robot_is_normalised_by_its_own_demonstrations():
    policy, _, parts = trained("mlp", actions="minmax")
    for member, part in zip(policy.policies, parts, strict=True):
        low, high = part.actions.amin(0), part.actions.amax(0)
        torch.testing.assert_close(member.normalizer.offset, (low + high) / 2)
        torch.testing.assert_close(member.normalizer.scale, (high - low) / 2)
        torch.testing.assert_close(member.shared.state_mean, part.states.mean(0))
        torch.testing.assert_close(member.shared.state_std, part.states.std(0, correction=0))
    assert not policy.controller.state_mean.any() and bool((policy.controller.state_std == 1).all())


@pytest.mark.parametrize("head", ["gmm", "rnn_gmm", "flow"])
def test_a_policy_loaded_for_one_robot_is_what_one_makes_by_hand(head, tmp_path):
    metadata = described(head, feature_shape=[768])
    policy = build(metadata, load_encoder("pixels"))
    parts = parts_of(policy)
    measure_several(policy, parts, MixedDemonstrations(parts), device=CPU)
    save_checkpoint(tmp_path / "step_000001.safetensors", policy.trained_tensors(), metadata)
    loaded, told = load_policy(tmp_path / "step_000001.safetensors", device=CPU, embodiment="two")
    assert (loaded.action_dim, loaded.proprioception_dim, told["env"]["task"]) == (2, 2, "two")
    rows = parts[1].batch(np.array([2, 5, 20]))
    noise = torch.randn(loaded.acting.action_head.noise_shape(3), generator=torch.Generator().manual_seed(1))
    state, action = parts[1].states, parts[1].actions
    seen = (rows[STATE] - state.mean(0)) / state.std(0, correction=0)
    hidden = torch.tensor([0.0, 0, 0, 0, 1]).expand(
        *seen.shape[:2], 5
    )  # three values that it has not; it is the second
    with torch.no_grad():
        fused = policy.eval().policies[0].acting.fuse(rows[FEATURES], torch.cat([seen, hidden], dim=-1))
        mask = torch.arange(MOST) < 2
        chunk = policy.policies[0].acting.action_head.sample(fused, action_mask=mask, noise=noise)
        assert not chunk[..., 2:].any()
        if head == "flow":
            wanted = chunk[..., :2] * action.std(0, correction=0) + action.mean(0)
        else:  # within [-1, 1]
            low, high = action.amin(0), action.amax(0)
            wanted = low + (chunk[..., :2] + 1) / 2 * (high - low)
        said = loaded.predict(rows[FEATURES], rows[STATE], noise=noise)
    torch.testing.assert_close(said, wanted)


def test_it_acts_with_actions_of_its_own_and_goes_on_from_a_plan():
    policy, _, _ = trained("diffusion")
    two = policy.eval().policies[1]
    generator = torch.Generator().manual_seed(0)
    carry = two.initial(2)
    for _ in range(3):
        frame = torch.randint(0, 256, (2, 8, 8, 3), generator=generator, dtype=torch.uint8)
        carry, plan = two.act(carry, {"observation.images.front": frame, STATE: torch.randn(2, 2, generator=generator)})
        assert plan.shape == (2, plan.shape[1], 2)
    states = torch.randn(2, two.history, 2, generator=generator)
    learned = two.learned(torch.randn(2, 16, 2, generator=generator), states)
    assert learned.shape == (2, 16, MOST) and not learned[..., 2:].any()
    assert two.restored(learned, states).shape == (2, 16, 2)


def test_two_robots_that_see_the_same_are_told_apart_by_one_head():
    """Both see noise and one value that says what to do: one robot follows it, the other does the opposite."""
    sizes = {"one": (1, 3), "two": (2, 2)}
    policy = build(described("mlp", sizes=sizes, hidden=[32, 32]))
    random = np.random.default_rng(0)
    parts = []
    for (states, actions), sign, scale in zip(sizes.values(), (1, -1), (1.0, 50.0), strict=True):
        told = random.uniform(-1, 1, (200, 1)).astype(np.float32)
        seen, state = random.normal(size=(200, 3)).astype(np.float32), np.repeat(told, states, 1) * scale
        action = np.repeat(sign * told, actions, 1) * scale + scale
        parts.append(Demonstrations(seen, state=state, action=action, lengths=[200], history=1))
    samples = MixedDemonstrations(parts)
    measure_several(policy, parts, samples, device=CPU)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for step in range(200):
        loss, _ = policy.train().loss(samples.batch(np.random.default_rng(step).integers(0, 400, 64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for member, part in zip(policy.eval().policies, parts, strict=True):
        rows = part.batch(np.arange(200))
        with torch.no_grad():
            error = (member.predict(rows[FEATURES], rows[STATE])[:, 0] - part.actions).abs().mean()
        mean = (part.actions - part.actions.mean(0)).abs().mean()
        assert error < 0.3 * mean, f"{float(error)} beside {float(mean)} of the mean"


def test_offsets_are_from_the_robots_own_state():
    frames = {"one": {"kind": "relative", "state": [0, *[None] * 10]}, "two": {"kind": "relative", "state": [1, 0]}}
    policy, _, parts = trained("act", frames=frames)
    for member, part in zip(policy.policies, parts, strict=True):
        chosen = part.targets(np.arange(len(part)))
        offsets = member.action_frame.convert(chosen[ACTION], chosen[STATE])[chosen[PAD_MASK]]
        torch.testing.assert_close(member.normalizer.offset, offsets.mean(0), rtol=1e-4, atol=1e-4)


def test_a_robot_without_proprioception_learns_beside_one_that_has_some():
    policy, samples, parts = trained("gmm", sizes={"one": (3, 2), "blind": (0, 2)})
    gradients(policy, samples.batch(np.arange(40)))
    blind = policy.eval().policies[1]
    features = parts[1].batch(np.arange(4))[FEATURES]
    noise = torch.zeros(blind.acting.action_head.noise_shape(4))
    assert torch.equal(
        blind.predict(features, None, noise=noise), blind.predict(features, torch.zeros(4, 1, 0), noise=noise)
    )


def test_samples_are_each_robots_own_and_drawn_by_size_or_as_asked():
    policy = build(described())
    parts = parts_of(policy)
    samples = MixedDemonstrations(parts)
    assert len(samples) == 48 and samples.weights is None
    batch, own = samples.batch(np.array([30, 2, 47])), parts[1].batch(np.array([6, 23]))
    assert batch[EMBODIMENT].tolist() == [0, 1, 1]
    assert torch.equal(batch[ACTION][1:, :, :2], own[ACTION]) and not batch[ACTION][1:, :, 2:].any()
    assert torch.equal(batch[STATE][1:, :, :2], own[STATE]) and torch.equal(batch[FEATURES][1:], own[FEATURES])
    uneven = [parts[0], recordings(2, 2, seed=1, frames=6)]
    weights = MixedDemonstrations(uneven, mixing="uniform").weights
    assert weights[:24].sum() == pytest.approx(0.5) == weights[24:].sum()
    rooted = MixedDemonstrations(uneven, mixing="temperature").weights
    assert rooted[:24].sum() / rooted[24:].sum() == pytest.approx(2.0)  # the square root of 24 to 6


@pytest.mark.parametrize(("tune", "moved"), [("full", None), ("lora", 3 * 4 * 2), ("last_k", 12)])
def test_an_encoder_that_learns_along_is_one_for_all_robots(tune, moved):
    torch.manual_seed(1)
    given = freeze(ViTEncoder(image_size=16, patch_size=8, width=12, depth=3, heads=3))
    metadata = described(feature_shape=[12], tune=tune, tune_rank=2, tune_layers=1)
    policy = build(metadata, given)
    random = np.random.default_rng(0)
    parts = [
        Demonstrations(
            random.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), lengths=[12], history=1,
            state=random.normal(size=(12, states)).astype(np.float32),
            action=random.normal(size=(12, actions)).astype(np.float32),
        )
        for states, actions in SIZES.values()
    ]  # fmt: skip
    samples = MixedDemonstrations(parts)
    measure_several(policy, parts, samples, device=CPU)
    before = {name: tensor.clone() for name, tensor in policy.encoder.state_dict().items()}
    _, found = gradients(policy.train(), samples.batch(np.arange(12, 24)))  # of the second robot alone
    assert any(name.startswith("encoder.") and gradient.any() for name, gradient in found.items())
    optimizer = torch.optim.Adam([each for each in policy.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(3):
        gradients(policy, samples.batch(np.arange(24)))
        optimizer.step()
    assert all(member.encoder is policy.encoder for member in policy.policies)
    learned = policy.encoder.state_dict()
    assert sum(not torch.equal(tensor, learned[name]) for name, tensor in before.items()) == (
        moved or len([*given.parameters()])
    )
    tensors = policy.eval().trained_tensors()
    kept = [name for name in tensors if "encoder." in name]
    assert kept and all(name.startswith("encoder.") for name in kept), "once, under the name of one robot's policy"
    for number, (member, name) in enumerate(zip(policy.policies, SIZES, strict=True)):
        alone = build_policy(description_of(metadata, name, where=""), given)
        alone.load_trained_tensors(tensors_of(tensors, number))
        frames, state = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8), torch.randn(3, 1, SIZES[name][0])
        with torch.no_grad():
            shown = [each.eval().predict(each.encode(frames)[:, None], state) for each in (member, alone)]
        assert torch.equal(*shown)


class Interrupted(Exception):
    """Stands for whatever ends a run."""


class EndsAt(MixedDemonstrations):
    """Samples that are gone after some batches."""

    left = 5

    def batch(self, indices):
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        return super().batch(indices)


@pytest.mark.parametrize("mixing", [None, "uniform"])
def test_a_run_that_was_interrupted_ends_with_the_same_weights(mixing, tmp_path):
    def run(folder, kind):
        policy = build(described("flow", head_options={"sample_steps": 2}))
        parts = parts_of(policy)
        samples = kind(parts, mixing=mixing)
        measure_several(policy, parts, MixedDemonstrations(parts), device=CPU)
        return imitate(
            policy, samples,
            Training(steps=8, batch_size=8, learning_rate=1e-2, weight_decay=0.0, checkpoints=4),
            seed=0, checkpoint_folder=folder, metadata={}, device=CPU, log=lambda record: None,
            reporter=SilentReporter(), weights=samples.weights,
        )  # fmt: skip

    whole = load_checkpoint(run(tmp_path / "whole", MixedDemonstrations))[0]
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", EndsAt)
    ended = load_checkpoint(run(tmp_path / "parts", MixedDemonstrations))[0]
    assert whole.keys() == ended.keys() and all(torch.equal(whole[name], ended[name]) for name in whole)


def test_a_file_holds_what_is_shared_once_and_gives_back_every_robot(tmp_path):
    policy, samples, _ = trained("flow")
    metadata = described("flow")
    gradients(policy, samples.batch(np.arange(48)))
    policy.after_step()
    tensors = policy.trained_tensors()
    own = [f"robots.{number}.{name}" for number in (0, 1) for name in ("normalizer.offset", "shared.state_std")]
    assert set(own) <= tensors.keys() and not any(name.startswith(("members.", "normalizer.")) for name in tensors)
    again = build(metadata)
    again.load_trained_tensors(tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.trained_tensors().items())
    assert policy.policies[1].trained_tensors().keys() == tensors_of(tensors, 1).keys()
    described_two = description_of(metadata, "two", where="file")
    assert described_two["arguments"]["shared"] == {
        "number": 1, "robots": 2, "largest_state": 5, "largest_action": MOST,
    }  # fmt: skip
    with pytest.raises(UsageError, match="belongs to another policy"):
        build(described("flow", sizes={"two": (2, 2), "one": (5, MOST)})).load_trained_tensors(tensors)


@pytest.mark.parametrize(
    ("robots", "name", "message"),
    [
        (True, None, r"file is a policy of several robots: name one of them with embodiment=one\|two"),
        (True, "tow", "unknown embodiment of file 'tow': did you mean two"),
        (False, "one", "file is a policy of one robot: leave embodiment=one out"),
    ],
)
def test_a_robot_that_is_not_there_is_refused(robots, name, message):
    metadata = described() if robots else describe_policy("embodied.policies.bc.BCPolicy", {}, encoder={}, env={})
    with pytest.raises(UsageError, match=message):
        description_of(metadata, name, where=Path("file"))


def test_the_description_of_one_robot_is_what_it_was():
    metadata = describe_policy("a.b", {"head": "mlp"}, encoder={"spec": "pixels"}, env={"task": "t"})
    assert metadata == {
        "target": "a.b", "arguments": {"head": "mlp"}, "encoder": {"spec": "pixels"}, "env": {"task": "t"},
    }  # fmt: skip
    assert description_of(metadata, None, where="") == metadata


@pytest.mark.parametrize("options", [{"head": "gr1"}, {"head": "mlp", "neck": "sequence"}])
def test_what_knows_one_robot_only_is_refused(options):
    with pytest.raises(UsageError, match=r"of one robot: for several choose another encoder, or policy.neck=pooled"):
        build(described(**options))
