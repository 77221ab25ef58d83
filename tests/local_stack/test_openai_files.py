"""The local Files API is the one the `openai` package knows, and its faults reach those who read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.storage.objects import find_objects, lines
from opensearch_batch.services.openai.files import OpenAIFiles
from tests.lab import Lab
from tests.stored import present

CONTENT = b'{"custom_id":"r"}\n' * 20_000


@pytest.fixture
def make(lab: Lab) -> Iterator[Callable[..., openai.OpenAI]]:
    """Make a client, with the stack's key unless another is given."""
    made: list[openai.OpenAI] = []

    def client(key: str = "") -> openai.OpenAI:
        made.append(
            openai.OpenAI(
                api_key=key or lab.stack.credentials.secret_key,
                base_url=f"{lab.stack.addresses.ai_services}/v1",
                max_retries=0,
            )
        )
        return made[-1]

    yield client
    lab.no_faults()
    for each in made:
        each.close()


def test_a_file_is_uploaded_shown_listed_read_and_deleted(make: Callable[..., openai.OpenAI]) -> None:
    """By the `openai` package as it is."""
    client = make()
    file = client.files.create(file=("in.jsonl", CONTENT), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(CONTENT), "in.jsonl", "batch")
    assert client.files.retrieve(file.id) == file
    assert file in client.files.list(purpose="batch").data
    assert file not in client.files.list(purpose="vision").data
    assert client.files.content(file.id).read() == CONTENT
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(file.id)


def test_a_file_is_a_source(make: Callable[..., openai.OpenAI]) -> None:
    """Found by its id and streamed by lines; nothing is written there."""
    client = make()
    file = client.files.create(file=("in.jsonl", CONTENT), purpose="batch")
    files = OpenAIFiles(client)
    (found,) = find_objects(files, f"openai://{file.id}")
    assert found.size_bytes == len(CONTENT)
    with files.open(found.uri, etag=found.etag) as stream:
        assert sum(1 for _ in lines(stream, max_line_bytes=100)) == 20_000
    stored = present(files.read(file.id))
    assert stored.content == CONTENT
    with pytest.raises(ConfigError, match="files at OpenAI are read-only"):
        files.write(file.id, b"x")


def test_a_missing_file_and_a_wrong_key_are_named(make: Callable[..., openai.OpenAI]) -> None:
    """The key stands in no message."""
    with pytest.raises(ConfigError, match="openai://file-none: no such object"):
        find_objects(OpenAIFiles(make()), "openai://file-none")
    with pytest.raises(ConfigError, match="openai://file-none: OpenAI has no such file"):
        OpenAIFiles(make()).open("openai://file-none")
    with pytest.raises(
        ConfigError, match=r"refuses the key \(401\); correct the connection, or the request's key"
    ) as raised:
        find_objects(OpenAIFiles(make("sk-wrong-key-1234")), "openai://file-none")
    assert "1234" not in str(raised.value)


@pytest.mark.parametrize("fault", ["throttle", "error"])
def test_a_service_that_is_busy_can_be_retried(lab: Lab, make: Callable[..., openai.OpenAI], fault: str) -> None:
    """429 and 5xx."""
    lab.fault(service="openai", fault=fault)
    with pytest.raises(RetriableError, match=r"OpenAI answered (429|500); run again later"):
        find_objects(OpenAIFiles(make()), "openai://file-none")


def test_a_transfer_that_breaks_off_is_no_short_file(lab: Lab, make: Callable[..., openai.OpenAI]) -> None:
    """It can be retried."""
    client = make()
    file = client.files.create(file=("in.jsonl", CONTENT), purpose="batch")
    lab.fault(service="openai", fault="truncate")
    with OpenAIFiles(client).open(file.id) as stream, pytest.raises(RetriableError, match="interrupted"):
        stream.read()
