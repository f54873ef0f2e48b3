"""Camera messages to pixels: the same for robots as for recordings."""

from __future__ import annotations

import numpy as np

from embodied.datasets.importers.ros_images import read_compressed, read_image
from embodied.datasets.importers.ros_messages import MessageError as UnreadableImage
from embodied.real_robot.messages.cdr_reading import MessageError
from embodied.real_robot.messages.values import Message

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def pixels(message: Message) -> np.ndarray:
    """The picture in a sensor_msgs Image or CompressedImage.

    Colour and mono8 are uint8 [H, W, 3] in RGB; 16UC1, 32FC1 and others as `datasets.importers.ros_images` says. An
    rgb8 Image whose rows are not padded comes as a view of the packet, read-only if that is; bgr8 too, with a negative
    stride.

    Raises:
        MessageError: an encoding that is not known, sizes that do not fit the data, a damaged file.
        TypeError: another message.
    """
    fields = {field.name: getattr(message, field.name) for field in message.struct.fields}
    try:
        if message.struct.name == IMAGE:
            return read_image(fields)
        if message.struct.name == COMPRESSED:
            picture, _ = read_compressed(fields)
            return picture.pixels
    except UnreadableImage as error:
        raise MessageError(str(error)) from error
    raise TypeError(f"expected an Image or a CompressedImage, got a {message.struct.name}")
