"""The local S3: of several conditional writes of one version, one succeeds."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.test import EnvironBuilder, run_wsgi_app

from include.local_stack.s3_server import OneWriter
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WRITERS = 8


class Slow:
    """An application that takes a moment, and knows how many requests it served at once."""

    def __init__(self, at_once: int) -> None:
        self.most = 0
        self.bodies: list[bytes] = []
        self._now = 0
        self._together = threading.Barrier(at_once)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._now += 1
        self.most = max(self.most, self._now)
        self._together.wait(timeout=WAIT_S)
        time.sleep(0.05)
        self.bodies.append(environ["wsgi.input"].read())
        self._now -= 1
        start_response("200 OK", [])
        return []


def requests(application: OneWriter, method: str) -> None:
    """Send eight requests at once."""

    def send(number: int) -> None:
        environ = EnvironBuilder(method=method, input_stream=io.BytesIO(b"%d" % number), content_length=1).get_environ()
        run_wsgi_app(application, environ)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_request_at_a_time_writes() -> None:
    """Each with its own body."""
    for method in ("PUT", "POST", "DELETE"):
        slow = Slow(at_once=1)
        requests(OneWriter(slow), method)
        assert (slow.most, sorted(slow.bodies)) == (1, [b"%d" % number for number in range(WRITERS)])


def test_reads_wait_for_nobody() -> None:
    """Each waits in the application until all eight are there."""
    slow = Slow(at_once=WRITERS)
    requests(OneWriter(slow), "GET")
    assert slow.most == WRITERS
