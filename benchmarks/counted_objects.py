"""Objects in memory that count requests as an S3 bill does: a LIST for each thousand objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from opensearch_batch.core.storage.objects import Stored
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.memory_objects import MemoryObjects

PAGE = 1_000


class CountedObjects(MemoryObjects):
    """Objects in memory; `requests` counts LIST, GET (and HEAD), PUT and DELETE."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.requests = Counter[str]()

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects with a prefix in key order."""
        self.requests["LIST"] += max(-(-self.sizes(uri)[0] // PAGE), 1)
        return super().list(uri, include=include, exclude=exclude)

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""
        self.requests["GET"] += 1
        return super().head(uri)

    def read(self, uri: str) -> Stored | None:
        """Return an object, None if it is absent."""
        self.requests["GET"] += 1
        return super().read(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Write an object, also for `upload`."""
        self.requests["PUT"] += 1
        super().write(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        self.requests["PUT"] += 1
        return super().create(uri, content)

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        self.requests["PUT"] += 1
        return super().replace(uri, content, etag=etag)

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        self.requests["DELETE"] += 1
        super().delete(uri)

    def put_source(self, uri: str, content: bytes) -> None:
        """Write an object of the source, which the pipeline does not pay for."""
        super().write(uri, content)

    def sizes(self, prefix: str) -> tuple[int, int]:
        """Return the number and the bytes of the objects with a prefix; this is no request."""
        sizes = [len(stored.content) for uri, stored in self._stored.items() if uri.startswith(prefix)]
        return len(sizes), sum(sizes)
