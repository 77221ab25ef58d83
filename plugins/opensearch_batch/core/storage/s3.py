"""Objects in S3, or in any store that implements its protocol, conditional writes included.

Takes a configured boto3 client, so this module sees no credentials. An interrupted download resumes at the byte where
it broke off.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored, is_selected, split_uri
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

if TYPE_CHECKING:
    from botocore.client import BaseClient

_ABSENT = {"NoSuchKey", "404", "NotFound"}
_LOST_RACE = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_REFUSED = {
    *("AccessDenied", "403", "Forbidden"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
}
_BUSY = {"SlowDown", "Throttling", "RequestTimeout"}
SERVER_ERROR = 500
# Pauses between attempts that bring no further byte; after the last the download fails.
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)


class S3Objects:
    """An S3 store.

    Args:
        client: a boto3 S3 client.
        sleep: waits that many seconds; tests replace it.
    """

    def __init__(self, client: BaseClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client: Any = client
        self._sleep = sleep

    def list(self, uri: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix in key order; globs apply to the part of the key after the prefix.

        For a single object, or a prefix that ends within a name, they apply to the last part of the key.

        Raises:
            ConfigError: the bucket is missing, or access is denied.
            RetriableError: the store does not answer.
        """
        bucket, prefix = split_uri(uri)
        folder = prefix.rpartition("/")[0]
        with self._errors(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    name = item["Key"][len(folder) :].lstrip("/")
                    if not item["Key"].endswith("/") and is_selected(name, include, exclude):
                        uri, modified = f"s3://{bucket}/{item['Key']}", item["LastModified"].timestamp()
                        yield ObjectInfo(uri, item["Size"], item["ETag"].strip('"'), modified)

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of an object, None if it is absent."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            try:
                found = self._client.head_object(Bucket=bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        modified = found["LastModified"].timestamp()
        return ObjectInfo(uri, found["ContentLength"], found["ETag"].strip('"'), modified)

    def read(self, uri: str) -> Stored | None:
        """Return the content of a small object, None if it is absent."""
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
        """Write an object, over an existing one too."""
        self._put(uri, content)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent (``If-None-Match: *``); False if it exists."""
        return self._put(uri, content, IfNoneMatch="*")

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag (``If-Match``); False if it changed."""
        return self._put(uri, content, IfMatch=etag)

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object of any size from an open file; the client library uploads it in parts."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.upload_fileobj(content, bucket, key)

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def open(self, uri: str, *, etag: str | None = None, compression: Compression | None = None) -> IO[bytes]:
        """Open an object for streaming, decompressed as `compression` says, by default by its name's extension.

        Raises:
            ConfigError: the object is missing, or access is denied.
            FatalError: its ETag is another one by now; also while reading.
            RetriableError: the transfer broke off at every attempt; also while reading.
        """
        body = _Body(self._range, uri, *self._range(uri, 0, etag), self._sleep)
        return decompressed(io.BufferedReader(body, READ_BUFFER_BYTES), uri, compression)

    def browse_url(self, uri: str) -> str:
        """Return the address at which a browser lists a prefix: the AWS console, or the listing of another store."""
        bucket, key = split_uri(uri)
        endpoint, prefix = str(self._client.meta.endpoint_url), quote(key)
        if endpoint.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return f"https://console.aws.amazon.com/s3/buckets/{bucket}?prefix={prefix}"
        return f"{endpoint}/{bucket}?list-type=2&prefix={prefix}"

    def _range(self, uri: str, first_byte: int, etag: str | None) -> tuple[Any, str]:
        """Get an object from a byte on; return its body and its ETag.

        Some stores ignore ``If-Match`` or ``Range``, so the response is checked too.
        """
        bucket, key = split_uri(uri)
        arguments: dict[str, str] = {"IfMatch": f'"{etag}"'} if etag else {}
        if first_byte:
            arguments["Range"] = f"bytes={first_byte}-"
        with self._errors(uri):
            try:
                found = self._client.get_object(Bucket=bucket, Key=key, **arguments)
            except self._client.exceptions.ClientError as error:
                if etag and _code(error) in _LOST_RACE:
                    raise _changed(uri) from error
                raise
        if etag and found["ETag"].strip('"') != etag:
            raise _changed(uri)
        if first_byte and not found.get("ContentRange", "").startswith(f"bytes {first_byte}-"):
            raise FatalError(
                f"{uri}: the transfer broke off at byte {first_byte} and S3 at {self._client.meta.endpoint_url} "
                "sends no part of an object; run again, or use a store that supports Range requests"
            )
        return found["Body"], found["ETag"].strip('"')

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
        except aws.ParamValidationError as error:
            raise ConfigError(f"{uri} is not the location of an object; write it as s3://bucket/key") from error
        except (aws.BotoCoreError, OSError) as error:
            raise RetriableError(
                f"{uri}: S3 at {endpoint} does not answer ({type(error).__name__}); "
                "check that it is up and that the AWS connection's endpoint_url is right"
            ) from error


def _code(error: Any) -> str:  # noqa: ANN401 - botocore makes its exception classes at run time
    return str(error.response.get("Error", {}).get("Code", ""))


def _explain(error: Any, uri: str, endpoint: str) -> Exception:  # noqa: ANN401 - as above
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return ConfigError(
            f"{uri}: there is no bucket {split_uri(uri)[0]!r} at {endpoint}; create it or correct the name"
        )
    if code in _ABSENT:
        return ConfigError(f"{uri}: no such object at {endpoint}")
    if code in _REFUSED:
        return ConfigError(f"{uri}: {endpoint} refuses the credentials of the AWS connection ({code})")
    if status >= SERVER_ERROR or code in _BUSY:
        return RetriableError(f"{uri}: S3 at {endpoint} answered {status} {code}")
    return FatalError(f"{uri}: S3 at {endpoint} answered {status} {code}")


def _changed(uri: str) -> FatalError:
    return FatalError(f"{uri} changed while it was being read; run again")


class _Body(io.RawIOBase):
    """An object's bytes as a raw stream that resumes where a transfer broke off."""

    def __init__(
        self,
        get: Callable[[str, int, str | None], tuple[Any, str]],
        uri: str,
        body: Any,  # noqa: ANN401 - botocore ships no types
        etag: str,
        sleep: Callable[[float], None],
    ) -> None:
        self._get, self._uri, self._sleep = get, uri, sleep
        self._body, self._etag = body, etag
        self._at = self._failures = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before Python 3.12
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        while True:
            try:
                chunk = self._body.read(len(buffer))
            except (BotoCoreError, HTTPError, OSError) as error:
                self._resume(error)
            else:
                break
        if chunk:
            self._failures = 0
        self._at += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _resume(self, error: Exception) -> None:
        """Get the rest of the same version, or give up."""
        self._body.close()
        while True:
            if self._failures == len(PAUSES_S):
                raise RetriableError(
                    f"{self._uri}: the transfer broke off at byte {self._at}, {len(PAUSES_S) + 1} times "
                    f"({type(error).__name__}); run again when the store responds"
                ) from error
            self._sleep(PAUSES_S[self._failures])
            self._failures += 1
            try:
                self._body, _ = self._get(self._uri, self._at, self._etag)
            except RetriableError:
                continue
            return

    def close(self) -> None:
        self._body.close()
        super().close()
