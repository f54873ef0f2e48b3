"""DDS domains and how Cyclone DDS is set up for them; no file or environment variable has a say."""

from __future__ import annotations

import ipaddress
import threading

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.transports.dds_library import checked, library
from embodied.real_robot.transports.transport import MAX_PACKET_BYTES, TransportError

# AllowInvalidTryConstruct: without it, Cyclone 11 does not see endpoints of Cyclone 0.10 that have type information.
_CONFIG = """<CycloneDDS xmlns="https://cdds.io/config"><Domain Id="any">
<General><Interfaces><NetworkInterface {by}="{interface}" multicast="true"/></Interfaces>
<MaxMessageSize>65500B</MaxMessageSize></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>100</MaxAutoParticipantIndex></Discovery>
<Compatibility><AllowInvalidTryConstruct>true</AllowInvalidTryConstruct></Compatibility>
<Internal><MaxSampleSize>{largest}B</MaxSampleSize></Internal></Domain></CycloneDDS>"""


class Domains:
    """Domains of this process: Cyclone configures each once, however many transports use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[str, int, int]] = {}  # interface, entity, users

    def join(self, domain: int, interface: str) -> None:
        with self._lock:
            if domain not in self._open:
                self._open[domain] = (interface, _created_domain(domain, interface), 0)
            used, entity, users = self._open[domain]
            if used != interface:
                raise UsageError(f"this program uses domain {domain} on {used} already: it cannot on {interface} too")
            self._open[domain] = (used, entity, users + 1)

    def leave(self, domain: int) -> None:
        with self._lock:
            interface, entity, users = self._open.pop(domain)
            if users > 1:
                self._open[domain] = (interface, entity, users - 1)
            else:
                library().dds_delete(entity)


DOMAINS = Domains()


def _created_domain(domain: int, interface: str) -> int:
    try:
        ipaddress.ip_address(interface)
        by = "address"
    except ValueError:
        by = "name"
    config = _CONFIG.format(by=by, interface=interface, largest=MAX_PACKET_BYTES)
    try:
        return checked(library().dds_create_domain(domain, config.encode()), f"opening DDS domain {domain}")
    except TransportError as error:
        raise UserError(f"{error}: is {interface} a network interface of this machine, and up?") from error
