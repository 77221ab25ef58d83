"""JSON documents on object storage: what is read back, who wins a race, what a damaged file says."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.storage.json_document import JsonDocument, load_manifest, read_all, save
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects
from tests.core.memory_objects import MemoryObjects
from tests.stored import present


class Counter(msgspec.Struct, frozen=True):
    """A value that several writers change."""

    count: int
    by: list[str] = []
    words: dict[str, float] = {}


@pytest.fixture(params=["files", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store."""
    return LocalFiles(tmp_path) if request.param == "files" else MemoryObjects()


@pytest.fixture
def document(files: Objects) -> JsonDocument[Counter]:
    """A document that is not there yet."""
    return JsonDocument(files, "folder/counter.json", Counter)


counters = st.builds(
    Counter,
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
)


@given(value=counters, indent=st.sampled_from([-1, 1, 4]))
def test_a_written_value_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: Counter, indent: int) -> None:
    """Whatever it holds, and however it is indented."""
    document = JsonDocument(LocalFiles(tmp_path_factory.getbasetemp()), "same.json", Counter, indent=indent)
    document.write(value)
    assert document.read() == value


def test_a_document_is_indented_unless_it_grows_with_the_source(tmp_path: Path) -> None:
    """People read the small ones."""
    store = LocalFiles(tmp_path)
    save(store, "a.json", Counter(1))
    JsonDocument(store, "b.json", Counter, indent=-1).write(Counter(1))
    assert (tmp_path / "a.json").read_text() == '{\n "count": 1,\n "by": [],\n "words": {}\n}'
    assert (tmp_path / "b.json").read_text() == '{"count":1,"by":[],"words":{}}'


def test_an_absent_document(files: Objects, document: JsonDocument[Counter]) -> None:
    """It has no value; who needs one says which error its absence is."""
    assert (document.load(), document.read()) == (None, None)
    with pytest.raises(ConfigError, match=r"^nothing; begin$"):
        document.require(ConfigError("nothing; begin"))
    with pytest.raises(ConfigError, match=r"^folder/counter\.json: no manifest; clear prepare to write it$"):
        load_manifest(files, document.uri, Counter)


def test_only_the_first_creates(document: JsonDocument[Counter]) -> None:
    """The second learns that it lost."""
    assert [document.create(Counter(1)), document.create(Counter(2))] == [True, False]
    assert [document.swap(Counter(3), etag=None), document.read()] == [False, Counter(1)]


def test_a_swap_needs_the_version_that_was_read(files: Objects, document: JsonDocument[Counter]) -> None:
    """One that changed, or was removed, is left as it is."""
    document.write(Counter(1))
    found = present(document.load())
    assert document.swap(Counter(22), etag=found.etag)
    assert not document.swap(Counter(333), etag=found.etag)
    assert document.read() == Counter(22)
    files.delete(document.uri)
    assert not document.swap(Counter(1), etag=found.etag)
    assert document.read() is None


def test_an_update_begins_with_none_and_may_write_nothing(document: JsonDocument[Counter]) -> None:
    """It returns what it wrote."""
    assert document.update(lambda value: value) is None
    assert document.read() is None
    assert document.update(lambda value: value or Counter(1)) == Counter(1)
    assert document.update(lambda value: value and Counter(value.count + 1)) == Counter(2)


@given(values=st.lists(counters, min_size=1, max_size=4))
def test_an_update_sees_what_others_wrote_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, values: list[Counter]
) -> None:
    """It is repeated for each newer value, and loses none of them."""
    document = JsonDocument(LocalFiles(tmp_path_factory.getbasetemp()), f"{uuid.uuid4().hex}.json", Counter)
    seen: list[Counter | None] = []

    def change(value: Counter | None) -> Counter:
        seen.append(value)
        if len(seen) <= len(values):
            document.write(values[len(seen) - 1])
        return Counter(len(seen))

    assert document.update(change) == Counter(len(values) + 1)
    assert seen == [None, *values]


@pytest.mark.slow
def test_racing_updates_lose_no_change(store: S3Objects, bucket: str) -> None:
    """Eight writers on an S3 store add ten each."""

    def add(name: str) -> None:
        document = JsonDocument(store, f"s3://{bucket}/counter.json", Counter)
        for _ in range(10):
            document.update(lambda value: Counter(value.count + 1, [*value.by, name]) if value else Counter(1, [name]))

    threads = [threading.Thread(target=add, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    value = present(JsonDocument(store, f"s3://{bucket}/counter.json", Counter).read())
    assert value.count == 80
    assert {name: value.by.count(name) for name in value.by} == {str(number): 10 for number in range(8)}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b'{"count": "one"}', r"Expected `int`, got `str` - at `\$\.count`"),
        (b'{"count": 1', "Input data was truncated"),
        (b"", "Input data was truncated"),
        (b'{"count": 1, "by": ["\xff"]}', "utf-8"),
        (b"{}", "Object missing required field `count`"),
        (b'{"more":' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_content_that_cannot_be_decoded(tmp_path: Path, content: bytes, cause: str) -> None:
    """The error names the file, what is wrong with it, and the remedy of its kind."""
    store = LocalFiles(tmp_path)
    store.write("job.json", content)
    with pytest.raises(FatalError, match=rf"(?is)^job\.json: damaged, or written by another .*{cause}.*; restore it$"):
        JsonDocument(store, "job.json", Counter, remedy="restore it").read()
    with pytest.raises(FatalError, match=r"restore its previous version, or delete it and run again$"):
        JsonDocument(store, "job.json", Counter).update(lambda value: value)
    assert JsonDocument(store, "job.json", Counter, fallback=lambda content: Counter(len(content))).read() == Counter(
        len(content)
    )


def test_all_documents_below_a_prefix(tmp_path: Path) -> None:
    """In key order; one that is removed after the listing is left out."""
    store = LocalFiles(tmp_path)
    for number in range(3):
        save(store, f"notes/{number}.json", Counter(number))
    found = read_all(store, "notes/", Counter)
    first, value = next(found)
    store.delete("notes/1.json")
    assert [(first.uri, value), *((document.uri, value) for document, value in found)] == [
        ("notes/0.json", Counter(0)),
        ("notes/2.json", Counter(2)),
    ]
