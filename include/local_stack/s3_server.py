"""S3 on loopback: moto's server, with conditional writes and listings as those of S3 are.

moto 5.2 checks `If-Match` and `If-None-Match` and writes afterwards, in many threads. Two writers may pass the check
of one ETag, and the change of the first is lost. Here one request at a time writes. For each listing, moto looks at all
objects of the bucket, so with many objects a listing of a few takes long; here it takes those with the prefix.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import FakeDeleteMarker, S3Backend
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
            try:
                return self._application(environ, start_response)
            finally:
                _listed.forget()


class SortedNames:
    """The names of the objects of each bucket in their order, until something is written."""

    def __init__(self) -> None:
        self._writes = 0
        self._names: dict[int, tuple[int, list[str]]] = {}

    def forget(self) -> None:
        """Sort again for the next listing."""
        self._writes += 1

    def of(self, bucket: Any) -> list[str]:  # noqa: ANN401 - moto's
        """Return the names of a bucket."""
        writes = self._writes
        found = self._names.get(id(bucket))
        if found is None or found[0] != writes:
            found = self._names[id(bucket)] = writes, sorted(bucket.keys)
        return found[1]


_listed = SortedNames()
_list_all = S3Backend.list_objects


def list_objects(  # noqa: PLR0917 - as moto calls it
    backend: S3Backend,
    bucket: Any,  # noqa: ANN401 - moto's
    prefix: str | None,
    delimiter: str | None,
    marker: str | None,
    max_keys: int | None,
) -> tuple[Any, Any, bool, str | None]:
    """List a bucket as moto does, in the same form."""
    if not prefix or delimiter or marker or max_keys is not None:
        found: tuple[Any, Any, bool, str | None] = _list_all(backend, bucket, prefix, delimiter, marker, max_keys)
        return found
    names = _listed.of(bucket)
    below = takewhile(lambda name: name.startswith(prefix), islice(names, bisect_left(names, prefix), None))
    keys = [key for name in below if (key := bucket.keys.get(name)) is not None]
    return [key for key in keys if not isinstance(key, FakeDeleteMarker)], [], False, None


S3Backend.list_objects = list_objects  # type: ignore[method-assign, assignment] # moto has no place for another one


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
