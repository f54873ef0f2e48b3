"""Camera to command: how long the policy's process takes from a picture to a chunk of actions, and how often it can.

python benchmarks/robot_deploy.py [--device cpu] [--backend torch] [--seconds 10]

First table, the whole process with the default encoder: a camera of 640x480 at 100 Hz and joint states come over DDS
from another process on loopback, and chunks go into the mailbox of the command process. It prints the rate sustained
and what each stage takes. Target: 20 Hz or better on 2 CPU cores.

Second table, where there is a CUDA device (or with --vits): ViT-S/16 and ViT-L/16 with random weights at 224, batch 1,
float32, inference alone: p50, p99 and the rate, with CUDA graphs and as it is. Target: 100 Hz with ViT-L.

Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embodied.encoders.load import load_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.policies.artifact import build_policy, describe_policy
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.policy.acceleration import Acceleration
from embodied.real_robot.policy.backends import BACKENDS, Backend
from embodied.real_robot.policy.inference import Inference
from embodied.real_robot.policy.process import run_policy
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import SENSOR

ROBOT = replace(load_robot("sim"), policy_hz=1000.0)  # as often as it can
CAMERA_HZ = 100
VITS: Mapping[str, dict[str, int]] = {
    "ViT-S/16": {"width": 384, "depth": 12, "heads": 6},
    "ViT-L/16": {"width": 1024, "depth": 24, "heads": 16},
}
TARGET_HZ = 20.0
GPU_TARGET_HZ = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", default="torch", choices=BACKENDS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--vits", action="store_true", help="the second table on a CPU, too")
    parser.add_argument("--steps", type=int, default=500, help="of the second table")
    options = parser.parse_args()
    device = torch.device(options.device)
    policy = inference(load_encoder("default"), "default", 128, device, options.backend)
    print(f"{policy.how}, {torch.get_num_threads()} threads, {len(os.sched_getaffinity(0))} cores")
    policy.warm_up()
    end_to_end(policy, options.seconds)
    if device.type == "cuda" or options.vits:
        print("\nencoder    way       p50 ms   p99 ms       Hz  target")
        for name, sizes in VITS.items():
            for way in ("auto", "eager") if device.type == "cuda" else ("eager",):
                encoder = ViTEncoder(image_size=224, patch_size=16, **sizes).eval().requires_grad_(False)
                alone(name, inference(encoder, name, 224, device, "torch", way), options.steps)


def inference(
    encoder: nn.Module, spec: str, size: int, device: torch.device, backend: Backend, way: Acceleration = "auto"
) -> Inference:
    """A policy with untrained head: what it says does not matter for time."""
    frame = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        width = encoder(encoder.preprocess(frame))[1]["pooled"].shape[-1]
    space = {"low": [-1.0] * 4, "high": [1.0] * 4, "names": ["hand.dx", "hand.dy", "hand.dz", "gripper"]}
    arguments = {
        "camera": "corner4", "proprioception_dim": 4, "action_dim": 4, "feature_shape": [width], "head": "mlp",
        "action_space": space,
    }  # fmt: skip
    metadata = describe_policy(
        "embodied.policies.bc.BCPolicy", arguments, encoder={"spec": spec}, env={"image_size": size}
    )
    policy = build_policy(metadata, encoder).to(device).eval()
    return Inference(policy, metadata, device=device, backend=backend, acceleration=way)


def end_to_end(policy: Inference, seconds: float) -> None:
    """The first table."""
    domain = 1 + os.getpid() % 200
    camera = multiprocessing.get_context("spawn").Process(target=send, args=(domain,), daemon=True)
    camera.start()
    transport = open_transport("dds", domain=domain)
    try:
        with tempfile.TemporaryDirectory() as folder:
            mailbox = PolicyMailbox.create(Path(folder) / "mailbox", ROBOT)
            begun: list[float] = []

            def stop() -> bool:
                if policy.stages.count and not begun:
                    begun.append(time.monotonic())
                    policy.stages.clear()
                return bool(begun) and time.monotonic() - begun[0] > seconds

            report = run_policy(ROBOT, transport, mailbox, policy, stop=stop)
    finally:
        transport.close()
        camera.terminate()
        camera.join()
    hz = report.steps / seconds
    print(f"{hz:.1f} Hz sustained from {CAMERA_HZ} Hz of 640x480 (target {TARGET_HZ:g}): {met(hz >= TARGET_HZ)}")
    print("stage       p50 ms   p99 ms")
    for name, taken in report.stages_ms.items():
        print(f"{name:<10} {taken['p50']:>7.2f}  {taken['p99']:>7.2f}")


def send(domain: int) -> None:
    """The other process: a camera and joint states."""
    transport = open_transport("dds", domain=domain)
    assert ROBOT.joint_states is not None
    topic = ROBOT.cameras["corner4"].topic
    camera = transport.advertise(topic.name, topic.type, SENSOR)
    joints = transport.advertise(ROBOT.joint_states.name, ROBOT.joint_states.type, SENSOR)
    image, state = message_type(topic.type), message_type(ROBOT.joint_states.type)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 480 * 640 * 3), np.uint8)
    deadline, number = time.monotonic(), 0
    while True:
        header = header_message(transport.clock.wall())
        data = pictures[number % len(pictures)]
        joints.publish(encode(state(header=header, name=list(ROBOT.state), position=[0.0, 0.6, 0.2, 1.0])))
        camera.publish(encode(image(header=header, height=480, width=640, encoding="rgb8", step=1920, data=data)))
        deadline, number = deadline + 1 / CAMERA_HZ, number + 1
        time.sleep(max(0.0, deadline - time.monotonic()))


def alone(name: str, policy: Inference, steps: int) -> None:
    """A row of the second table: observation in, actions out, frames uploaded each time."""
    policy.warm_up()
    observation = policy.example(np.random.default_rng(0))
    taken = []
    for _ in range(steps):
        policy.restart()
        start = time.perf_counter()
        policy(observation)
        taken.append(time.perf_counter() - start)
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    hz = steps / sum(taken)
    way = policy.how.partition("encoder ")[2].partition(",")[0]
    target = f"{GPU_TARGET_HZ:g}: {met(hz >= GPU_TARGET_HZ)}" if name == "ViT-L/16" else ""
    print(f"{name:<10} {way:<8} {p50:>7.2f}  {p99:>7.2f}  {hz:>7.1f}  {target}", flush=True)


def met(good: bool) -> str:
    """In words."""
    return "met" if good else "missed"


if __name__ == "__main__":
    main()
