"""Behaviour cloning on the features of an encoder.

Legend: B batch, T moments of history, V values of a feature (or N tokens of width V), P proprioception, M moments that
the head reads, E width of an instruction's embedding, H chunk, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, FEATURES, INPUTS, INSTRUCTION, PAD_MASK, STATE, TextEncoder
from embodied.encoders.modality import input_keys
from embodied.encoders.sensorimotor import frame_encoder
from embodied.encoders.text.instructions import Instructions
from embodied.policies.action_space import ActionNormalizer, ActionSpace, Kind, action_kind, pad_actions
from embodied.policies.assembly import assemble
from embodied.policies.chunk_execution import episode_keys
from embodied.policies.controller import Controller, build_controller
from embodied.policies.heads.ema import EMA
from embodied.policies.heads.gr1 import own_head
from embodied.policies.necks.sequence import SequenceNeck, sequence_neck
from embodied.policies.planning import act_on, initial_plans, looks
from embodied.policies.relative_actions import relative_actions
from embodied.policies.shared_input import shared_input
from embodied.policies.tuning import Tune, tuned_copy


class BCPolicy(nn.Module):
    """Behaviour cloning by any action head from an encoder's features, proprioception and, if asked for, instructions.

    The encoder is part of the policy: `act` takes raw observations. What of it learns is saved with the policy; the
    frozen rest is named by its fingerprint in the policy artifact, as is the text encoder, which never learns.

    Args:
        encoder: see `core.protocols.Encoder`; a frozen one must be frozen by the caller.
        camera: which frames an image encoder reads; features of several cameras are put side by side.
        proprioception_dim: P, 0 to ignore `observation.state`.
        action_dim: A.
        feature_shape: shape of one frame's feature, [V] or [N, V], all cameras together.
        head, neck, feature, history, chunk, execute, ensemble, ema: see `assembly.assemble`.
        head_options, neck_options: further arguments of the two.
        hidden: widths of the MLP of `mlp` and `conv`.
        channels, bottleneck: of `neck=spatial`, see `ConvNeck`.
        proprioception_width: a linear layer maps proprioception to so many values; None: none.
        text_encoder: what makes vectors of instructions; None: the policy looks at none.
        instruction_width: values of an instruction beside each moment, by a linear layer.
        actions: see `ActionNormalizer`; None: `minmax` for heads with bounded actions, `zscore` for others.
        action_space: `ActionSpace.record` of the environment.
        action_frame: arguments of `RelativeActions`, for a head that learns offsets; None: actions as they are.
        action_mask: True = this robot has the dimension, [A]; None: it has all.
        shared: further arguments of `SharedInput`, for a controller of several robots (`embodiments`); None: of one.
        tune, tune_rank, tune_layers: see `tuning.tuned_copy`; with `neck=sequence` of a sequence encoder's transformer.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        camera: str | Sequence[str],
        proprioception_dim: int,
        action_dim: int,
        feature_shape: Sequence[int],
        head: str = "mlp",
        neck: str | None = None,
        feature: str | None = None,
        history: int | None = None,
        chunk: int | None = None,
        execute: int | None = None,
        ensemble: float | bool | None = None,
        ema: bool | None = None,
        head_options: Mapping[str, Any] | None = None,
        neck_options: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (256, 256, 256),
        channels: int = 256,
        bottleneck: int | None = 64,
        proprioception_width: int | None = None,
        text_encoder: TextEncoder | None = None,
        instruction_width: int = 64,
        actions: Kind | None = None,
        action_space: Mapping[str, Any] | None = None,
        action_frame: Mapping[str, Any] | None = None,
        action_mask: Sequence[bool] | None = None,
        shared: Mapping[str, int] | None = None,
        tune: Tune = "frozen",
        tune_rank: int = 8,
        tune_layers: int = 2,
    ) -> None:
        super().__init__()
        self.assembly = assemble(
            head,
            neck=neck,
            feature=feature,
            history=history,
            chunk=chunk,
            execute=execute,
            ensemble=ensemble,
            ema=ema,
        )
        self.cameras = (camera,) if isinstance(camera, str) else tuple(camera)
        self.proprioception_dim, self.action_dim = proprioception_dim, action_dim
        self.feature_shape = tuple(feature_shape)
        # Not one of the modules: it is neither trained nor saved, and instructions are few.
        self.instructions = None if text_encoder is None else Instructions(text_encoder)
        recalling = self.assembly.neck == "sequence"
        self.shared = shared_input(shared, head=head, recalls=recalling, state_dim=proprioception_dim)
        neck_module = None
        if recalling:
            neck_module = sequence_neck(
                encoder,
                text_encoder=text_encoder,
                cameras=self.cameras,
                state_dim=proprioception_dim,
                action_dim=action_dim,
                history=self.assembly.history,
                tune=tune,
                tune_rank=tune_rank,
                tune_layers=tune_layers,
                options=neck_options or {},
            )
            tune = "frozen"  # of the image encoder
        own = own_head(encoder, head, action_dim=action_dim, neck=neck_module)
        encoder = frame_encoder(encoder)
        self.controller = build_controller(
            self.assembly,
            feature_shape=self.feature_shape,
            grid=getattr(encoder, "grid", None),
            action_dim=action_dim if self.shared is None else self.shared.largest_action,
            proprioception_dim=0 if recalling else proprioception_dim if self.shared is None else self.shared.width,
            proprioception_width=proprioception_width,
            text_width=None if self.instructions is None else self.instructions.width,
            instruction_width=instruction_width,
            hidden=hidden,
            channels=channels,
            bottleneck=bottleneck,
            head_options={**own.options, **(head_options or {})} if own else head_options or {},
            neck_options=neck_options or {},
            ready_neck=neck_module,
        )
        if own:
            own.give(self.controller.head)
        self.normalizer = ActionNormalizer(
            action_dim=action_dim,
            kind=action_kind(head, actions, bounded=self.controller.action_head.bounded),
            space=None if action_space is None else ActionSpace.of(action_space),
        )
        self.action_frame = relative_actions(
            action_frame,
            head=head,
            action_dim=action_dim,
            proprioception_dim=proprioception_dim,
            by_moment=self.assembly.recurrent,
        )
        self.action_mask: Tensor | None
        mask = None if action_mask is None else torch.tensor(action_mask)
        if self.shared is not None:
            mask = pad_actions(torch.zeros(action_dim), self.shared.largest_action)[1]
        self.register_buffer("action_mask", mask, persistent=False)
        self.ema = EMA(self.controller) if self.assembly.ema else None
        self.tune = tune
        self.encoder = encoder if tune == "frozen" else tuned_copy(encoder, tune, rank=tune_rank, layers=tune_layers)
        self.trainable_encoder = tune != "frozen" or bool(getattr(encoder, "trainable", False))
        if self.trainable_encoder and len(self.cameras) > 1:
            raise UsageError(f"camera: an encoder that learns looks through one camera, got {list(self.cameras)}")

    @property
    def history(self) -> int:
        """T."""
        return self.assembly.history

    @property
    def recalls(self) -> bool:
        """Whether it looks back at its own actions: through a sequence encoder."""
        return isinstance(self.controller.neck, SequenceNeck)

    @property
    def state_width(self) -> int:
        """Values of a moment beside its features: proprioception, or with a sequence encoder a memory."""
        neck = self.controller.neck
        return neck.memory_dim if isinstance(neck, SequenceNeck) else self.proprioception_dim

    @property
    def acting(self) -> Controller:
        """What plans: in eval mode the averaged weights, if there are any."""
        average = self.ema.average if self.ema is not None and not self.training else self.controller
        assert isinstance(average, Controller)
        return average

    def see(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Features of one observation per row, [B, *feature_shape]."""
        return torch.cat([self.encode(observation[key]) for key in input_keys(self.encoder, self.cameras)], dim=-1)

    def encode(self, inputs: Tensor) -> Tensor:
        """Raw frames uint8 [B, H, W, 3] of one camera (states float [B, S]) to one feature per frame."""
        tokens, out = self.encoder(self.encoder.preprocess(inputs))  # type: ignore[operator]
        return tokens if self.assembly.feature == "tokens" else out[self.assembly.feature]

    def predict(
        self,
        features: Tensor,
        state: Tensor | None,
        *,
        instruction: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """A chunk [B, H, A] in the environment's units, from features [B, T, *feature_shape] and states [B, T, P].

        Args:
            instruction: embeddings [B, E], for a policy that follows instructions.
            noise: see `ActionHead.noise_shape`; None draws it, where there is any, from the global generator.
        """
        acting = self.acting
        fused = acting.fuse(features, self.seen_state(features, state), instruction)
        chunk = acting.action_head.sample(fused, action_mask=self.action_mask, noise=noise)
        return self.restored(chunk, state)

    def seen_state(self, features: Tensor, state: Tensor | None) -> Tensor | None:
        """What the controller reads beside features [B, T, ...]: proprioception [B, T, P], or `SharedInput` of it."""
        if self.shared is None:
            return state
        return self.shared(features.new_zeros(*features.shape[:2], 0) if state is None else state)

    def learned(self, actions: Tensor, states: Tensor | None) -> Tensor:
        """Actions [B, H, A] as the head learns them, by the states [B, T, ...] of its window.

        A head that serves several robots learns as many as it gives: zeros, which are masked, follow the robot's.
        """
        if self.action_frame is not None:
            assert states is not None
            actions = self.action_frame.convert(actions, states)
        learned = self.normalizer.normalize(actions)
        return learned if self.shared is None else pad_actions(learned, self.shared.largest_action)[0]

    def restored(self, chunk: Tensor, states: Tensor | None) -> Tensor:
        """The inverse of `learned`, by the same states: what a head says in the environment's units."""
        actions = self.normalizer.restore(chunk if self.shared is None else chunk[..., : self.action_dim])
        if self.action_frame is not None:
            assert states is not None
            actions = self.action_frame.restore(actions, states)
        return actions

    def executed(self, actions: Tensor) -> Tensor:
        """What of actions [..., A] is executed, as recordings would have it."""
        done = self.normalizer.within_bounds(actions)
        return done if self.action_frame is None else self.action_frame.as_recorded(done)

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's loss on normalised actions.

        Args:
            batch: `features` [B, T, ...] or, for an encoder that learns, `inputs` uint8 [B, T, H, W, 3];
                `observation.state` [B, T, P]; `instruction` [B, E], if the policy follows instructions;
                `action` [B, H, A]; `pad_mask` bool [B, H].
            generator: randomness of augmentation and head.
        """
        state = batch.get(STATE)
        return self.head_loss(
            batch,
            state=state if self.shared is None else self.shared(batch[STATE]),
            actions=self.learned(batch[ACTION], state),
            action_mask=self.action_mask,
            generator=generator,
        )

    def head_loss(
        self,
        batch: Mapping[str, Tensor],
        *,
        state: Tensor | None,
        actions: Tensor,
        action_mask: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's loss on what was made of a batch's states and actions, see `loss`."""
        if self.training and self.controller.batch_norm and len(batch[ACTION]) < 2:
            raise UsageError("this head's BatchNorm needs two samples per step: train.batch_size must be at least 2")
        if self.trainable_encoder:
            inputs = batch[INPUTS]
            augment = getattr(self.encoder, "augment", None)
            if augment is not None:
                inputs = augment(inputs, generator)
            features = self.encode(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])  # (B, T, ...)
        else:
            features = batch[FEATURES]
        return self.controller.action_head.loss(
            self.controller.fuse(features, state, batch.get(INSTRUCTION)),
            actions,
            batch[PAD_MASK],
            action_mask=action_mask,
            generator=generator,
        )

    def after_measuring(self) -> None:
        """After statistics were taken: the average of the weights has them too."""
        if self.ema is not None:
            for fresh, stale in zip(self.controller.buffers(), self.ema.average.buffers(), strict=True):
                stale.copy_(fresh)

    def after_step(self) -> None:
        """After every optimiser step: the average follows the weights."""
        if self.ema is not None:
            self.ema.update(self.controller)

    def initial(self, batch_size: int, *, instructions: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What an episode remembers, a row each, at its start. See `planning`.

        Args:
            instructions: what to do, one text per episode; a policy without a text encoder does not look at them.

        Raises:
            UsageError: the policy follows instructions, and there is not one for every episode.
        """
        return initial_plans(self, batch_size, instructions)

    @torch.inference_mode()
    def act(self, carry: dict[str, Tensor], observation: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What is planned from this step on, [B, H, A] in the environment's units (not clipped to its bounds).

        The first action is to be executed now. Where a plan has been executed as far as it should, a new one is made.
        Noise depends on how the episode began and on the step: the same episode, the same actions.
        """
        return act_on(self, carry, observation)

    def looks(self, carry: dict[str, Tensor]) -> Tensor:
        """Whether the next `act` with this carry looks at what cameras show, bool [B]: not while a plan is executed."""
        return looks(self, carry)

    def noise_keys(self, observation: Mapping[str, Tensor]) -> Tensor:
        """What tells the episodes apart that begin with this observation, int64 [B]."""
        names = dict.fromkeys([*input_keys(self.encoder, self.cameras), STATE])
        return episode_keys(*(observation[name] for name in names if name in observation))

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but what is frozen of the encoder."""
        tensors = self.state_dict()
        whole = self.tune in ("frozen", "full") and self.trainable_encoder
        learning = {name for name, parameter in self.encoder.named_parameters() if parameter.requires_grad}
        kept = set() if not self.trainable_encoder else learning
        return {
            name: tensor
            for name, tensor in tensors.items()
            if whole or not name.startswith("encoder.") or name.removeprefix("encoder.") in kept
        }

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_tensors`; a checkpoint of another policy is refused."""
        expected = self.trained_tensors()
        if missing := sorted(expected.keys() ^ tensors.keys()):
            raise UsageError(f"the checkpoint belongs to another policy: it differs in {', '.join(missing[:5])}")
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                raise UsageError(
                    f"the checkpoint belongs to another policy: {name} is {tuple(tensor.shape)}, "
                    f"expected {tuple(expected[name].shape)}"
                )
        self.load_state_dict(dict(tensors), strict=False)
