"""S3 on loopback: moto's server, with conditional writes that are atomic as those of S3 are.

moto 5.2 checks `If-Match` and `If-None-Match` and writes afterwards, in many threads. Two writers may pass the check
of one ETag, and the change of the first is lost. Here one request at a time writes.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer

_READS = frozenset({"GET", "HEAD"})


class OneWriter:
    """A WSGI application that passes writes on one by one, each after its body has arrived."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self._writing = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in _READS:
            return self._application(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(get_input_stream(environ).read())
        with self._writing:
            return self._application(environ, start_response)


def s3_server(host: str = "127.0.0.1", port: int = 0) -> BaseWSGIServer:
    """Return a server that listens; `serve_forever` answers requests, `server_address` has the port that it got."""
    application = OneWriter(DomainDispatcherApplication(create_backend_app))
    return make_server(host, port, application, threaded=True, request_handler=MotoRequestHandler)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    s3_server(options.host, options.port).serve_forever()


if __name__ == "__main__":
    main()
