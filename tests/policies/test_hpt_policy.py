"""Encoders and policies of HPT: streaming equals batch, and robots that it was not pre-trained for."""

import pytest
import torch
from letters_text import LettersText
from tiny_mixtures import BODIES, make
from tiny_sequences import CONTEXT, VIEW, episode, image_encoder
from tiny_sequences import encoder as silent_encoder

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, INSTRUCTION, STATE
from embodied.encoders.artifact import build_encoder, freeze, load_artifact, save_encoder
from embodied.encoders.hpt import HPTEncoder
from embodied.encoders.text.load import text_fingerprint
from embodied.policies.bc import BCPolicy
from embodied.policies.export import export_policy
from embodied.policies.necks.sequence import recall

LENGTH, TASKS = 9, ["go round", "turn the other way"]


class OtherText(LettersText):
    def config(self):
        return {"name": "other"}


def encoder(body="dot", latent="tokens", *, told=False):
    """`told`: with a stem of instructions."""
    text = {"spec": "letters", "fingerprint": text_fingerprint(LettersText())} if told else None
    bodies = {**BODIES, body: {**BODIES[body], "text_dim": LettersText().width if told else 0}}
    network = make(bodies).encoder.network(body)
    made = HPTEncoder(frames=image_encoder(), latent=latent, network=network.config(), text=text)
    made.sequence.load_state_dict(network.state_dict())
    return freeze(made)


def policy(made=None, **options):
    settings = {"camera": "front", "proprioception_dim": 3, "action_dim": 2, "history": CONTEXT, **options}
    settings = {"feature_shape": [4, 8], "feature": "tokens", **settings}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return BCPolicy(
            made or encoder(),
            head="mlp",
            neck="sequence",
            chunk=3,
            hidden=[16],
            **settings,
        )


def observations(seed=1):
    arrays = episode(seed, LENGTH)
    return {name: torch.from_numpy(arrays[name]) for name in (VIEW, STATE)}, torch.from_numpy(arrays[ACTION])


def test_step_by_step_is_what_the_whole_episode_gives():
    made, (seen, _) = encoder(), observations()
    with torch.inference_mode():
        whole, out = made({name: values[None] for name, values in seen.items()})
        assert whole.shape == (1, LENGTH, 32) and torch.equal(out["pooled"], whole[:, -1])
        latents = made.encode_frames(seen[VIEW])
        for step in range(LENGTH):
            part = slice(max(0, step + 1 - CONTEXT), step + 1)
            streamed, _ = made({VIEW: latents[None, part], STATE: seen[STATE][None, part]})
            torch.testing.assert_close(streamed[:, -1], whole[:, step])
        padded = {name: torch.cat([values[:1], values[:2]])[None] for name, values in seen.items()}
        away = torch.tensor([[True, False, False]])
        early, _ = made({**padded, **{f"{name}_is_pad": away for name in padded}})
    torch.testing.assert_close(early[:, -1], whole[:, 1])


def test_an_artifact_rebuilds_itself(tmp_path):
    made, (seen, _) = encoder(), observations()
    save_encoder(made, tmp_path / "encoder", card="hpt\n")
    window = {name: values[None] for name, values in seen.items()}
    with torch.inference_mode():
        assert torch.equal(load_artifact(tmp_path / "encoder").eval()(window)[0], made(window)[0])
    with pytest.raises(UserError, match="vectors, cls, pooled, tokens, got 'layers'"):
        build_encoder({**made.config(), "latent": "layers"})


@pytest.mark.parametrize("tune", ["frozen", "full", "lora", "last_k"])
def test_a_policy_acts_on_the_features_of_the_encoder(tune):
    made, (seen, acted) = encoder(), observations()
    trained = policy(made, tune=tune).eval()
    carry = trained.initial(1)
    features, memories = [], []
    for step in range(LENGTH):
        observation = {name: values[step][None] for name, values in seen.items()}
        carry, plan = trained.act(carry, observation)
        before = acted[step - 1 : step] if step else torch.zeros(1, 2)
        carry = carry | {"acted": acted[step][None]}
        features.append(trained.see(observation))
        memories.append(recall(observation[STATE], before, torch.tensor([step])))
        first = [0] * max(0, CONTEXT - 1 - step)  # windows repeat the first moment before the episode began
        window = [*first, *range(max(0, step + 1 - CONTEXT), step + 1)]
        with torch.inference_mode():
            expected = trained.predict(
                torch.stack([features[i] for i in window], 1), torch.stack([memories[i] for i in window], 1)
            )
            moment = trained.controller.neck(
                torch.stack([features[i] for i in window], 1), torch.stack([memories[i] for i in window], 1)
            )
            whole = made({name: values[None, : step + 1] for name, values in seen.items()})[0]
        torch.testing.assert_close(plan, expected)
        torch.testing.assert_close(moment[:, -1], whole[:, -1])


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_a_stream_of_the_same_images_has_other_features_under_another_instruction(tune):
    made, (seen, _) = encoder(told=True), observations()
    trained = policy(made, tune=tune, text_encoder=LettersText()).eval()
    assert trained.controller.instruct is None  # the stem reads it, the head not besides
    window = {name: values[None].expand(2, *values.shape) for name, values in seen.items()}
    with torch.inference_mode():
        whole = made({**window, INSTRUCTION: LettersText().encode(TASKS)})[0]
    moments = []
    trained.controller.neck.register_forward_hook(lambda _neck, _given, moment: moments.append(moment))
    carry = trained.initial(2, instructions=TASKS)
    for step in range(LENGTH):
        carry, plan = trained.act(carry, {name: values[:, step] for name, values in window.items()})
        assert not torch.allclose(plan[0], plan[1]) and not torch.allclose(moments[-1][0], moments[-1][1], atol=1e-3)
        torch.testing.assert_close(moments[-1][:, 0], whole[:, step])


def test_training_reaches_the_stem_that_reads_the_instruction():
    trained = policy(encoder(told=True), tune="full", text_encoder=LettersText()).train()
    trained.normalizer.fit(torch.rand(20, 2))
    rows = {"features": torch.randn(4, CONTEXT, 4, 8), STATE: torch.randn(4, CONTEXT, 6)}
    said = LettersText().encode([*TASKS, *TASKS]).requires_grad_()
    batch = {**rows, INSTRUCTION: said, ACTION: torch.rand(4, 3, 2), "pad_mask": torch.ones(4, 3, dtype=torch.bool)}
    trained.loss(batch, torch.Generator().manual_seed(0))[0].backward()
    stem = trained.controller.neck.network.stems.stems["language"]
    assert said.grad.abs().max() > 0 and all(part.grad.abs().max() > 0 for part in stem.embed.parameters())


def test_without_a_stem_of_instructions_the_head_reads_them_as_with_other_necks():
    seen = observations()[0]
    for made, more in ((encoder(), {}), (silent_encoder(), {"feature_shape": [8], "feature": "pooled"})):
        trained = policy(made, text_encoder=LettersText(), instruction_width=4, **more).eval()
        moments = []
        trained.controller.neck.register_forward_hook(lambda _neck, _given, moment, to=moments: to.append(moment))
        carry = trained.initial(2, instructions=TASKS)
        _, plan = trained.act(carry, {name: values[:1].expand(2, *values.shape[1:]) for name, values in seen.items()})
        torch.testing.assert_close(moments[0][0], moments[0][1])
        assert trained.controller.instruct is not None and not torch.allclose(plan[0], plan[1])


def test_instructions_that_nobody_or_another_text_encoder_makes_are_refused_and_may_be_left_out():
    made = encoder(told=True)
    for text in (None, OtherText()):
        with pytest.raises(UsageError, match=r"pre-trained with instructions by policy\.instruction=letters"):
            policy(made, text_encoder=text)
    silent = policy(made, neck_options={"leave_out": [INSTRUCTION]}).eval()
    features, memories = torch.randn(1, CONTEXT, 4, 8), torch.full((1, CONTEXT, 6), float(LENGTH))
    assert silent.predict(features, memories).shape == (1, 3, 2)
    with pytest.raises(UsageError, match="give it their embeddings"):
        policy(made, text_encoder=LettersText()).eval().predict(features, memories)


def test_it_exports_as_a_graph_with_the_instruction_as_an_input(tmp_path):
    trained = policy(encoder(told=True), text_encoder=LettersText()).eval()
    trained.normalizer.fitted.fill_(True)
    written = export_policy(trained, tmp_path, format="torch", frame_shape=None)
    assert set(written) == {"from_features.pt2"}


def test_frozen_weights_stay_and_fresh_ones_differ():
    made = encoder()
    frozen, full = policy(made), policy(made, tune="full")
    assert not any(part.requires_grad for part in frozen.controller.neck.network.parameters())
    assert all(part.requires_grad for part in full.controller.neck.network.parameters())
    fresh = policy(made, neck_options={"fresh": True}).controller.neck.network
    assert not torch.equal(fresh.trunk.blocks[0].mlp["fc1"].weight, made.sequence.trunk.blocks[0].mlp["fc1"].weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proprioception_dim": 4}, "pre-trained with 3 values of observation.state, this task has 4"),
        ({"camera": "top"}, "pre-trained with views front, not 'top'"),
        ({"history": CONTEXT + 1}, "at most the encoder's context of 4"),
    ],
)
def test_an_embodiment_that_it_does_not_know(options, message):
    with pytest.raises(UsageError, match=message):
        policy(**options)
