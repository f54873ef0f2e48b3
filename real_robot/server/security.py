"""Who may talk to a policy server, and how nobody else can listen: a token, and TLS with certificates checked."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from pathlib import Path
from typing import NamedTuple

from embodied.core.errors import UsageError, UserError

_LEAST = 16  # characters of a token
_MOST = 512
MAKE_TOKEN = "make one with (umask 077; openssl rand -hex 32 > robot.token)"
MAKE_CERTIFICATE = (
    "make a pair with openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 "
    "-subj /CN=policy-server -addext keyUsage=critical,digitalSignature,keyCertSign "
    "-addext subjectAltName=IP:<the server's address> -keyout server.key -out server.pem"
)


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`192.168.1.20:7460`, `gpu-box:7460`, `[::1]:7460`. Raises UsageError."""
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise UsageError(f"an address must look like 192.168.1.20:7460, got {text!r}")
        if ":" in bare and bare == host:
            raise UsageError(f"an address of IPv6 must look like [::1]:7460, got {text!r}")
        return cls(bare, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_token(path: str | Path | None) -> str:
    """The token in a file that only its owner can read.

    Raises:
        UsageError: no file is named, others can read it, or it holds no token.
        UserError: it cannot be read.
    """
    if path is None:
        raise UsageError(f"token_file=<file with the secret that server and robot share> is missing: {MAKE_TOKEN}")
    path = Path(path).expanduser()
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"token_file={path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"token_file={path} can be read by others: chmod 600 {path}")
    if not _LEAST <= len(text) <= _MOST or not text.isascii() or not text.isprintable():
        raise UsageError(f"token_file={path} must hold {_LEAST} to {_MOST} characters on one line: {MAKE_TOKEN}")
    return text


def server_tls(address: Address, certificate: str | Path | None, key: str | Path | None) -> ssl.SSLContext | None:
    """TLS of a server; None, which is no TLS, on loopback only.

    Raises:
        UsageError: beyond loopback without a certificate, or one of the two without the other.
        UserError: they cannot be read, or do not belong together.
    """
    if certificate is None or key is None:
        if certificate is not None or key is not None:
            raise UsageError("certificate= and key= belong together: give both")
        if not address.is_loopback:
            raise UsageError(f"listen={address} is open to others: give certificate= and key=; {MAKE_CERTIFICATE}")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Never ask for a password on the terminal: an encrypted key is refused.
        context.load_cert_chain(Path(certificate).expanduser(), Path(key).expanduser(), password=lambda: b"")
    except OSError as error:
        raise UserError(
            f"certificate={certificate} and key={key} cannot be used: {error.strerror or error}; {MAKE_CERTIFICATE}"
        ) from error
    return context


def client_tls(address: Address, ca: str | Path | None) -> ssl.SSLContext | None:
    """TLS of a client, which always checks certificate and name; None, which is no TLS, on loopback without `ca`.

    Args:
        ca: the certificate to trust: a self-signed server's own, or that of who signed it. None: the system's.

    Raises:
        UserError: it cannot be read.
    """
    if ca is None and address.is_loopback:
        return None
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(Path(ca).expanduser()))
    except OSError as error:
        raise UserError(f"ca={ca} holds no certificate: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
