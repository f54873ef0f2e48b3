"""One experiment: demonstrations, frozen features, behaviour cloning, closed-loop evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embodied.bench.imitation_data import (
    output_shape,
)
from embodied.bench.policy_episodes import (
    camera_list,
)
from embodied.bench.recorded import Recorded
from embodied.bench.session import Session
from embodied.bench.square_frames import square_frames
from embodied.bench.statistics.sequential import SequentialTest
from embodied.core.errors import UsageError
from embodied.core.files import cache_folder
from embodied.core.protocols import ACTION, ENVIRONMENT_STATE, INSTRUCTION, STATE, TextEncoder
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import input_keys, looks
from embodied.encoders.sensorimotor import SensorimotorEncoder, frame_encoder, sequence_config
from embodied.encoders.text.load import load_text_encoder, text_fingerprint
from embodied.policies.action_space import ActionSpace
from embodied.policies.artifact import build_policy, describe_policy
from embodied.policies.assembly import Assembly, assemble, fill_for_sequence
from embodied.policies.augmented_views import Views, read_views
from embodied.training.checkpoints import checkpoint_path
from embodied.training.imitate import ENCODER, Training

VIEWS = "views"  # among the settings of the policy, but not one of its arguments
ASSEMBLY = ("neck", "feature", "history", "chunk", "execute", "ensemble", "ema")  # settings of `assembly.assemble`


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to run; every field but `device`, `workers`, `cache`, `cache_bytes` and `session` decides the result.

    Args:
        store: the folder of the demonstrations.
        env: arguments of `envs.task_env.TaskEnv`.
        encoder: as `load_encoder` takes it.
        policy: import path of the policy class and its keyword arguments.
        instruction: the text encoder of a policy that follows instructions, as `load_text_encoder` takes it.
        action_space: of the environment.
        demos: demonstrations of the store to learn from, the first ones.
        episodes: evaluation episodes; `selection_episodes` per checkpoint for the best-over-checkpoints column.
        shift: visual shift of the reported episodes: `shift` and `shift_strength` of `TaskEnv`.
        seed: of training and of the evaluation episodes.
        workers: simulator processes.
        slots: episodes side by side; None: one per simulator process.
        cache_bytes: what all feature caches may take; those not in use make room.
        record: whether the reported episodes are filmed.
        stopping: ends the reported episodes early; None: there are `episodes` of them.
        session: what it shares with experiments before and after it.
        recorded: demonstrations that were not collected for it; None: those of `store` were.
        embodiment: the robot's name, of one of several that learn together (`several_robots`).
    """

    store: Path
    env: Mapping[str, Any]
    encoder: str
    policy_target: str
    policy: Mapping[str, Any]
    training: Training
    demos: int
    episodes: int
    selection_episodes: int
    seed: int
    device: torch.device
    workers: int
    instruction: str | None = None
    action_space: ActionSpace | None = None
    shift: Mapping[str, Any] = field(default_factory=dict)
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int | None = None
    slots: int | None = None
    record: bool = True
    stopping: SequentialTest | None = None
    session: Session = field(default_factory=Session)
    recorded: Recorded | None = None
    embodiment: str | None = None

    @cached_property
    def episode_store(self) -> EpisodeStore:
        return EpisodeStore.open(self.store if self.recorded is None else self.recorded.location)

    @property
    def trained_episodes(self) -> list[int]:
        """Numbers of the episodes that it learns from, ascending."""
        if self.recorded is not None:
            return list(self.recorded.trained)
        return list(range(min(self.demos, len(self.episode_store))))

    @property
    def open_loop(self) -> bool:
        """Whether there is no simulator: it is judged by the actions of episodes that are held out."""
        return self.recorded is not None and bool(self.recorded.held_out)

    @property
    def frame_size(self) -> int | None:
        """Side of the square that is seen of each frame; None: frames are squares as they are."""
        return None if self.recorded is None else int(self.env["image_size"])

    @property
    def state_dim(self) -> int | None:
        """Values of the simulator's state, if the demonstrations have it."""
        spec = self.episode_store.keys.get(ENVIRONMENT_STATE)
        return None if spec is None else spec.shape[0]

    @cached_property
    def frozen_encoder(self) -> nn.Module:
        """The encoder, on `device`; `scratch` is the one that is not frozen."""
        # The weights of a random or trainable encoder belong to the run: another seed, other weights.
        load = self.session.encoder if self.tune == "frozen" else load_encoder
        return load(self.encoder, seed=derive_seed(self.seed, "encoder"), state_dim=self.state_dim).to(self.device)

    @cached_property
    def text_encoder(self) -> TextEncoder | None:
        """Of instructions, if the policy follows them."""
        return None if self.followed is None else load_text_encoder(self.followed)

    @cached_property
    def followed(self) -> str | None:
        """The text encoder's name: the one asked for, or that of a sequence encoder which reads instructions."""
        if self.instruction is not None or self.assembly.neck != "sequence":
            return self.instruction
        text = (sequence_config(self.encoder) or {}).get("text")
        left_out = (self.policy.get("neck_options") or {}).get("leave_out") or ()
        return None if text is None or INSTRUCTION in left_out else str(text["spec"])

    @property
    def looks(self) -> bool:
        """Whether the encoder reads frames."""
        return looks(self.frozen_encoder)

    @property
    def trainable(self) -> bool:
        """Whether the encoder learns along: the policy then reads frames."""
        if self.assembly.neck == "sequence":  # what learns comes after the frames' features
            return False
        return self.tune != "frozen" or bool(getattr(self.frozen_encoder, "trainable", False))

    @property
    def tune(self) -> str:
        return str(self.policy.get("tune", "frozen"))

    @property
    def head(self) -> str:
        """What tables call the controller."""
        return str(self.policy["head"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of the policy, with what a sequence encoder wants where they leave it open."""
        settings = {name: value for name, value in self.policy.items() if name != VIEWS}
        return fill_for_sequence(settings, sequence_config(self.encoder))

    @cached_property
    def views(self) -> Views:
        """Further views in the feature cache; none where there is no cache: frames that learn, vectors."""
        cached = self.looks and not self.trainable
        return read_views(self.policy.get(VIEWS)) if cached else Views()

    @cached_property
    def assembly(self) -> Assembly:
        """Neck, head and their numbers, with nothing left to null."""
        return assemble(self.head, **{name: self.settings.get(name) for name in ASSEMBLY})

    @property
    def cameras(self) -> list[str]:
        """Whose frames the encoder reads."""
        return camera_list(self.env)

    def final_policy(self, run: RunFolder) -> Path:
        """The policy file of the last step."""
        return checkpoint_path(run.checkpoints, self.training.steps)

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one frame's feature, of all cameras together, found by encoding one frame."""
        rows = self.episode_store.read(self.input_keys[0], 0, 1)
        if self.looks and self.frame_size is not None:
            rows = square_frames(rows, self.frame_size)
        inputs = torch.from_numpy(rows).to(self.device)
        shape = output_shape(frame_encoder(self.frozen_encoder), inputs, self.assembly.feature)
        return (*shape[:-1], shape[-1] * len(self.input_keys))

    @property
    def input_keys(self) -> list[str]:
        """What the encoder reads of an observation."""
        return input_keys(self.frozen_encoder, self.cameras)

    def arguments(self, *, feature_shape: Sequence[int], proprioception_dim: int, action_dim: int) -> dict[str, Any]:
        """Of the policy class, beside the encoder; JSON-able."""
        space = None if self.action_space is None else self.action_space.record()
        return {
            **self.settings,
            "feature": self.assembly.feature,
            "feature_shape": list(feature_shape),
            "camera": self.env["camera"],
            "proprioception_dim": proprioception_dim,
            "action_dim": action_dim,
            "action_space": space,
        }

    def policy_metadata(self) -> dict[str, Any]:
        """Enough to rebuild the policy, see `policies.artifact`."""
        keys = self.episode_store.keys
        arguments = self.arguments(
            feature_shape=self.feature_shape,
            proprioception_dim=keys[STATE].shape[0] if STATE in keys else 0,
            action_dim=keys[ACTION].shape[0],
        )
        whole = self.trainable and self.tune in ("full", "frozen")  # then the policy file has all of it
        encoder = {
            "spec": self.encoder,
            "seed": derive_seed(self.seed, "encoder"),
            "state_dim": self.state_dim,
            "fingerprint": "" if whole else fingerprint(self.frozen_encoder),
        }
        text = None
        if self.text_encoder is not None:
            text = {"spec": self.followed, "fingerprint": text_fingerprint(self.text_encoder)}
        return describe_policy(self.policy_target, arguments, encoder=encoder, env=self.env, text_encoder=text)


def check_policy(experiment: Experiment) -> None:
    """Build encoder and policy once, before anything is collected or written.

    Raises:
        UserError: an encoder cannot be loaded, or the policy's settings do not fit it.
    """
    encoder = load_encoder(experiment.encoder, state_dim=1)
    cached = looks(encoder) and not getattr(encoder, "trainable", False)
    if read_views(experiment.policy.get(VIEWS)).count and not cached:
        raise UsageError(
            f"policy.views are of cached features of frames, and encoder={experiment.encoder} has none: leave it out"
        )
    size = int(experiment.env["image_size"])
    inputs = torch.zeros((1, size, size, 3), dtype=torch.uint8) if looks(encoder) else torch.zeros(1, 1)
    shape = output_shape(frame_encoder(encoder), inputs, experiment.assembly.feature)
    space = experiment.action_space
    known = encoder.sequence.sizes.get(STATE, 1) if isinstance(encoder, SensorimotorEncoder) else 1
    if "action_frame" in experiment.policy:  # of recordings, which are there
        known = experiment.episode_store.keys[STATE].shape[0]
    arguments = experiment.arguments(
        feature_shape=(*shape[:-1], shape[-1] * len(input_keys(encoder, experiment.cameras))),
        proprioception_dim=known,
        action_dim=1 if space is None else len(space.low),
    )
    described = describe_policy(experiment.policy_target, arguments, encoder={}, env={})
    policy = build_policy(described, encoder, experiment.text_encoder)
    rate = experiment.training.encoder_learning_rate
    learning = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    if rate is not None and not any(name.startswith(ENCODER) for name in learning):
        raise UsageError(
            f"policy.encoder_learning_rate={rate:g}: nothing of encoder={experiment.encoder} learns here; set "
            "policy.tune (full, lora, last_k), or leave it out"
        )
