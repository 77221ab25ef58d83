"""Objects in memory that count requests as an S3 bill does: a LIST for each thousand objects."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from opensearch_batch.core.storage.globs import is_selected
from opensearch_batch.core.storage.objects import Stored
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.memory_objects import MemoryObjects

PAGE = 1_000


class CountedObjects(MemoryObjects):
    """Objects in memory; `requests` counts LIST, GET (and HEAD), PUT and DELETE."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.requests = Counter[str]()
        self._etags: dict[str, str] = {}

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects with a prefix in key order."""
        below = uri.rfind("/") + 1
        keys = sorted(key for key in self._contents if key.startswith(uri))
        self.requests["LIST"] += max(-(-len(keys) // PAGE), 1)
        yield from (self._info(key) for key in keys if is_selected(key[below:], include, exclude))

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""
        self.requests["GET"] += 1
        return self._info(uri) if uri in self._contents else None

    def read(self, uri: str) -> Stored | None:
        """Return an object, None if it is absent."""
        self.requests["GET"] += 1
        content = self._contents.get(uri)
        return None if content is None else Stored(content, self._etags[uri])

    def write(self, uri: str, content: bytes) -> None:
        """Write an object."""
        self.requests["PUT"] += 1
        self._etags[uri] = hashlib.sha256(content).hexdigest()
        super().write(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        if uri not in self._contents:
            self.write(uri, content)
            return True
        self.requests["PUT"] += 1
        return False

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        if self._etags.get(uri) == etag and uri in self._contents:
            self.write(uri, content)
            return True
        self.requests["PUT"] += 1
        return False

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        self.requests["DELETE"] += 1
        super().delete(uri)

    def put_source(self, uri: str, content: bytes) -> None:
        """Write an object of the source, which the pipeline does not pay for."""
        self.write(uri, content)
        self.requests["PUT"] -= 1

    def sizes(self, prefix: str) -> tuple[int, int]:
        """Return the number and the bytes of the objects with a prefix; this is no request."""
        sizes = [len(content) for uri, content in self._contents.items() if uri.startswith(prefix)]
        return len(sizes), sum(sizes)

    def _info(self, uri: str) -> ObjectInfo:
        return ObjectInfo(uri, len(self._contents[uri]), self._etags[uri], self._modified[uri])
