"""Writes messages into an MCAP file as they are: the bytes of the wire, with the definitions to read them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from embodied.core.errors import MissingExtraError, UserError
from embodied.datasets.storage.disk import disk_errors
from embodied.real_robot.messages.structs import Definitions, standard_definitions
from embodied.real_robot.messages.type_hash import type_hash
from embodied.real_robot.transports.transport import Packet, check_topic

_CHUNK_BYTES = 4 << 20  # held in memory before they are written, and lost if the machine stops


class Recorder:
    """One MCAP file, readable by ROS 2, Foxglove and `embodied import`.

    It grows as `NAME.mcap.part`, takes its name when it is closed, and never replaces a file. After a crash, what was
    written is in the part: `mcap recover` makes a file of it.
    """

    def __init__(self, path: str | Path, *, definitions: Definitions | None = None, compression: str = "lz4") -> None:
        """Open the file.

        Args:
            path: ends in `.mcap`.
            compression: `lz4`, `zstd` (smaller, five times slower) or `none`.

        Raises:
            UserError: something is there already, or the disk fails.
            MissingExtraError: mcap is not installed.
        """
        try:
            from mcap.writer import CompressionType, Writer
        except ImportError as error:
            raise MissingExtraError("mcap", "ros") from error
        self.path = Path(path)
        if self.path.suffix != ".mcap":
            raise UserError(f"{self.path}: the name of a recording ends in .mcap")
        self._part = self.path.with_name(f"{self.path.name}.part")
        for each in (self.path, self._part):
            if each.exists():
                raise UserError(f"{each} exists already: choose another name, or move it away")
        self._definitions = definitions or standard_definitions()
        self._channels: dict[str, tuple[str, int]] = {}
        self._schemas: dict[str, int] = {}
        self._sequence: dict[str, int] = {}
        self.written_bytes = 0
        with disk_errors(self._part, "recording"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("xb")
            self._writer = Writer(
                self._file, chunk_size=_CHUNK_BYTES, compression=getattr(CompressionType, compression.upper())
            )
            self._writer.start(profile="ros2", library="embodied")

    def add_topic(self, topic: str, message_type: str) -> None:
        """Name a topic before its first message.

        Raises:
            UsageError: a topic name that ROS does not allow, or an unknown type.
            UserError: the topic has another type already.
        """
        known = self._channels.get(check_topic(topic))
        if known is not None:
            if known[0] != message_type:
                raise UserError(f"{topic} is recorded as {known[0]}, not {message_type}")
            return
        struct = self._definitions[message_type]
        with disk_errors(self._part, "recording"):
            if message_type not in self._schemas:
                self._schemas[message_type] = self._writer.register_schema(
                    message_type, "ros2msg", struct.full_text().encode()
                )
            metadata = {"offered_qos_profiles": "", "topic_type_hash": type_hash(struct)}
            channel = self._writer.register_channel(topic, "cdr", self._schemas[message_type], metadata)
        self._channels[topic] = (message_type, channel)
        self._sequence[topic] = 0

    def write(self, topic: str, packet: Packet, wall_ns: int) -> None:
        """Append a message that was received or sent at `wall_ns` (`Clock.wall()`).

        Raises:
            UserError: the disk fails; what was written before can be recovered.
        """
        _, channel = self._channels[topic]
        self._sequence[topic] += 1
        with disk_errors(self._part, "recording"):
            self._writer.add_message(channel, wall_ns, bytes(packet), wall_ns, self._sequence[topic])
        self.written_bytes += len(packet)

    @property
    def counts(self) -> dict[str, int]:
        """How many messages of each topic were written."""
        return dict(self._sequence)

    def close(self) -> None:
        """Finish the file; raises UserError where the disk fails."""
        if self._file.closed:
            return
        try:
            with disk_errors(self._part, "finishing the recording"):
                self._writer.finish()
                self._file.close()
                self._part.rename(self.path)
        finally:
            if not self._file.closed:
                self._abandon()

    def _abandon(self) -> None:
        """Let go of the part as it is: the disk took no more."""
        try:
            self._file.close()
        except OSError:  # it has unwritten bytes, and says for the second time that they cannot be written
            return

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()
