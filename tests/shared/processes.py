"""Processes of tests, none of which outlives its test."""

import os
import signal
import subprocess
from contextlib import contextmanager, suppress


@contextmanager
def started(arguments, **options):
    """`subprocess.Popen` in a session of its own; at the end, whatever the test came to, all of the session is killed.

    A failed test would otherwise wait for its process, or leave it and its workers to the tests after it.
    """
    with subprocess.Popen(arguments, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
