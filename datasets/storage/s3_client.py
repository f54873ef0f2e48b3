"""How object stores are reached: settings from the AWS_* environment variables, and one message per failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from embodied.core.errors import MissingExtraError, UsageError, UserError

REQUEST_S = 10.0  # for small objects: a server that says nothing for so long is taken for dead
TRANSFER_S = 60.0  # for frames: a shard of 32 MiB then needs 5 Mbit/s
_CONNECT_S = 4.0
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_METADATA = "http://169.254.169.254"  # of a cloud machine
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "301 Moved Permanently", "missing redirect")

_process: int | None = None  # the one in which obstore's threads run: they do not survive a fork


def import_obstore() -> ModuleType:
    """obstore, which the extra `s3` installs."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingExtraError("obstore", "s3") from error
    return obstore


def endpoint() -> str | None:
    """The URL of the object store, from the environment; None for Amazon's own.

    Raises:
        UsageError: it is no URL, or sends data unencrypted to another machine without being told to.
    """
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return None
    try:
        parts = urlsplit(os.environ[name])
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise UsageError(f"{name} must be a URL like https://s3.example.com or http://127.0.0.1:9000")
    if parts.scheme == "http" and not _is_loopback(str(parts.hostname)) and not _is_on("AWS_ALLOW_HTTP"):
        raise UsageError(
            f"{name}: {parts.hostname} would be reached over http, which anybody on the way can read and change: "
            "use https, or set AWS_ALLOW_HTTP=true"
        )
    return os.environ[name].rstrip("/")


def connect(bucket: str, prefix: str, *, timeout_s: float) -> Any:
    """An `obstore.store.S3Store`; nothing is sent yet.

    Raises:
        UsageError: an AWS_* variable makes no sense.
        MissingExtraError: obstore is not installed.
    """
    obstore = import_obstore()
    for name, value in os.environ.items():
        # obstore aborts on these; a line break at the end of a secret is easily copied along.
        if name.startswith("AWS_") and not (value.isascii() and value.isprintable()):
            raise UsageError(f"{name} holds a line break or another character that cannot be sent: set it again")
    url = endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return obstore.store.S3Store(
            bucket,
            prefix=prefix or None,
            config={"region": region, **({"endpoint": url} if url else {})},
            client_options={
                "allow_http": url is not None and url.startswith("http:"),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={
                "max_retries": 4,
                "retry_timeout": timedelta(seconds=REQUEST_S),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=3),
                    "base": 2,
                },
            },
        )
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise UsageError(f"s3://{bucket}: an AWS_* variable makes no sense: {_first_line(error)}") from error


@contextmanager
def s3_errors(location: str, doing: str) -> Iterator[None]:
    """Turn what obstore raises into one message: `doing` reads like `"writing zarr.json"`.

    An object that is absent stays a `FileNotFoundError`, except where its whole bucket is.
    """
    global _process
    if _process not in (None, os.getpid()):
        raise UserError(
            f"{location}: {doing} failed: object stores do not work in a process forked from one that has used them; "
            'start workers with the method "spawn" or "forkserver"'
        )
    _process = os.getpid()
    obstore = import_obstore()
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise UserError(f"{location}: {doing} failed: {_reason(error, location)}") from error
    except (obstore.exceptions.BaseError, OSError) as error:
        raise UserError(f"{location}: {doing} failed: {_reason(error, location)}") from error


def _reason(error: Exception, location: str) -> str:
    text = str(error)
    where = endpoint() or "Amazon S3"
    if "NoSuchBucket" in text:
        bucket = urlsplit(location).netloc
        return f"there is no bucket {bucket} at {where}: create it, or check its name and AWS_ENDPOINT_URL"
    if os.environ.get("AWS_METADATA_ENDPOINT", _METADATA) in text:  # asked for credentials as a last resort
        return (
            "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials "
            "--format env` prints them), or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if any(code in text for code in _OTHER_REGION):
        return f"the bucket is in another region: set AWS_REGION ({_first_line(error)})"
    if any(code in text for code in _DENIED) or "403 Forbidden" in text or "401 Unauthorized" in text:
        code = next((code for code in _DENIED if code in text), "Forbidden")
        return (
            f"{where} denies access ({code}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, "
            "and what they are allowed to do"
        )
    if "HTTP error" in text:
        return f"{where} does not answer: check AWS_ENDPOINT_URL and the network"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
