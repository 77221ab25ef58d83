"""One store for every kind of URI; each is made when first asked for, so nobody needs keys for what lies elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NoReturn, cast

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import Objects, PackedObjects, Stored
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

Make = Callable[[], Objects]
UNCOMPRESSED = ("openai", "cohere")
KINDS = {"s3": "s3", "openai": "openai", "cohere": "cohere", "file": "local"}
# A file of this machine has a suffix, or a folder before its name.
_OPENAI_ID = re.compile(r"file-[A-Za-z0-9_-]+")


class Stores:
    """Objects by the scheme of their URI.

    ``s3://…``; ``file-…`` or ``openai://file-…`` at OpenAI; ``cohere://…`` at Cohere; else a local path.

    Args:
        s3, openai, cohere, local: make each store; one that is not given is refused with its remedy.
    """

    def __init__(
        self,
        *,
        s3: Make | None = None,
        openai: Make | None = None,
        cohere: Make | None = None,
        local: Make | None = None,
    ) -> None:
        self._make = {
            "s3": s3 or _missing("S3 is not set up here; give an AWS connection or keys"),
            "openai": openai or _missing("OpenAI is not set up here; give a connection or a key"),
            "cohere": cohere or _missing("Cohere is not set up here; give a connection"),
            "local": local or _missing("files of this machine are not read here; upload them to S3"),
        }
        self._made: dict[str, Objects] = {}

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix."""
        return self._of(uri).list(uri, include=include, exclude=exclude)

    def head(self, uri: str) -> ObjectInfo | None:
        """Return what is known of an object."""
        return self._of(uri).head(uri)

    def read(self, uri: str) -> Stored | None:
        """Return a small object whole."""
        return self._of(uri).read(uri)

    def write(self, uri: str, content: bytes) -> None:
        """Write an object."""
        self._of(uri).write(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object only if it is absent."""
        return self._of(uri).create(uri, content)

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object only if it still has this ETag."""
        return self._of(uri).replace(uri, content, etag=etag)

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object from an open file."""
        self._of(uri).upload(uri, content)

    def delete(self, uri: str) -> None:
        """Remove an object, if it is there."""
        self._of(uri).delete(uri)

    def open(self, uri: str, *, etag: str | None = None, compression: Compression | None = None) -> IO[bytes]:
        """Open an object for streaming.

        Raises:
            ConfigError: a compression is told for what no store has compressed.
        """
        if compression is None:
            return self._of(uri).open(uri, etag=etag)
        if _kind(uri) in UNCOMPRESSED:
            raise ConfigError(f"{uri}: only objects on S3 and files of this machine are read with a compression")
        return cast("PackedObjects", self._of(uri)).open(uri, etag=etag, compression=compression)

    def _of(self, uri: str) -> Objects:
        kind = _kind(uri)
        if kind not in self._made:
            try:
                self._made[kind] = self._make[kind]()
            except ConfigError as error:
                raise ConfigError(f"{uri}: {error}") from error
        return self._made[kind]


def _kind(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return "openai" if _OPENAI_ID.fullmatch(uri) else "local"
    if scheme not in KINDS:
        raise ConfigError(
            f"{uri}: nothing here reads {scheme}://; give an s3://, openai://, cohere:// or file:// URI, or a path"
        )
    return KINDS[scheme]


def _missing(message: str) -> Make:
    def refuse() -> NoReturn:
        raise ConfigError(message)

    return refuse
