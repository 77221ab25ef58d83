"""Files at OpenAI through its own client: what the service says becomes cause, place and remedy, without the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.services.openai.files import OpenAIFiles
from tests.serving import Exchange, Server

KEY = "sk-secret-0123456789"
CONTENT = bytes(range(256)) * 2_000
ABOUT = {"id": "file-a", "object": "file", "bytes": len(CONTENT), "created_at": 7, "filename": "a", "purpose": "batch"}
ATTEMPTS: list[Callable[[OpenAIFiles], object]] = [
    lambda files: find_objects(files, "openai://file-a"),
    lambda files: files.open("openai://file-a"),
    lambda files: files.read("openai://file-a"),
]


class Service(Server):
    """A Files API of one file that answers `status` if it is given, and stops its content after `send_bytes`."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.send_bytes = len(CONTENT)
        super().__init__(self.answer)

    def answer(self, request: Exchange) -> None:
        """Send the file, what is known of it, or an error that quotes the key as the service does."""
        if self.status:
            request.reply(self.status, {"error": {"message": f"Incorrect API key provided: {KEY}."}})
        else:
            request.reply(200, CONTENT if request.path.endswith("/content") else ABOUT, sent=self.send_bytes)


@pytest.fixture
def service() -> Iterator[Service]:
    """The service."""
    server = Service()
    yield server
    server.close()


@pytest.fixture
def files(service: Service) -> Iterator[OpenAIFiles]:
    """The store, without the client's own retries."""
    with openai.OpenAI(api_key=KEY, base_url=f"{service.url}/v1", max_retries=0) as client:
        yield OpenAIFiles(client)


def test_a_file_is_found_and_read_under_both_names(files: OpenAIFiles) -> None:
    """Its ETag is made of what never changes."""
    for uri in ("file-a", "openai://file-a"):
        (found,) = find_objects(files, uri)
        assert (found.uri, found.size_bytes, found.etag) == (uri, len(CONTENT), f"file-a-{len(CONTENT)}-7")
        with files.open(uri) as stream:
            assert stream.read() == CONTENT


def test_a_missing_file_is_named(files: OpenAIFiles, service: Service) -> None:
    """By its id."""
    service.status = 404
    assert files.head("file-a") is None
    assert files.read("file-a") is None
    assert list(files.list("file-a")) == []
    with pytest.raises(
        ConfigError, match="file-a: OpenAI has no such file; correct the id, or give the key of the file's"
    ):
        files.open("file-a")


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, (ConfigError, r"OpenAI refuses the key \(401\); correct the connection, or the request's key")),
        (403, (ConfigError, r"OpenAI refuses the key \(403\); correct the connection, or the request's key")),
        (429, (RetriableError, "OpenAI answered 429; run again later")),
        (503, (RetriableError, "OpenAI answered 503; run again later")),
        (400, (FatalError, "OpenAI answered 400")),
    ],
)
def test_a_refusal_says_what_to_do_and_holds_no_key(
    files: OpenAIFiles,
    service: Service,
    attempt: Callable[[OpenAIFiles], object],
    status: int,
    told: tuple[type[BatchError], str],
) -> None:
    """Though the service quotes the key in its own message."""
    service.status = status
    with pytest.raises(told[0], match=f"openai://file-a: {told[1]}") as raised:
        attempt(files)
    assert KEY not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_service_that_is_away_can_be_retried(attempt: Callable[[OpenAIFiles], object]) -> None:
    """No server on the port."""
    with openai.OpenAI(api_key=KEY, base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        files = OpenAIFiles(client)
        with pytest.raises(RetriableError, match="openai://file-a: OpenAI does not answer; run again later"):
            attempt(files)


def test_a_transfer_that_breaks_off_is_no_short_file(files: OpenAIFiles, service: Service) -> None:
    """What came is not all, and the error says so."""
    service.send_bytes = len(CONTENT) // 2
    with (
        files.open("file-a") as stream,
        pytest.raises(RetriableError, match=r"file-a: download from OpenAI interrupted \(\w+\); run again"),
    ):
        stream.read()
