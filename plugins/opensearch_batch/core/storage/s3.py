"""Object store on S3, or on any server that implements the S3 API including conditional writes.

The caller configures the boto3 client, so this module handles no credentials. An interrupted download resumes at
the byte where it stopped.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from opensearch_batch.core.errors import ConfigError, FatalError, ObjectChanged, RetriableError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.globs import is_selected
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored, split_uri
from opensearch_batch.core.storage.raw_stream import RawStream
from opensearch_batch.core.storage.s3_retries import BusyRetries, is_busy
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

if TYPE_CHECKING:
    from botocore.client import BaseClient

# Gets an object from a byte offset on, if an ETag is given only that version; returns its body and its ETag.
_Get = Callable[[str, int, str | None], tuple[Any, str]]
_NONE: frozenset[str] = frozenset()
TEXT = ".txt"
# The maximum number of objects in one response of S3 to a listing.
MAX_PAGE = 1_000
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
_PRECONDITION_FAILED = frozenset({"PreconditionFailed", "412"})
_REFUSED = {
    *("AccessDenied", "403", "Forbidden"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
}
NOT_IMPLEMENTED, SERVER_ERROR = 501, 500
_BUSY_CAUSES = {
    "400": "to a HEAD request, without a reason; KMS may be throttling, or a clock may be skewed",
    "RequestTimeTooSkewed": "because the clock of this machine is wrong; correct it",
}
# Metadata key of conditionally written objects; the value identifies the write.
WRITE_MARK = "opensearch-batch-write"
# Pauses between consecutive attempts that receive no data; after the last one the download fails.
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)


class _Busy(RetriableError):
    """The store was busy for the whole retry window."""


class S3Objects:
    """Objects in S3, through a boto3 S3 client; tests replace `sleep` and `clock`."""

    def __init__(
        self,
        client: BaseClient,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client: Any = client
        self._sleep = sleep
        # botocore's type stubs allow only handlers that return None; this one returns a delay.
        retries: Any = BusyRetries(clock, sleep)
        # The `unique_id` registers one handler per client, even if several stores share the client.
        self._client.meta.events.register("needs-retry.s3", retries, unique_id="opensearch-batch")

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        after: str = "",
        limit: int | None = None,
    ) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix in key order; globs match the key after the prefix's last ``/``."""
        bucket, prefix = split_uri(uri)
        folder = prefix.rpartition("/")[0]
        how: dict[str, Any] = {"StartAfter": split_uri(after)[1]} if after else {}
        if limit is not None and limit < MAX_PAGE:
            # To parse a page of 1,000 objects takes longer than to read some of them.
            how["PaginationConfig"] = {"PageSize": limit}
        with self._errors(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **how):
                for item in page.get("Contents", ()):
                    name = item["Key"][len(folder) :].lstrip("/")
                    if not item["Key"].endswith("/") and is_selected(name, include, exclude):
                        uri, modified = f"s3://{bucket}/{item['Key']}", item["LastModified"].timestamp()
                        yield ObjectInfo(uri, item["Size"], item["ETag"].strip('"'), modified)

    def head(self, uri: str) -> ObjectInfo | None:
        with self._errors(uri):
            response = self._call(self._client.head_object, uri, _ABSENT)
        if response is None:
            return None
        modified = response["LastModified"].timestamp()
        return ObjectInfo(uri, response["ContentLength"], response["ETag"].strip('"'), modified)

    def read(self, uri: str) -> Stored | None:
        with self._errors(uri):
            response = self._call(self._client.get_object, uri, _ABSENT)
            return Stored(response["Body"].read(), response["ETag"].strip('"')) if response else None

    def write(self, uri: str, content: bytes) -> None:
        # A browser displays plain text; it downloads an object without a content type.
        headers: dict[str, Any] = {"ContentType": "text/plain; charset=utf-8"} if uri.endswith(TEXT) else {}
        with self._errors(uri):
            self._call(self._client.put_object, uri, Body=content, **headers)

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent (``If-None-Match: *``); return False if it exists."""
        return self._put_if(uri, content, IfNoneMatch="*")

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag (``If-Match``); return False if it changed."""
        return self._put_if(uri, content, IfMatch=etag)

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write an object of any size from an open file; boto3 uploads it in parts."""
        bucket, key = split_uri(uri)
        with self._errors(uri):
            self._client.upload_fileobj(content, bucket, key)

    def delete(self, uri: str) -> None:
        with self._errors(uri):
            self._call(self._client.delete_object, uri)

    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        """Open an object for streaming, decompressed as `compression`; by default, its extension decides.

        Reading starts at `offset`, which must be 0 for a compressed object. Raise ConfigError if the object is missing,
        or access is denied. Also while reading, raise ObjectChanged if the object has changed since `etag`, and
        RetriableError if the download failed at every attempt.
        """
        body = _Body(self._range, uri, self._range(uri, offset, etag), offset, self._sleep)
        return decompressed(io.BufferedReader(body, READ_BUFFER_BYTES), uri, compression)

    def browse_url(self, uri: str) -> str:
        """Return the URL that shows an object in a browser: in the AWS console, or at another store's endpoint."""
        bucket, key = split_uri(uri)
        endpoint, path = str(self._client.meta.endpoint_url), quote(key)
        if endpoint.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return f"https://console.aws.amazon.com/s3/object/{bucket}?prefix={path}"
        return f"{endpoint}/{bucket}/{path}"

    def _range(self, uri: str, first_byte: int, etag: str | None) -> tuple[Any, str]:
        """Get an object from `first_byte` on; return its body and its ETag.

        Some stores ignore ``If-Match`` or ``Range``, so the response is checked too.
        """
        arguments: dict[str, str] = {"IfMatch": f'"{etag}"'} if etag else {}
        if first_byte:
            arguments["Range"] = f"bytes={first_byte}-"
        with self._errors(uri):
            response = self._call(self._client.get_object, uri, _PRECONDITION_FAILED if etag else _NONE, **arguments)
        if response is None or (etag and response["ETag"].strip('"') != etag):
            raise ObjectChanged(f"{uri} changed while it was being read; run again")
        if first_byte and not response.get("ContentRange", "").startswith(f"bytes {first_byte}-"):
            raise FatalError(
                f"{uri}: S3 at {self._client.meta.endpoint_url} does not support Range requests, which are needed to "
                f"read from byte {first_byte} on; use a store that does"
            )
        return response["Body"], response["ETag"].strip('"')

    def _put_if(self, uri: str, content: bytes, **condition: str) -> bool:
        """Write an object under a condition; return False if the condition does not hold.

        If a response is lost, the client sends the write again, and the store refuses it because the first write
        succeeded. So each write has a mark, and the mark of the stored object shows whose write succeeded. To compare
        the content is not enough: two writers may write equal content.
        """
        mark = secrets.token_hex(16)
        with self._errors(uri):
            refused = _PRECONDITION_FAILED | _ABSENT
            write = {"Body": content, "Metadata": {WRITE_MARK: mark}, **condition}
            if self._call(self._client.put_object, uri, refused, **write) is not None:
                return True
            stored = self._call(self._client.head_object, uri, _ABSENT)
        return stored is not None and stored["Metadata"].get(WRITE_MARK) == mark

    def _call(self, operation: Any, uri: str, expected: frozenset[str] = _NONE, **arguments: Any) -> Any:  # noqa: ANN401 - botocore ships no types
        """Call an operation for one object; return None for an error whose code is `expected`."""
        bucket, key = split_uri(uri)
        try:
            return operation(Bucket=bucket, Key=key, **arguments)
        except self._client.exceptions.ClientError as error:
            if _code(error) in expected:
                return None
            raise

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
            raise ConfigError(f"{uri} is not the location of an S3 object; write it as s3://bucket/key") from error
        except (aws.BotoCoreError, OSError) as error:
            raise RetriableError(
                f"{uri}: S3 at {endpoint} does not answer ({type(error).__name__}); "
                "check that it is running and that the AWS connection's endpoint_url is right"
            ) from error


def _code(error: Any) -> str:  # noqa: ANN401 - botocore makes its exception classes at run time
    return str(error.response.get("Error", {}).get("Code", ""))


def _explain(error: Any, uri: str, endpoint: str) -> Exception:  # noqa: ANN401 - as above
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return ConfigError(
            f"{uri}: there is no bucket {split_uri(uri)[0]!r} at {endpoint}; create it or correct the name"
        )
    if status == NOT_IMPLEMENTED:
        return ConfigError(
            f"{uri}: S3 at {endpoint} does not implement this request ({code}); "
            "use a store that implements Amazon S3's conditional writes"
        )
    if code in _ABSENT:
        return ConfigError(f"{uri}: no such object at {endpoint}")
    if code in _REFUSED:
        return ConfigError(f"{uri}: {endpoint} refuses the credentials of the AWS connection ({code})")
    if is_busy(code, status, "HEAD" if error.operation_name == "HeadObject" else ""):
        return _Busy(f"{uri}: S3 at {endpoint} answered {status} {code} {_BUSY_CAUSES.get(code, '')}".rstrip())
    kind = RetriableError if status >= SERVER_ERROR else FatalError
    return kind(f"{uri}: S3 at {endpoint} answered {status} {code}")


class _Body(RawStream):
    """An object's bytes as a raw stream that resumes an interrupted download."""

    def __init__(
        self, get: _Get, uri: str, start: tuple[Any, str], offset: int, sleep: Callable[[float], None]
    ) -> None:
        self._get, self._uri, self._sleep = get, uri, sleep
        self._body, self._etag = start
        self._offset, self._failures = offset, 0

    def chunk(self, size: int) -> bytes:
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        while True:
            try:
                chunk: bytes = self._body.read(size)
            except (BotoCoreError, HTTPError, OSError) as error:
                self._resume(error)
            else:
                break
        if chunk:
            self._failures = 0
        self._offset += len(chunk)
        return chunk

    def _resume(self, error: Exception) -> None:
        """Get the rest of the same version; raise RetriableError after the last attempt."""
        self._body.close()
        while True:
            if self._failures == len(PAUSES_S):
                raise RetriableError(
                    f"{self._uri}: the download was interrupted {len(PAUSES_S) + 1} times at byte {self._offset} "
                    f"({type(error).__name__}); run again when the store answers"
                ) from error
            self._sleep(PAUSES_S[self._failures])
            self._failures += 1
            try:
                self._body, _ = self._get(self._uri, self._offset, self._etag)
            except _Busy:
                raise
            except RetriableError:
                continue
            return

    def close(self) -> None:
        self._body.close()
        super().close()
