"""A node of ROS 1, run by Debian's Python: sends back what it gets as ROS 1's own classes read and write it.

Prints `ready` and, as JSON, the checksums of the message types named by its arguments; ends with its standard input.
"""

import importlib
import json
import sys

import rospy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory


def md5(name):
    package, message = name.split("/")
    try:
        return getattr(importlib.import_module(package + ".msg"), message)._md5sum
    except (ImportError, AttributeError):
        return None


rospy.init_node("peer", disable_signals=True)
for topic, kind in (("/image", Image), ("/joints", JointState), ("/command", JointTrajectory)):
    back = rospy.Publisher(topic + "/back", kind, queue_size=100)
    rospy.Subscriber(topic, kind, back.publish, queue_size=100, buff_size=1 << 24)
latched = rospy.Publisher("/latched", String, queue_size=1, latch=True)
latched.publish("here before you")
print("ready " + json.dumps({name: md5(name) for name in sys.argv[1:]}), flush=True)
sys.stdin.read()
rospy.signal_shutdown("told to")
