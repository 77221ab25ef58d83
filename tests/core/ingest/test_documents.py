"""Every line becomes part of a document, or of a dead letter, or is blank: exactly once, whatever fits in memory."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.ingest.account import ReplayRequest, RowAccount
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.mapped_documents import MappedDocuments
from opensearch_batch.core.ingest.progress import ProgressFile
from opensearch_batch.core.ingest.request import IngestRequest, OnUnmatched, compile_map
from opensearch_batch.core.ingest.sinks.base import Entry, Item, Refused, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import bodies
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.core.transform.field_map import merge
from opensearch_batch.core.types.counts import IngestCounts, SourceCounts
from opensearch_batch.core.types.rows import Blank, Rejected, Source
from opensearch_batch.services.registry import row_errors

HUGE, TINY = 64 << 20, 0
BOOM = "boom"
IDS: list[Any] = [1, "1", 2, "2", "é", True]
NO_IDS: list[Any] = [..., None, "", [1], {"k": 1}]
VALUES = st.sampled_from([None, 0, "x", [1, 2], {}, {"p": 1}, {"p": {"q": 1}}, {"p": {"r": None}}, {"s": [1]}])
FIELDS = st.fixed_dictionaries({}, optional={"v": VALUES, "o": VALUES})
NOT_ROWS = [
    b"{oops", b"[1]", b'"x"', b"5", b'{"id":1}{"id":2}', b"{'id':1}", b'{"id":1,"v":NaN}', b'{"id":1,"u":"\xff"}',
    b'{"id":1,"u":%b' % (b"[" * 3000),
]  # fmt: skip
BLANK = [b"", b"  ", b"\t"]


class Line(NamedTuple):
    """A line of a source; `key` None: it cannot be part of a document."""

    content: bytes
    key: str | None = None
    values: dict[str, Any] | None = None
    error: bool = False


def row_of(name: Any, fields: dict[str, Any], *, error: bool = False) -> Line:
    """Return a row; an id of ``...`` is left out."""
    members = dict(fields) if name is ... else {"id": name, **fields}
    if error:
        members |= {"custom_id": "c", "error": {"message": BOOM}}
    key = None if name in NO_IDS else name if isinstance(name, str) else json.dumps(name)
    return Line(json.dumps(members).encode(), key, fields, error)


ROWS = st.builds(row_of, st.sampled_from(IDS), FIELDS)
ERROR_ROWS = st.builds(partial(row_of, error=True), st.sampled_from([*IDS, ...]), st.just({}))
ODD = st.builds(row_of, st.sampled_from(NO_IDS), FIELDS) | st.sampled_from(NOT_ROWS + BLANK).map(Line)
CLEAN_SOURCES = st.lists(st.lists(ROWS | ODD, max_size=7), min_size=1, max_size=3)
SOURCES = st.lists(st.lists(ROWS | ROWS | ERROR_ROWS | ODD, max_size=7), min_size=1, max_size=3)
POLICIES: st.SearchStrategy[OnUnmatched] = st.sampled_from(["index_partial", "dead_letter"])


def request_of(sources: int, **members: Any) -> IngestRequest:
    """Return a request that maps ``v`` of each source to its own field, ``o`` of all to one, and joins by ``id``."""
    numbers = range(sources)
    ids = [f"source[{n}].$.id" for n in numbers]
    own = {f"v{n}": f"source[{n}].$.v" for n in numbers}
    shared = {"o": [f"source[{n}].$.o" for n in numbers]}
    return IngestRequest("i", {"_id": ids, **own, **shared}, **members)


def documents_of(
    request: IngestRequest, sources: Sequence[Sequence[Line]], objects: LocalFiles, *, memory_bytes: int = HUGE
) -> MappedDocuments:
    """Write the sources below the store's folder and make their documents."""
    for number, lines in enumerate(sources):
        objects.write(f"{number}.jsonl", b"".join(line.content + b"\n" for line in lines))
    found = [Source(f"{n}.jsonl", tuple(find_objects(objects, f"{n}.jsonl"))) for n in range(len(sources))]
    return MappedDocuments(
        request,
        compile_map(request, sources=len(sources)),
        found,
        Reading(objects, row_errors=row_errors(), memory_bytes=memory_bytes),
    )


class Run:
    """The result of some sources: the entries in order, the documents in the index, and the account."""

    def __init__(self, sources: Sequence[Sequence[Line]], *, memory_bytes: int = HUGE, **members: Any) -> None:
        self.sources = sources
        self.request = request_of(len(sources), **members)
        self.refused: list[Item] = []
        with TemporaryDirectory() as folder:
            objects = LocalFiles(Path(folder))
            documents = documents_of(self.request, sources, objects, memory_bytes=memory_bytes)
            self.entries: list[Entry] = list(documents)
            self.read_bytes = documents.read_bytes
            self.counts = self._account(objects)

    @property
    def index(self) -> dict[str, Any]:
        """The documents in the index after all entries were written."""
        found: dict[str, Any] = {}
        for entry in self.entries:
            if isinstance(entry, Item):
                action, body = (json.loads(line) for line in entry.content.splitlines())
                ((op_type, about),) = action.items()
                if op_type == "update":
                    older = json.dumps(found.get(about["_id"], {})).encode()
                    found[about["_id"]] = json.loads(merge(older, json.dumps(body["doc"]).encode()))
                else:
                    found[about["_id"]] = body
        return found

    def _account(self, objects: LocalFiles) -> IngestCounts:
        """Settle all entries, in small bodies, of which the index refuses each third document."""
        names = [f"{n}.jsonl" for n in range(len(self.sources))]
        with RowAccount(
            objects,
            ProgressFile(objects, "work/progress.json"),
            queue="work/dead_letters/",
            fingerprint="f",
            before=None,
            reading=Reading(objects),
            replay=ReplayRequest(names, self.request),
        ) as account:
            for body in bodies(self.entries, max_body_bytes=lambda: 200):
                refused = [Refused(item, 400, "no") for at, item in enumerate(body.items) if at % 3 == 2]
                self.refused += [item for item, _, _ in refused]
                account.settle(WrittenBody(body, len(body.items) - len(refused), 0, refused))
            assert account.settled == len(self.entries)
            return account.counts()


class Group(NamedTuple):
    """The lines of one entry, by source and line number."""

    places: list[tuple[int, int]]
    late: bool
    rejected: str | None


def groups_of(run: Run) -> list[Group]:
    """Return the entries with rows."""
    found = []
    for entry in run.entries:
        if isinstance(entry, Item):
            found.append(Group([(row.source, row.line) for row in entry.context.rows], entry.context.late, None))
        elif isinstance(entry, Rejected):
            found.append(Group([(row.source, row.line) for row in entry.rows], entry.late, entry.reason))
    return found


def merged(older: Any, newer: Any) -> Any:
    """Merge as documented: objects member by member, otherwise the newer value wins."""
    if not (isinstance(older, dict) and isinstance(newer, dict)):
        return newer
    return {**older, **{name: merged(older[name], new) if name in older else new for name, new in newer.items()}}


def model_of(lines: list[tuple[int, Line]], *, sources: int, late: bool) -> tuple[dict[str, Any], int]:
    """Return the document of rows in their order, and the number of missing mapped fields."""
    document: dict[str, Any] = {}
    for source, line in lines:
        for name, value in (line.values or {}).items():
            field = name if name == "o" else f"v{source}"
            document[field] = merged(document[field], value) if field in document else value
    there = {source for source, _ in lines}
    mapped = [*(f"v{n}" for n in range(sources) if n in there), "o"]
    missing = [name for name in mapped if name not in document]
    # A late row is merged into a document that is there: what it lacks says nothing about that document.
    return (document if late else {**document, **dict.fromkeys(missing)}), len(missing)


class Model:
    """The documented result in plain Python, for the order in which the join yielded the rows."""

    def __init__(self, run: Run) -> None:
        self.index: dict[str, Any] = {}
        self.nulls = self.unmatched = 0
        self._sources = run.sources
        self._strict = run.request.on_unmatched == "dead_letter" and len(run.sources) > 1
        self._dead: set[str] = set()
        for group in groups_of(run):
            self._add(group)

    def _add(self, group: Group) -> None:
        lines = [(source, self._sources[source][number - 1]) for source, number in group.places]
        keys = {line.key for _, line in lines}
        (key,) = keys
        if key is None:
            assert (len(lines), group.late) == (1, False)
            assert group.rejected == BOOM if lines[0][1].error else group.rejected not in (None, BOOM)
            return
        lacking = not group.late and len({source for source, _ in lines}) < len(self._sources)
        self.unmatched += lacking
        document, nulls = model_of(lines, sources=len(self._sources), late=group.late)
        bad = nulls > 0 and any(line.error for _, line in lines)
        refused = self._strict and (lacking or (group.late and key in self._dead))
        assert (group.rejected is not None) == (bad or refused), (group, document)
        if bad:
            assert group.rejected == BOOM
        if bad or refused:
            self._dead |= set() if group.late else {key}
            return
        self.nulls += nulls
        self.index[key] = merged(self.index.get(key, {}), document) if group.late else document


@given(SOURCES, POLICIES, st.sampled_from([TINY, 700, HUGE]))
def test_every_line_is_accounted_for_once(
    sources: list[list[Line]], on_unmatched: OnUnmatched, memory_bytes: int
) -> None:
    """Every line is part of a document or a dead letter, or blank; blank lines are counted by source."""
    run = Run(sources, on_unmatched=on_unmatched, memory_bytes=memory_bytes)
    seen = Counter(place for group in groups_of(run) for place in group.places)
    blank = Counter(entry.source for entry in run.entries if isinstance(entry, Blank))
    for number, lines in enumerate(sources):
        not_blank = [at for at, line in enumerate(lines, 1) if line.content not in BLANK]
        assert [line for source, line in sorted(seen) if source == number] == not_blank
        assert blank[number] == len(lines) - len(not_blank)
    assert set(seen.values()) <= {1}
    assert run.read_bytes == sum(len(line.content) for lines in sources for line in lines if line.content not in BLANK)


@given(SOURCES, POLICIES, st.sampled_from([TINY, 700, HUGE]))
def test_an_id_has_one_first_group_and_its_rows_keep_their_order(
    sources: list[list[Line]], on_unmatched: OnUnmatched, memory_bytes: int
) -> None:
    """Late groups follow the first one, and rows of one source keep their order."""
    run = Run(sources, on_unmatched=on_unmatched, memory_bytes=memory_bytes)
    by_key: dict[str, list[Group]] = defaultdict(list)
    for group in groups_of(run):
        key = sources[group.places[0][0]][group.places[0][1] - 1].key
        if key is not None:
            by_key[key].append(group)
    for found in by_key.values():
        assert [group.late for group in found] == [False] + [True] * (len(found) - 1)
        assert found[0].places == sorted(found[0].places)
        for source in range(len(sources)):
            order = [line for group in found for at, line in group.places if at == source]
            assert order == sorted(order)


@given(SOURCES, POLICIES, st.sampled_from([TINY, 700, HUGE]))
def test_the_documents_are_those_of_the_model(
    sources: list[list[Line]], on_unmatched: OnUnmatched, memory_bytes: int
) -> None:
    """Rows of an id are merged in source order, late ones over them, without error rows and unmatched ones."""
    run = Run(sources, on_unmatched=on_unmatched, memory_bytes=memory_bytes)
    assert run.index == Model(run).index


@given(SOURCES, POLICIES, st.sampled_from([TINY, 700, HUGE]))
def test_the_counts_reconcile_and_are_those_of_the_lines(
    sources: list[list[Line]], on_unmatched: OnUnmatched, memory_bytes: int
) -> None:
    """All rows have a verdict; documents that the index refuses are dead letters."""
    run = Run(sources, on_unmatched=on_unmatched, memory_bytes=memory_bytes)
    counts, found = run.counts, groups_of(run)
    counts.reconcile("test")
    rejected = [group for group in found if group.rejected is not None]
    model = Model(run)
    assert counts.read == sum(len(group.places) for group in found)
    assert counts.dead_letters == len(rejected) + len(run.refused)
    assert counts.indexed == len(found) - counts.dead_letters
    assert counts.joined == sum(len(group.places) - 1 for group in found)
    assert (counts.nulls, counts.unmatched) == (model.nulls, model.unmatched)
    dead = [place for group in rejected for place in group.places]
    dead += [(row.source, row.line) for item in run.refused for row in item.context.rows]
    keys = [[line.key for line in lines if line.key is not None] for lines in sources]
    for number, lines in enumerate(sources):
        assert counts.sources[number] == SourceCounts(
            f"{number}.jsonl",
            read=sum(line.content not in BLANK for line in lines),
            blank=sum(line.content in BLANK for line in lines),
            dead_letters=sum(source == number for source, _ in dead),
            duplicates=len(keys[number]) - len(set(keys[number])),
            unmatched=len({key for key in keys[number] if any(key not in others for others in keys)}),
        )


@given(CLEAN_SOURCES, POLICIES)
def test_the_memory_bound_changes_no_document(sources: list[list[Line]], on_unmatched: OnUnmatched) -> None:
    """Only the order of entries depends on the memory bound."""
    own = [
        {
            key: {field: value for field, value in document.items() if field != "o"}
            for key, document in Run(sources, on_unmatched=on_unmatched, memory_bytes=memory_bytes).index.items()
        }
        for memory_bytes in (TINY, 700, HUGE)
    ]
    assert own[0] == own[1] == own[2]


def test_a_late_row_leaves_alone_what_it_lacks() -> None:
    """A second row of an id does not empty the fields that it lacks."""
    run = Run([[row_of(1, {"v": "a"}), row_of(1, {"o": "b"})], [row_of(1, {"v": "c"})]])
    assert [group.late for group in groups_of(run)] == [False, True]
    assert run.index == {"1": {"v0": "a", "v1": "c", "o": "b"}}
    assert run.counts.nulls == 2


@pytest.mark.parametrize("partner_bytes", [1, 1000])
def test_no_second_row_indexes_an_id_that_was_refused(partner_bytes: int) -> None:
    """With `on_unmatched` dead_letter an id that a source lacks has no document, however many rows it has."""
    lonely = [row_of(1, {"v": "a"}), row_of(1, {"v": "b"})]
    run = Run([lonely, [row_of(2, {"v": "x" * partner_bytes})]], on_unmatched="dead_letter")
    assert run.index == {}
    assert (run.counts.read, run.counts.indexed) == (3, 0)


def test_a_row_after_an_error_row_of_the_same_id_is_indexed() -> None:
    """Of a retried record, the error is a dead letter and the prediction a document."""
    run = Run([[row_of(1, {}, error=True), row_of(1, {"v": 1, "o": 2})]])
    assert [(group.rejected, group.late) for group in groups_of(run)] == [(BOOM, False), (None, True)]
    assert run.index == {"1": {"v0": 1, "o": 2}}


def test_an_error_row_takes_its_partners_with_it() -> None:
    """One dead letter with the service's reason holds the rows of all sources, so that a replay has them."""
    run = Run([[row_of(1, {}, error=True), row_of(2, {"v": 1})], [row_of(1, {"v": 2}), row_of(2, {"v": 3, "o": 4})]])
    dead = [entry for entry in run.entries if isinstance(entry, Rejected)]
    assert [(entry.reason, entry.id, len(entry.rows)) for entry in dead] == [(BOOM, "1", 2)]
    assert run.index == {"2": {"v0": 1, "v1": 3, "o": 4}}
    assert run.counts.sources == [SourceCounts(f"{n}.jsonl", read=2, dead_letters=1) for n in range(2)]


def test_create_keeps_the_first_row_of_an_id() -> None:
    """The second row is a dead letter with this reason."""
    run = Run([[row_of(1, {"v": 1}), row_of("1", {"v": 2})]], op_type="create")
    assert run.index == {"1": {"v0": 1, "o": None}}
    (dead,) = (entry for entry in run.entries if isinstance(entry, Rejected))
    assert dead.reason == "an earlier row has id '1'; op_type create keeps the first row"


def test_fail_names_the_first_id_that_a_source_lacks(tmp_path: Path) -> None:
    """The error names the row and the source, and says that nothing was written."""
    sources = [[row_of(1, {}), row_of(2, {})], [row_of(1, {})]]
    documents = documents_of(request_of(2, on_unmatched="fail"), sources, LocalFiles(tmp_path))
    message = (
        "id '2' (0.jsonl line 2) has no row in source[1] (1.jsonl); nothing was written. "
        "Correct the sources, or choose on_unmatched index_partial or dead_letter"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        documents.refuse_unmatched()


def test_counts_that_lose_a_row_stop_the_work() -> None:
    """A wrong number of verdicts is a FatalError."""
    IngestCounts(read=6, indexed=2, unchanged=1, dead_letters=1, joined=2).reconcile("i")
    with pytest.raises(FatalError, match=r"^i: read 7 rows, but the outcomes of 6 rows were counted$"):
        IngestCounts(read=7, indexed=2, unchanged=1, dead_letters=1, joined=2).reconcile("i")
