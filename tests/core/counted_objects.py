"""Objects in memory that count the requests which a store on S3 would get for the same calls."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opensearch_batch.core.storage.objects import Stored
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.memory_objects import MemoryObjects

PAGE = 1_000


class CountedObjects(MemoryObjects):
    """A listing is one request for each 1,000 objects that are taken from it."""

    def __init__(self, contents: MemoryObjects | None = None, **how: Any) -> None:
        super().__init__(**how)
        if contents is not None:
            self.__dict__.update(contents.__dict__)
        self.requests = Counter[str]()
        self._counting = threading.Lock()

    def _count(self, name: str) -> None:
        with self._counting:
            self.requests[name] += 1

    def list(self, uri: str, **how: Any) -> Iterator[ObjectInfo]:
        """Yield objects, page by page."""
        self._count("list")
        for number, item in enumerate(super().list(uri, **how)):
            if number and number % PAGE == 0:
                self._count("list")
            yield item

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, without a request that counts: listings of this store call it."""
        stored = super().read(uri)
        return None if stored is None else ObjectInfo(uri, len(stored.content), stored.etag, self._modified[uri])

    def read(self, uri: str) -> Stored | None:
        """Read an object; to open one reads it, too."""
        self._count("read")
        return super().read(uri)

    @contextmanager
    def expect(self, **requests: int) -> Iterator[None]:
        """Expect exactly these requests in this context."""
        self.requests.clear()
        yield
        found = {name: count for name, count in self.requests.items() if count}
        assert found == {name: count for name, count in requests.items() if count}
