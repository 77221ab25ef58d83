"""Calls an OpenSearch cluster; a failed call raises an error with cause, location and remedy.

The caller configures the opensearch-py client, so this module handles no credentials, TLS or signing.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from opensearch_batch.core.errors import (
    BatchError,
    ConfigError,
    NotFound,
    RemoteError,
    RetriableError,
    Throttled,
    TooLarge,
)
from opensearch_batch.core.types.vector_field import VectorField

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

T = TypeVar("T")
OK = 200
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, CONFLICT = 401, 403, 404, 408, 409
TOO_LARGE, TOO_MANY, SERVER_ERROR = 413, 429, 500
RETRY_STATUSES = frozenset({TOO_MANY, 502, 503, 504})
REMOTE_ERROR_PREFIX = "Error from remote service: "
# ML Commons 3.x returns this with status 400 when a service throttles, without the service's response.
THROTTLED_TYPE = "remote_connector_throttling_exception"
_MEANINGS: Mapping[int, tuple[type[BatchError], str]] = {
    UNAUTHORIZED: (ConfigError, "wrong user or password (401); correct login and password of the connection"),
    FORBIDDEN: (ConfigError, "not permitted (403): {reason}; grant the connection's user this permission"),
    NOT_FOUND: (NotFound, "not found (404): {reason}"),
    # ML Commons updates a task on every GET: one of two concurrent GETs gets this response.
    CONFLICT: (RetriableError, "changed concurrently by another request (409): {reason}"),
    TOO_LARGE: (TooLarge, "larger than the cluster accepts (413, http.max_content_length)"),
}


class Index(msgspec.Struct, frozen=True):
    """An index: its identity, vector fields, and mappings and settings as stored."""

    name: str
    uuid: str
    vectors: tuple[VectorField, ...] = ()
    mappings: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    is_data_stream: bool = False


class Cluster:
    """Calls one cluster through an opensearch-py client and converts its errors.

    `name` identifies the cluster in messages: the connection's id and the address.
    """

    def __init__(self, client: OpenSearch, name: str) -> None:
        self.client = client
        self.name = name

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        params: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        compress: bool = False,
    ) -> Any:  # noqa: ANN401 - JSON of many shapes; callers convert it
        """Send one request and return the decoded response.

        Raises:
            ConfigError: credentials, certificate, permission, address or request are wrong (4xx).
            RetriableError: the cluster does not answer, or answers 5xx. Throttled: it is busy (429).
            NotFound: 404. TooLarge: 413.
            RemoteError: ML Commons returned an error of an AI service.
        """
        headers: dict[str, str] | None = None
        if isinstance(body, bytes):
            headers = {"content-type": "application/x-ndjson"}
            if compress:
                headers["content-encoding"] = "gzip"
                # opensearch-py would compress at the slowest level.
                body = gzip.compress(body, compresslevel=1, mtime=0)
        with self._errors(f"{method} {path}"):
            return self._send(
                lambda: self.client.transport.perform_request(
                    method,
                    path,
                    body=body,
                    headers=headers,
                    params={**(params or {}), "request_timeout": timeout_s},
                )
            )

    def answer(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0
    ) -> tuple[int, Any]:
        """Send one request and return status and decoded body of the response, if it is an error response, too.

        Raises:
            ConfigError: the credentials of the connection are wrong (401).
            RetriableError: the cluster does not answer.
        """
        from opensearchpy import TransportError

        with self._errors(f"{method} {path}"):
            try:
                return OK, self._send(
                    lambda: self.client.transport.perform_request(
                        method, path, body=body, params={"request_timeout": timeout_s}
                    )
                )
            except TransportError as error:
                if not isinstance(error.status_code, int) or error.status_code == UNAUTHORIZED:
                    raise
                return error.status_code, error.info

    def text(
        self, method: str, path: str, body: Mapping[str, Any], *, params: Mapping[str, str], timeout_s: float
    ) -> str:
        """Send one request and return the text of the response, in which numbers have all their digits; see `call`."""
        from opensearchpy import ConnectionError as NoAnswer
        from opensearchpy import ConnectionTimeout

        def request() -> str:
            connection = self.client.transport.get_connection()
            try:
                encoded = msgspec.json.encode(body)
                return str(connection.perform_request(method, path, dict(params), encoded, timeout=timeout_s)[2])
            except NoAnswer as error:
                if not isinstance(error, ConnectionTimeout):
                    self.client.transport.mark_dead(connection)
                raise

        with self._errors(f"{method} {path}"):
            return self._send(request)

    def _send(self, request: Callable[[], T]) -> T:
        """Send a request to a node, and to the next one if the node cannot be reached.

        Only then the cluster has not received the request, so a paid one is not repeated.
        """
        from opensearchpy import ConnectionError as NoAnswer
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

        for _ in self.client.transport.seed_connections[1:]:
            try:
                return request()
            except NoAnswer as error:
                if not isinstance(error.info, ConnectTimeoutError | NewConnectionError):
                    raise
        return request()

    @property
    def url(self) -> str:
        """The cluster's address, that of its first node, without credentials."""
        first, _ = self.client.transport.connection_pool.connection_opts[0]
        return str(first.host)

    def search_url(self, index: str) -> str:
        """Return the URL that shows an index's first documents in a browser, without credentials."""
        return f"{self.url}/{index}/_search?pretty"

    @contextmanager
    def _errors(self, request: str) -> Iterator[None]:
        from opensearchpy import exceptions as os_errors

        try:
            yield
        except os_errors.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error.error):
                raise RetriableError(f"OpenSearch {self.name}: the TLS connection failed ({error.error})") from error
            raise ConfigError(
                f"OpenSearch {self.name}: its certificate is not trusted ({error.error}); "
                "give the CA file as ca_certs in the connection's extra"
            ) from error
        except os_errors.ConnectionError as error:
            raise RetriableError(
                f"OpenSearch {self.name} does not answer ({error.error}); "
                "check that it is running and that the connection has its host and port"
            ) from error
        except os_errors.TransportError as error:
            raise self._explain(error, request) from error
        except os_errors.OpenSearchException as error:
            raise RetriableError(
                f"OpenSearch {self.name}: {request}: the response is not an OpenSearch response ({error})"
            ) from error

    def _explain(self, error: Any, request: str) -> BatchError:  # noqa: ANN401 - opensearch-py's errors are untyped
        status, reason = error.status_code, reason_of(error.info) or str(error.error)
        location = f"OpenSearch {self.name}: {request}"
        if type_of(error.info) == THROTTLED_TYPE or status == TOO_MANY:
            return Throttled(f"{location}: answered {status}: {reason}")
        if reason.startswith(REMOTE_ERROR_PREFIX):
            return RemoteError(f"{location}: {reason} ({status})", status=status, code=remote_code(reason))
        if status in _MEANINGS:
            kind, meaning = _MEANINGS[status]
            explained = kind(f"{location}: {meaning.format(reason=reason)}")
            if isinstance(explained, NotFound):
                explained.type = type_of(error.info)
            return explained
        kind = RetriableError if status >= SERVER_ERROR or status == REQUEST_TIMEOUT else ConfigError
        return kind(f"{location}: answered {status}: {reason}")

    def index(self, name: str) -> Index | None:
        """Return an index by name or alias, None if it does not exist; raise ConfigError for several indexes."""
        try:
            indexes: dict[str, Any] = self.call("GET", f"/{name}")
        except NotFound:
            return None
        if len(indexes) != 1:
            raise ConfigError(f"OpenSearch {self.name}: {name} is an alias of {len(indexes)} indexes; give one of them")
        (body,) = indexes.values()
        settings, mappings = body["settings"]["index"], body.get("mappings", {})
        return Index(name, settings["uuid"], vector_fields(mappings), mappings, settings, "data_stream" in body)

    def create_index(self, name: str, body: Mapping[str, Any]) -> None:
        """Create an index if it does not exist."""
        try:
            self.call("PUT", f"/{name}", body)
        except ConfigError as error:
            if self.index(name) is None:
                raise ConfigError(f"index body of {name}: {error}") from error

    def refresh(self, name: str) -> None:
        """Refresh an index, so that all previous writes are searchable."""
        self.call("POST", f"/{name}/_refresh", timeout_s=120.0)


def type_of(info: object) -> str:
    """Return the type in an OpenSearch error body, ``""`` if it has none."""
    error = info.get("error") if isinstance(info, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def reason_of(info: object) -> str:
    """Return the reason in an OpenSearch error body, ``""`` if it has none."""
    error = info.get("error", info) if isinstance(info, dict) else info
    if isinstance(error, dict):
        return str(error.get("reason") or error.get("type") or "")
    return str(error or "")


def remote_code(reason: str) -> str:
    """Return the error code in an AI service's response as ML Commons quotes it, ``""`` if it has none."""
    try:
        response = msgspec.json.decode(reason.removeprefix(REMOTE_ERROR_PREFIX))
    except msgspec.DecodeError:
        return ""
    code = response.get("__type") or response.get("error") if isinstance(response, dict) else None
    if isinstance(code, dict):
        code = code.get("code") or code.get("type")
    return str(code or "").rpartition("#")[2]


def vector_fields(mappings: Mapping[str, Any], prefix: str = "") -> tuple[VectorField, ...]:
    """Return the ``knn_vector`` fields of a mapping that have a dimension, nested ones by dotted name."""
    vectors: list[VectorField] = []
    for name, field in mappings.get("properties", {}).items():
        if field.get("type") == "knn_vector" and "dimension" in field:
            space = field.get("space_type") or field.get("method", {}).get("space_type")
            data_type = field.get("data_type", "float")
            vectors.append(VectorField(prefix + name, int(field["dimension"]), data_type, space == "cosinesimil"))
        vectors += vector_fields(field, f"{prefix}{name}.")
    return tuple(vectors)


def field_type(index: Index, name: str) -> str | None:
    """Return the type of a field in the mapping, of a nested one by dotted name; None if it is not mapped."""
    mapping: dict[str, Any] = index.mappings
    for part in name.split("."):
        mapping = mapping.get("properties", {}).get(part, {})
    kind: str | None = mapping.get("type")
    return kind


def check_dimension(index: Index, fields: list[str], dimension: int) -> None:
    """Raise ConfigError if a mapped vector field of the index has another dimension than the model's vectors."""
    for vector in index.vectors:
        if vector.name in fields and vector.dimension != dimension:
            raise ConfigError(
                f"index {index.name} field {vector.name} has dimension {vector.dimension}, but the model returns "
                f"vectors of {dimension} (batch_predict.dimension); use another index, or create it again"
            )
