"""When the frames of a video are shown, without decoding them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.video_files import OPTIONS


def packet_times(path: Path) -> np.ndarray:
    """Times float64 [T] in seconds, ascending, as the packets of the first video stream claim them.

    A packet is a frame in nearly all files; where some hold none that is shown, decoding gives fewer. Files without
    times (raw streams) count as 25 frames per second, if they say nothing else.

    Raises:
        UserError: it cannot be read as a video, or holds none.
    """
    try:
        with av.open(f"file:{path}", "r", options=OPTIONS, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video: delete it, or replace it with the right file")
            stream = container.streams.video[0]
            stamps = [_stamp(packet) for packet in container.demux(stream) if packet.size]
            tick, rate = float(stream.time_base or 0), float(stream.average_rate or 25)
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be read as a video ({error.strerror}): replace it") from error
    if not stamps:
        raise UserError(f"{path} holds no frame: it is empty or damaged; replace it")
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or not tick:
        return np.arange(len(stamps)) / rate
    return np.sort(np.array(known, np.float64)) * tick


def _stamp(packet: av.Packet) -> int | None:
    return packet.dts if packet.pts is None else packet.pts
