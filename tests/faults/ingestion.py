"""An ingest over the stack's node and store, in a process that can be killed, with what it should come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.types.counts import IngestReport
from tests.faults.ingest_worker import Outcome, Servers, Task, Worker
from tests.faults.proxy import Exchange, Fault, Proxy
from tests.lab import Lab
from tests.stored import dead_letters

BULK, MGET, REFRESH, SETTINGS = "POST .*/_bulk", "POST .*/_mget", "POST .*/_refresh", "PUT .*/_settings"
PROGRESS, LETTERS = "PUT .*/progress.json", "PUT .*/dead_letters/.*jsonl"
BODY = {
    "settings": {"index": {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": "7s"}},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "n": {"type": "integer"},
            "text": {"type": "text"},
            "more": {"type": "text"},
            "middle": {"type": "text"},
        },
    },
}
# Small enough for a dozen bodies in each ingest.
MAX_BODY_BYTES = 250


class Shape(msgspec.Struct, frozen=True):
    """Sources, and what they come to: documents by id, dead letters as ``(number of the source, line)``."""

    sources: list[list[bytes]]
    field_map: dict[str, Any]
    documents: dict[str, dict[str, Any]]
    letters: list[tuple[int, int]]
    joined: int = 0
    memory_bytes: int = MEMORY_BYTES
    late: int = 0
    more: dict[str, Any] = {}

    @property
    def read(self) -> int:
        """How many rows there are."""
        return sum(bool(row) for rows in self.sources for row in rows)


def one_source(count: int = 60) -> Shape:
    """One source with a row that is no JSON, a blank line, one that the index refuses, and one without an id."""
    rows = [row(n, n=n, text=f"text {n}") for n in range(count)]
    rows[7], rows[20], rows[32] = b"{oops", row(20, n="no number", text="x"), b""
    rows.append(b'{"n":1}')
    documents = {f"d{n}": {"n": n, "text": f"text {n}"} for n in range(count) if n not in (7, 20, 32)}
    field_map = {"_id": "$.id", "n": "$.n", "text": "$.text"}
    return Shape([rows], field_map, documents, [(0, 8), (0, 21), (0, count + 1)])


def joined(count: int = 60, *, sources: int = 2, spilled: bool = False) -> Shape:
    """Several sources with the same ids; when the later ones run backwards and memory is short, they go to disk."""
    names = ["more", "middle"][: sources - 1]
    rows = [[row(n, n=n, text=f"text {n}") for n in range(count)]]
    rows += [[row(n, x=f"{name} {n}") for n in range(count)] for name in names]
    documents: dict[str, dict[str, Any]] = {
        f"d{n}": {"n": n, "text": f"text {n}"} | {name: f"{name} {n}" for name in names} for n in range(count)
    }
    rows[0][20] = row(20, n="no number", text="x")
    del documents["d20"]
    rows[1][41] = b"{oops"
    del documents["d41"]["more"]
    if spilled:
        rows[1:] = [forwards[::-1] for forwards in rows[1:]]
    field_map = {"_id": [f"source[{number}].$.id" for number in range(sources)]}
    fields = {"n": "source[0].$.n", "text": "source[0].$.text"}
    fields |= {name: f"source[{number}].$.x" for number, name in enumerate(names, start=1)}
    letters = [(0, 21), (1, count - 41 if spilled else 42)]
    joined_rows = count * (sources - 1) - 1
    return Shape(rows, field_map | fields, documents, letters, joined_rows, 2_000 if spilled else MEMORY_BYTES)


def row(number: int, **members: object) -> bytes:
    """Make a row."""
    return json.dumps({"id": f"d{number}", **members}).encode()


def with_duplicates(count: int = 40) -> Shape:
    """One source in which every fifth id comes three times, far from one another; later members are merged over."""
    rows = [row(n, n=n, text=f"text {n}") for n in range(count)]
    rows += [row(n, n=n, text="second", more="kept") for n in range(0, count, 5)]
    rows += [row(n, n=n, text="third") for n in range(0, count, 5)]
    documents: dict[str, dict[str, Any]] = {f"d{n}": {"n": n, "text": f"text {n}"} for n in range(count)}
    documents |= {f"d{n}": {"n": n, "text": "third", "more": "kept"} for n in range(0, count, 5)}
    field_map = {"_id": "$.id", "n": "$.n", "text": "$.text", "more": "$.more"}
    return Shape([rows], field_map, documents, [], late=2 * len(range(0, count, 5)), more={"on_missing": "omit"})


def with_a_long_row(count: int = 40) -> Shape:
    """One source with one row that is longer than the others together."""
    shape = one_source(count)
    shape.sources[0][11] = row(11, n=11, text="long " * 1000)
    del shape.documents["d11"]
    return msgspec.structs.replace(shape, letters=sorted([*shape.letters, (0, 12)]))


def documents_in(body: bytes) -> int:
    """Count the documents in a bulk body."""
    return body.count(b"\n") // 2


class Ingestion:
    """Runs of one ingest, with a proxy before the node and one before the store."""

    def __init__(self, lab: Lab, bucket: str, index: str, shape: Shape, *, folder: str = "in") -> None:
        self.lab, self.bucket, self.index, self.shape = lab, bucket, index, shape
        self.node, self.store = Proxy(lab.stack.addresses.opensearch), Proxy(lab.stack.addresses.s3)
        self.names = [f"s3://{bucket}/{folder}/source-{number}.jsonl" for number in range(len(shape.sources))]
        for name, rows in zip(self.names, shape.sources, strict=True):
            lab.objects.write(name, b"\n".join(rows))
        self.more: dict[str, Any] = dict(shape.more)
        self.options: dict[str, Any] = {}
        self._worker: Worker | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The request; `more` changes it."""
        return {
            "index_name": self.index,
            "field_map": self.shape.field_map,
            "data_source": {"type": "s3", "source": self.names},
            "index_body": BODY,
            "max_body_bytes": MAX_BODY_BYTES,
            **self.more,
        }

    def start(self, **options: Any) -> Worker:
        """Start a process that ingests."""
        keys = self.lab.stack.credentials
        servers = Servers(self.node.url, self.store.url, keys.access_key, keys.secret_key)
        options = {"memory_bytes": self.shape.memory_bytes, **self.options, **options}
        self._worker = Worker(Task(servers, self.request, f"s3://{self.bucket}/work", **options))
        return self._worker

    def run(self, **options: Any) -> Outcome | int:
        """Ingest to the end; what servers were still about then is done."""
        outcome = self.start(**options).end()
        self.node.settle()
        self.store.settle()
        return outcome

    def done(self, **options: Any) -> IngestReport:
        """Ingest to the end, which is a good one."""
        outcome = self.run(**options)
        assert isinstance(outcome, Outcome)
        assert outcome.report is not None, outcome
        return outcome.report

    def failed(self, **options: Any) -> Outcome:
        """Ingest to the end, which is an error."""
        outcome = self.run(**options)
        assert isinstance(outcome, Outcome)
        assert outcome.report is None, outcome
        return outcome

    def kills(self) -> None:
        """Kill the process that was started last."""
        assert self._worker is not None
        self._worker.kill()

    def signals(self, number: int) -> None:
        """Send it a signal."""
        assert self._worker is not None
        self._worker.signal(number)

    def operations(self) -> int:
        """Count the documents the index ever wrote."""
        return self.lab.writes(self.index)

    def documents(self) -> dict[str, Any]:
        """Return what the index holds and a search finds."""
        return self.lab.documents(self.index)

    def letters(self, report: IngestReport) -> list[tuple[int, int]]:
        """Return where the rows of the dead letters stand, in order."""
        letters = dead_letters(self.lab.objects, report.dead_letters)
        return sorted((self.names.index(letter.source), letter.line) for letter in letters)

    def check(self, report: IngestReport) -> None:
        """Every row has its one verdict, every document is there, every dead letter lies there once."""
        shape, counts = self.shape, report.counts
        assert self.documents() == shape.documents
        assert self.letters(report) == shape.letters
        assert (counts.read, counts.joined) == (shape.read, shape.joined)
        assert counts.indexed + counts.unchanged == len(shape.documents) + shape.late
        assert counts.dead_letters == len(shape.letters)

    def check_nothing_to_do(self) -> None:
        """The same request again writes nothing, and its counts say so."""
        operations, bodies = self.operations(), self.node.count(BULK)
        report = self.done()
        self.check(report)
        assert (report.counts.indexed, report.counts.unchanged) == (0, len(self.shape.documents) + self.shape.late)
        assert (self.operations(), self.node.count(BULK)) == (operations, bodies)

    def settings(self) -> dict[str, Any]:
        """Return the index's settings that a load changes."""
        (found,) = self.lab.node("GET", f"{self.index}/_settings").values()
        return {name: found["settings"]["index"].get(name) for name in ("refresh_interval", "number_of_replicas")}

    def prepare_document(self, name: str, document: dict[str, Any]) -> None:
        """Put a document into the index before the ingest does."""
        self.lab.cluster().create_index(self.index, BODY)
        self.lab.node("PUT", f"{self.index}/_doc/{name}?refresh=true", document)

    def close(self) -> None:
        """End the proxies."""
        self.node.close()
        self.store.close()


def before(kill: Callable[[], object]) -> Fault:
    """The process dies; the server never sees the request."""

    def fault(exchange: Exchange) -> None:
        kill()
        exchange.reset()

    return fault


def after(kill: Callable[[], object]) -> Fault:
    """The process dies when the server has done what was asked, before it hears of it."""

    def fault(exchange: Exchange) -> None:
        exchange.forward()
        kill()
        exchange.reset()

    return fault


class Start(Protocol):
    """Lays out the sources of an ingest, below a folder of their own."""

    def __call__(self, shape: Shape, *, folder: str = "in") -> Ingestion:
        """Write the sources."""
