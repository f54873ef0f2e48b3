"""A real S3 server (moto) on loopback, in a process of its own, and processes that start quickly."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import uuid
from urllib.request import Request, urlopen

import pytest

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3_server():
    """The URL of the server; it ends when its standard input does, so even with a killed test run."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    command = [sys.executable, "-W", "ignore", "-c", _SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        yield server.stdout.readline().strip()
        server.communicate()


@pytest.fixture
def start():
    """`start(code, **variables)` runs code in a process that imports quickly and has used no object store yet."""
    context = multiprocessing.get_context("forkserver")
    # pytest too, since a child imports the main module
    context.set_forkserver_preload(["embodied.datasets.store.episode_store", "pytest"])
    started = []

    def start(code, **variables):
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "NO_PROXY"))}
        prelude = f"import os, pathlib, time\nos.environ.update({environment!r})\n"
        process = context.Process(target=exec, args=(prelude + textwrap.dedent(code), variables))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """`s3://bucket/demos` in a new, empty bucket, with the environment that reaches it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bucket = f"robots-{uuid.uuid4().hex[:8]}"
    urlopen(Request(f"{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/demos"
