"""Base class for read-only stores of files at AI services: an id identifies one file, which never changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import IO, ClassVar

from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.read_only import ReadOnlyObjects
from opensearch_batch.core.types.object_info import Compression, ObjectInfo


class ServiceFiles(ReadOnlyObjects):
    """Files by URI (``<scheme>://<id>``) or bare id. Base of a store that `Storage` opens."""

    scheme: ClassVar[str]
    # Describes the files in error messages.
    title: ClassVar[str]

    @abstractmethod
    def stream(self, uri: str) -> IO[bytes]:
        """Open a file for streaming."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Delete a file if it exists."""

    @property
    def refusal(self) -> str:
        return f"{self.title} are read-only; give an S3 URI or a local path"

    def id_of(self, uri: str) -> str:
        """Return the id in a URI."""
        return uri.removeprefix(f"{self.scheme}://")

    def open(
        self,
        uri: str,
        *,
        etag: str | None = None,  # noqa: ARG002 - a file never changes
        compression: Compression | None = None,
        offset: int = 0,  # noqa: ARG002 - only the objects of a source are read in parts
    ) -> IO[bytes]:
        return decompressed(self.stream(uri), uri, compression)

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),  # noqa: ARG002 - ids have no folders
        exclude: Sequence[str] = (),  # noqa: ARG002 - as above
        after: str = "",
        limit: int | None = None,  # noqa: ARG002 - there is one at most
    ) -> Iterator[ObjectInfo]:
        if self.id_of(uri) and uri > after and (info := self.head(uri)):
            yield info
