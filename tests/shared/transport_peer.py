"""The other process of the transports' tests: sends back what it gets.

Arguments: a JSON object with `transport` and `options`. Prints `ready`, then `done` after /stop.
"""

import json
import sys
import threading

from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import COMMAND, LATCHED, QoS

SAME = QoS(reliable=True, depth=100)
ECHOED = {"/image": "sensor_msgs/msg/Image", "/command": "trajectory_msgs/msg/JointTrajectory"}


def main():
    settings = json.loads(sys.argv[1])
    transport = open_transport(settings["transport"], **settings["options"])
    stop = threading.Event()
    for topic, kind in ECHOED.items():
        back = transport.advertise(f"{topic}/back", kind, SAME)
        transport.subscribe(topic, kind, SAME, lambda packet, stamp, back=back: back.publish(packet))
    transport.subscribe("/stop", "std_msgs/msg/Empty", COMMAND, lambda packet, stamp: stop.set())
    latched = transport.advertise("/latched", "std_msgs/msg/String", LATCHED)
    latched.publish(encode(message_type("std_msgs/msg/String")(data="here before you")))
    print("ready", flush=True)
    stopped = stop.wait(60)
    transport.close()
    print("done" if stopped else "nobody said stop", flush=True)


if __name__ == "__main__":
    main()
