"""A ROS 2 node by other people: dora-rs' bridge, in Rust, over RustDDS or its own rmw_zenoh. Run by test_dora.py.

Arguments: a JSON object with `transport`, `ros_path`, `domain`, `zenoh_config`, `duration_s`. Prints JSON lines: what
it received.
"""

import json
import os
import sys
import threading
import time

import numpy as np
import pyarrow as pa
from dora import Ros2Context, Ros2Durability, Ros2NodeOptions, Ros2QosPolicies, Ros2Transport

TIME = pa.struct([("sec", pa.int32()), ("nanosec", pa.uint32())])
HEADER = pa.struct([("stamp", TIME), ("frame_id", pa.string())])
IMAGE = pa.struct(
    [
        ("header", HEADER),
        ("height", pa.uint32()),
        ("width", pa.uint32()),
        ("encoding", pa.string()),
        ("is_bigendian", pa.uint8()),
        ("step", pa.uint32()),
        ("data", pa.list_(pa.uint8())),
    ]
)
NUMBERS = pa.list_(pa.float64())
JOINTS = pa.struct(
    [
        ("header", HEADER),
        ("name", pa.list_(pa.string())),
        ("position", NUMBERS),
        ("velocity", NUMBERS),
        ("effort", NUMBERS),
    ]
)


def print_received(subscription, name):
    while True:
        message = subscription.next()
        if message is None:
            time.sleep(0.001)
        else:
            line = json.dumps({"topic": name, "message": message.to_pylist()[0]}) + "\n"
            os.write(1, line.encode())  # at once: the threads' lines must not mix


def main():
    settings = json.loads(sys.argv[1])
    if settings["transport"] == "zenoh":
        transport = Ros2Transport.zenoh("humble", settings["zenoh_config"])
    else:
        transport = Ros2Transport.dds()
    context = Ros2Context(ros_paths=[settings["ros_path"]], transport=transport, domain_id=settings["domain"])
    node = context.new_node("dora_robot", "/", Ros2NodeOptions(rosout=False))
    qos = Ros2QosPolicies(durability=Ros2Durability.Volatile, reliable=True, keep_last=5, max_blocking_time=0.1)

    def topic(name, kind):
        return node.create_topic(name, kind, qos)

    images = node.create_publisher(topic("/cam0/image_raw", "sensor_msgs/Image"), qos)
    joints = node.create_publisher(topic("/joint_states", "sensor_msgs/JointState"), qos)
    for name, kind in (
        ("/command", "trajectory_msgs/JointTrajectory"),
        ("/forward", "std_msgs/Float64MultiArray"),
        ("/frame", "sensor_msgs/CompressedImage"),
    ):
        subscription = node.create_subscription(topic(name, kind), qos)
        threading.Thread(target=print_received, args=(subscription, name), daemon=True).start()
    began = time.monotonic()
    for number in range(1_000_000):
        if time.monotonic() - began > settings["duration_s"]:
            break
        stamp = time.monotonic_ns()  # lets the test see how long messages take
        stamp = {"sec": stamp // 10**9, "nanosec": stamp % 10**9}
        header = {"stamp": stamp, "frame_id": f"cam{number % 7}"}
        pixels = ((np.arange(224 * 224 * 3) + number) % 251).astype(np.uint8)
        picture = {"header": header, "height": 224, "width": 224, "encoding": "rgb8", "is_bigendian": 0, "step": 672}
        images.publish(pa.array([{**picture, "data": pixels}], type=IMAGE))
        measured = {"position": np.arange(7) * 0.1 + number, "velocity": np.zeros(7), "effort": np.zeros(0)}
        names = [f"joint_{place}" for place in range(7)]
        joints.publish(pa.array([{"header": header, "name": names, **measured}], type=JOINTS))
        time.sleep(0.05)
    os._exit(0)  # its threads do not end by themselves


main()
