"""Objects in memory that count requests as an S3 bill does: a LIST for each thousand objects that are taken from it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opensearch_batch.core.storage.objects import Stored
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.memory_objects import MemoryObjects

PAGE = 1_000


class CountedObjects(MemoryObjects):
    """Objects in memory; `requests` counts LIST, GET (and HEAD), PUT and DELETE."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(clock)
        self.requests = Counter[str]()
        self._counting = threading.Lock()

    @classmethod
    def over(cls, contents: MemoryObjects) -> CountedObjects:
        """Return a store with the objects of another one."""
        found = cls(contents.clock)
        found._stored, found._modified = contents._stored, contents._modified  # noqa: SLF001 - of the same base
        return found

    def list(self, uri: str, **how: Any) -> Iterator[ObjectInfo]:
        """Yield the objects with a prefix in key order, page by page."""
        self._count("LIST")
        for number, item in enumerate(super().list(uri, **how)):
            if number and number % PAGE == 0:
                self._count("LIST")
            yield item

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""
        self._count("GET")
        return super().head(uri)

    def read(self, uri: str) -> Stored | None:
        """Return an object, None if it is absent; to open one reads it, too."""
        self._count("GET")
        return super().read(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Write an object, also for `upload`."""
        self._count("PUT")
        super().write(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        self._count("PUT")
        return super().create(uri, content)

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        self._count("PUT")
        return super().replace(uri, content, etag=etag)

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        self._count("DELETE")
        super().delete(uri)

    def put_source(self, uri: str, content: bytes) -> None:
        """Write an object of the source, which the pipeline does not pay for."""
        super().write(uri, content)

    def sizes(self, prefix: str) -> tuple[int, int]:
        """Return the number and the bytes of the objects with a prefix; this is no request."""
        sizes = [len(stored.content) for uri, stored in self._stored.items() if uri.startswith(prefix)]
        return len(sizes), sum(sizes)

    @contextmanager
    def expect(self, **requests: int) -> Iterator[None]:
        """Expect exactly these requests in this context."""
        self.requests.clear()
        yield
        assert dict(self.requests) == {name: count for name, count in requests.items() if count}

    def _count(self, name: str) -> None:
        with self._counting:
            self.requests[name] += 1
