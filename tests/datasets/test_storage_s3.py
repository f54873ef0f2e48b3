"""What goes wrong on the way to an object store is said once, soon, and with what to do about it."""

import os
import socket
import subprocess
import sys
import time
from urllib.request import Request, urlopen

import pytest

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.storage.location import open_storage


def operations(url):
    """Everything that reaches the server."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    storage = open_storage(url)
    buffers = default_buffer_prototype()
    data = buffers.buffer.from_bytes(b"x")
    return {
        "read": lambda: storage.read("a"),
        "write": lambda: storage.write("a", b"x"),
        "list": lambda: storage.list(""),
        "exists": storage.exists,
        "lock": lambda: storage.lock(wait_s=0).__enter__(),
        "zarr set": lambda: sync(storage.zarr_store(writable=True).set("a", data)),
    }


def test_a_bucket_that_is_not_there(s3):
    for name, act in operations("s3://no-such-bucket/demos").items():
        with pytest.raises(
            UserError, match=r"^s3://no-such-bucket/demos: .* there is no bucket no-such-bucket at http"
        ):
            act()
            pytest.fail(name)


def test_an_endpoint_where_nobody_listens(s3, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    before = time.monotonic()
    with pytest.raises(UserError, match=rf"{s3}: .* http://127.0.0.1:{port} does not answer: check AWS_ENDPOINT_URL"):
        open_storage(s3).exists()
    assert time.monotonic() - before < 10


def test_an_endpoint_that_says_nothing(s3, monkeypatch):
    monkeypatch.setattr("embodied.datasets.storage.s3.REQUEST_S", 0.3)
    monkeypatch.setattr("embodied.datasets.storage.s3_client.REQUEST_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        before = time.monotonic()
        with pytest.raises(UserError, match="does not answer"):
            open_storage(s3).exists()
        assert time.monotonic() - before < 5


LOCKED_SERVER = """
import os, sys
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1"
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


def test_wrong_credentials(s3, monkeypatch):
    command = [sys.executable, "-W", "ignore", "-c", LOCKED_SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        url = server.stdout.readline().strip()
        urlopen(Request(f"{url}/robots", method="PUT")).close()
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for name, act in operations("s3://robots/demos").items():
            with pytest.raises(UserError, match=rf"{url} denies access .*AWS_SECRET_ACCESS_KEY"):
                act()
                pytest.fail(name)
        server.communicate()


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with socket.create_server(("127.0.0.1", 0)) as probe:  # where a cloud machine would be given some
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    with pytest.raises(UserError, match="no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_storage(s3).exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_ENDPOINT_URL", "garbage", "must be a URL like https://s3.example.com"),
        ("AWS_ENDPOINT_URL", "ftp://host", "must be a URL"),
        ("AWS_ENDPOINT_URL", "http://host:port", "must be a URL"),
        ("AWS_ENDPOINT_URL", "http://", "must be a URL"),
        ("AWS_ENDPOINT_URL_S3", "http://s3.example.com", "anybody on the way can read and change"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n", "AWS_SECRET_ACCESS_KEY holds a line break"),
        ("AWS_SESSION_TOKEN", "tökén", "AWS_SESSION_TOKEN holds"),
        ("AWS_SKIP_SIGNATURE", "banana", 'an AWS_. variable makes no sense: .*"banana"'),
    ],
)
def test_a_setting_that_makes_no_sense(s3, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message) as caught:
        open_storage(s3)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_unencrypted_http_to_another_machine_must_be_asked_for(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.com")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert open_storage(s3).location == s3


def test_the_extra_is_named_where_obstore_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[s3\]"):
        open_storage("s3://robots/demos")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking with threads, from Python 3.12 on
def test_a_forked_process_is_told_instead_of_hanging(s3):
    storage = open_storage(s3)
    storage.write("a", b"x")
    child = os.fork()
    if not child:
        status = 1
        try:
            open_storage(s3).read("a")
        except UserError as error:
            status = 0 if '"spawn"' in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.read("a") == b"x"


def test_a_store_may_fill_a_whole_bucket(s3):
    bucket = s3.removesuffix("/demos")
    whole, inside = open_storage(bucket), open_storage(s3)
    inside.write("zarr.json", b"{}")
    assert whole.exists() and whole.list("") == ["demos/zarr.json"]
    assert not open_storage(f"{s3}-2").exists() and not open_storage(s3[:-1]).exists()


def test_the_lock_is_no_part_of_the_store_as_zarr_sees_it(s3):
    from zarr.core.sync import _collect_aiterator, sync

    storage = open_storage(s3)
    storage.write("zarr.json", b"{}")
    storage.write("action/zarr.json", b"{}")
    with storage.lock(wait_s=0):
        pass
    store = storage.zarr_store(writable=False)
    assert sorted(sync(_collect_aiterator(store.list()))) == ["action/zarr.json", "zarr.json"]
    assert sorted(sync(_collect_aiterator(store.list_dir("")))) == ["action", "zarr.json"]
