"""Object storage by URI. A write that must happen once is a conditional write; nobody checks first and writes later.

`S3Objects` takes a ready boto3 S3 client, so credentials and endpoints stay with whoever made it.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError

if TYPE_CHECKING:
    from botocore.client import BaseClient

READ_BUFFER_BYTES = 1 << 20
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_LOST_RACE = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_REFUSED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden"}


class ObjectInfo(msgspec.Struct, frozen=True):
    """One listed object; `etag` changes when its bytes do."""

    uri: str
    size_bytes: int
    etag: str


class Stored(msgspec.Struct, frozen=True):
    """The whole content of a small object and the ETag a conditional replacement needs."""

    content: bytes
    etag: str


class Line(msgspec.Struct, frozen=True):
    """One line without its line end; `number` counts from 1. A `cut` line was too long and holds its start."""

    number: int
    content: bytes
    cut: bool = False
    offset: int = 0


class Objects(Protocol):
    """What the stages need of an object store."""

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix (or the one object) in key order."""

    def head(self, uri: str) -> ObjectInfo | None:
        """Return what is known of an object without reading it, None when it is absent."""

    def read(self, uri: str) -> Stored | None:
        """Return a small object whole, None when it is absent."""

    def write(self, uri: str, content: bytes) -> None:
        """Write an object, replacing what was there."""

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object only if it is absent; False when somebody else was first."""

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object only if it still has this ETag; False when it changed meanwhile."""

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object of any size from an open file, in parts."""

    def delete(self, uri: str) -> None:
        """Remove an object, if it is there."""

    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:
        """Open an object for streaming, decompressed by its name's ending (``.gz``)."""


def find(objects: Objects, uri: str) -> list[ObjectInfo]:
    if uri.endswith("/"):
        return list(objects.list(uri))
    found = objects.head(uri)
    if found is None:
        raise ConfigError(f"{uri}: there is no such object")
    return [found]


def split_uri(uri: str) -> tuple[str, str]:
    """Return ``(bucket, key)`` of an ``s3://`` URI.

    Raises:
        ConfigError: it is no S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigError(f"{uri!r} is no S3 location; write it as s3://bucket/key")
    return bucket, key


def lines(stream: IO[bytes], *, max_line_bytes: int) -> Iterator[Line]:
    r"""Yield the lines of a stream, memory bounded by `max_line_bytes` whatever the file holds.

    ``\n`` and ``\r\n`` end a line; a last line needs no end.
    """
    number = offset = 0
    while raw := stream.readline(max_line_bytes + len(b"\r\n")):
        number += 1
        content = raw.rstrip(b"\r\n")
        cut = len(content) > max_line_bytes
        if cut and not raw.endswith(b"\n"):
            _skip_to_line_end(stream)
        yield Line(number, content, cut, offset)
        offset += len(raw)


def _skip_to_line_end(stream: IO[bytes]) -> None:
    while rest := stream.readline(READ_BUFFER_BYTES):
        if rest.endswith(b"\n"):
            return


class S3Objects:
    """Objects in S3 or any store that speaks its protocol, conditional writes included."""

    def __init__(self, client: BaseClient) -> None:
        self._client: Any = client

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix in key order; globs match the part of the key after the prefix.

        For a single object, or a prefix in the middle of a name, they match the last part of the key.

        Raises:
            ConfigError: the bucket is missing or closed to us.
            RetriableError: the store does not answer.
        """
        bucket, prefix = split_uri(uri)
        folder = prefix.rpartition("/")[0]
        with self._errors(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    name = item["Key"][len(folder) :].lstrip("/")
                    if not item["Key"].endswith("/") and _wanted(name, include, exclude):
                        yield ObjectInfo(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))

    def head(self, uri: str) -> ObjectInfo | None:
        """Return size and ETag of an object, None when it is absent."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            try:
                found = self._client.head_object(Bucket=bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return ObjectInfo(uri, found["ContentLength"], found["ETag"].strip('"'))

    def read(self, uri: str) -> Stored | None:
        """Return a small object whole, None when it is absent."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            try:
                found = self._client.get_object(Bucket=bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
            return Stored(found["Body"].read(), found["ETag"].strip('"'))

    def write(self, uri: str, content: bytes) -> None:
        """Write an object, replacing what was there."""
        self._put(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object only if it is absent (``If-None-Match: *``); False when somebody else was first."""
        return self._put(uri, content, IfNoneMatch="*")

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object only if it still has this ETag (``If-Match``); False when it changed meanwhile."""
        return self._put(uri, content, IfMatch=etag)

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object of any size from an open file; the client library cuts it into parts."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.upload_fileobj(content, bucket, key)

    def delete(self, uri: str) -> None:
        """Remove an object, if it is there."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def open(self, uri: str, *, etag: str | None = None) -> IO[bytes]:
        """Open an object for streaming; ``.gz`` is decompressed on the way.

        Raises:
            ConfigError: there is no such object, or it is closed to us.
        """
        bucket, key = split_uri(uri)
        with self._errors(uri):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
        reader = io.BufferedReader(_Body(body, uri), READ_BUFFER_BYTES)
        if not key.endswith(".gz"):
            return reader
        return io.BufferedReader(_Gunzip(reader, uri), READ_BUFFER_BYTES)

    def _put(self, uri: str, content: bytes, **condition: str) -> bool:
        bucket, key = split_uri(uri)
        with self._errors(uri):
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=content, **condition)
            except self._client.exceptions.ClientError as error:
                if condition and _code(error) in _LOST_RACE | _ABSENT:
                    return False
                raise
        return True

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        from botocore import exceptions as aws

        endpoint = self._client.meta.endpoint_url
        try:
            yield
        except aws.ClientError as error:
            raise _explain(error, uri, endpoint) from error
        except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
            raise ConfigError(f"{uri}: no AWS credentials; give login and password in the AWS connection") from error
        except (aws.BotoCoreError, OSError) as error:
            raise RetriableError(
                f"{uri}: S3 at {endpoint} does not answer ({type(error).__name__}); "
                "check that it is up and that the AWS connection's endpoint_url is right"
            ) from error


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if include and not any(fnmatch.fnmatchcase(name, glob) for glob in include):
        return False
    return not any(fnmatch.fnmatchcase(name, glob) for glob in exclude)


def _code(error: Any) -> str:  # noqa: ANN401 - botocore makes its exception classes at run time
    return str(error.response.get("Error", {}).get("Code", ""))


def _explain(error: Any, uri: str, endpoint: str) -> Exception:  # noqa: ANN401 - as above
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return ConfigError(f"{uri}: there is no bucket {split_uri(uri)[0]!r} at {endpoint}; create it or mend the name")
    if code in _ABSENT:
        return ConfigError(f"{uri}: there is no such object at {endpoint}")
    if code in _REFUSED:
        return ConfigError(f"{uri}: {endpoint} refuses the credentials of the AWS connection ({code})")
    if status >= 500 or code in {"SlowDown", "Throttling", "RequestTimeout"}:  # noqa: PLR2004 - HTTP server errors
        return RetriableError(f"{uri}: S3 at {endpoint} answered {status} {code}")
    return FatalError(f"{uri}: S3 at {endpoint} answered {status} {code}")


class _Body(io.RawIOBase):
    """A boto3 body as a raw stream that names its object when the connection breaks."""

    def __init__(self, body: Any, uri: str) -> None:  # noqa: ANN401 - botocore ships no types
        self._body, self._uri = body, uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        from botocore.exceptions import BotoCoreError

        try:
            chunk = self._body.read(len(buffer))
        except (BotoCoreError, OSError) as error:
            raise RetriableError(f"{self._uri}: the transfer broke off ({type(error).__name__})") from error
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()
        super().close()


class _Gunzip(io.RawIOBase):
    """A gzip stream that names its object when the data are cut off or no gzip at all."""

    def __init__(self, reader: IO[bytes], uri: str) -> None:
        self._reader, self._uri = reader, uri
        self._unzipped = gzip.GzipFile(fileobj=reader)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        try:
            chunk = self._unzipped.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FatalError(f"{self._uri}: damaged gzip data ({error}); upload the object again") from error
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._reader.close()
        super().close()
