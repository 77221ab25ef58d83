"""Presents the documents of an index as objects of a source, so that a run reads only what changed.

An object is a block of documents of one primary shard: ``opensearch://<conn_id>/<index>/<uuid>/<shard>/<block>``. Its
ETag is a digest of the ids and versions of its documents, so another ETag means that a document was written or deleted.
All objects are read from one point in time, so what a run reads is what it listed, whatever is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import IO, Any, NamedTuple, Self

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError
from opensearch_batch.core.opensearch.cluster import Cluster, Index, field_type
from opensearch_batch.core.sharding.incomplete import MARK
from opensearch_batch.core.storage.read_only import ReadOnlyObjects, stream_of
from opensearch_batch.core.types.datasets import DatasetName, index_dataset
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

# Each request renews it. Between the two readings of an object, a run compares its records with the ledger.
KEEP_ALIVE = "30m"
TIMEOUT_S = 120.0
# The node's default of `index.max_result_window`.
PAGE_DOCUMENTS = 10_000
# The bytes of documents to fetch at once, and the number of documents in the first request, whose size is unknown.
PAGE_BYTES, FIRST_PAGE = 4 << 20, 100
# Sequence numbers in a block. With a version field, the expected number of its values in a block.
BLOCK_NUMBERS, BLOCK_VALUES = 10_000, 1_024
_DIGEST_BYTES = 16
# Types whose values are sorted as 64-bit numbers.
VERSION_TYPES = ("date", "long")
# The name of the query that matches documents with all predictions.
_COMPLETE = "complete"
# The sort value of a document without the field.
_MISSING = (1 << 63) - 1


class IndexSource(msgspec.Struct, frozen=True):
    """The documents of an index that match a query (all if None), and what of them is read.

    `fields` are the paths of `_source` that are read, all if there are none. A document without one of the fields
    `predictions` is read as incomplete. `version_field` is a field that changes
    with each change that counts; without it, each write of a document counts as a change until it is compared.
    """

    index: str
    query: dict[str, Any] | None = None
    fields: Sequence[str] = ()
    predictions: Sequence[str] = ()
    version_field: str | None = None


class _Hit(msgspec.Struct, frozen=True, gc=False):
    id: str = msgspec.field(name="_id")
    sort: list[int]
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")
    routing: str | None = msgspec.field(name="_routing", default=None)
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b"{}"))
    matched: list[str] = msgspec.field(name="matched_queries", default_factory=list)


class _Total(msgspec.Struct, frozen=True):
    value: int


class _Hits(msgspec.Struct, frozen=True):
    hits: list[_Hit]
    total: _Total | None = None


class _Page(msgspec.Struct, frozen=True):
    hits: _Hits
    pit_id: str


class _Block(NamedTuple):
    """The documents of a shard whose sort values are in ``[start, end)``; the ends are open if None."""

    shard: int
    start: int | None
    end: int | None


class IndexObjects(ReadOnlyObjects):
    """Reads an index; a context manager, which closes the point in time. `uri` is that of `index_uri`.

    Raises:
        ConfigError: the index does not exist, or has no such version field.
        RetriableError: the cluster does not answer, or the point in time has expired.
    """

    def __init__(self, cluster: Cluster, source: IndexSource, uri: str) -> None:
        self._cluster = cluster
        self._source = source
        self._uri = uri
        self._pit = ""
        self._blocks: dict[str, _Block] = {}
        self._infos: dict[str, ObjectInfo] = {}
        self._index = self._checked_index()
        field, version = "_seq_no", source.version_field
        self._sort = [{version: {"order": "asc", "missing": "_last"}}] if version else []
        self._sort.append({field: {"order": "asc"}})
        self._shards = int(self._index.settings["number_of_shards"])
        self._page_documents = min(PAGE_DOCUMENTS, int(self._index.settings.get("max_result_window", PAGE_DOCUMENTS)))

    @property
    def uuid(self) -> str:
        """The UUID of the index."""
        return self._index.uuid

    @property
    def dataset(self) -> DatasetName:
        """The dataset of the index."""
        return index_dataset(self._cluster.url, self._source.index)

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),  # noqa: ARG002 - blocks have no names to select
        exclude: Sequence[str] = (),  # noqa: ARG002 - as above
        after: str = "",
        limit: int | None = None,  # noqa: ARG002 - all blocks are known after the first listing
    ) -> Iterator[ObjectInfo]:
        """Yield the blocks of the index at a new point in time, unless they are known."""
        if not self._infos:
            self._open_point_in_time()
            for shard in range(self._shards):
                for block, etag in self._scan(shard):
                    name = "first" if block.start is None else f"{block.start:+020d}"
                    info = ObjectInfo(f"{self._uri}{self.uuid}/{shard:05d}/{name}", 0, etag)
                    self._infos[info.uri], self._blocks[info.uri] = info, block
        yield from (info for name, info in sorted(self._infos.items()) if name.startswith(uri) and name > after)

    def head(self, uri: str) -> ObjectInfo | None:
        """Return a block of the listing, None if there is none."""
        return self._infos.get(uri)

    def open(
        self,
        uri: str,
        *,
        etag: str | None = None,  # noqa: ARG002 - a block never changes
        compression: Compression | None = None,  # noqa: ARG002 - as above
        offset: int = 0,  # noqa: ARG002 - a block, whose size is not known, is read as a whole
    ) -> IO[bytes]:
        """Open the documents of a block as JSON Lines: the members of `_source` with `_id` and `_routing`."""
        if uri not in self._blocks:
            raise NotFound(f"{uri}: not a block of this listing; run again")
        return stream_of(self._documents(self._blocks[uri]))

    @property
    def refusal(self) -> str:
        return "files cannot be written to an index; give an S3 URI"

    delete = ReadOnlyObjects.refuse

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._pit:
            return
        try:
            self._cluster.call("DELETE", "/_search/point_in_time", {"pit_id": [self._pit]})
        except ConfigError:
            if error[0] is None:
                raise
        except (RetriableError, FatalError):
            # It expires.
            return

    def _checked_index(self) -> Index:
        name, field = self._source.index, self._source.version_field
        index = self._cluster.index(name)
        if index is None:
            raise ConfigError(f"OpenSearch {self._cluster.name}: source.index: no index {name!r}; correct the name")
        if index.is_data_stream:
            raise ConfigError(f"source.index: {name} is a data stream; name one of its backing indexes")
        kind = field_type(index, field) if field else None
        if field and kind not in VERSION_TYPES:
            raise ConfigError(
                f"source.version_field: {field} is {f'of type {kind}' if kind else 'not mapped'} in index {name}; name "
                f"a field of type {', '.join(VERSION_TYPES)}"
            )
        return index

    def _open_point_in_time(self) -> None:
        params = {"keep_alive": KEEP_ALIVE, "allow_partial_pit_creation": "false"}
        path = f"/{self._source.index}/_search/point_in_time"
        self._pit = self._cluster.call("POST", path, params=params, timeout_s=TIMEOUT_S)["pit_id"]

    def _scan(self, shard: int) -> Iterator[tuple[_Block, str]]:
        """Yield the blocks of a shard with their ETags; raise FatalError unless each document is in one block."""
        blocks = _Blocks(shard, by_value=self._source.version_field is not None)
        read, total = 0, 0
        for page in self._pages(shard, {"_source": False}, counts=True):
            total = page.hits.total.value if page.hits.total else total
            for hit in page.hits.hits:
                read += 1
                if (done := blocks.add(hit)) is not None:
                    yield done
        if (done := blocks.end()) is not None:
            yield done
        if read != total:
            raise FatalError(f"{self._uri}: shard {shard} has {total} documents, but {read} were listed; run again")

    def _documents(self, block: _Block) -> Iterator[bytes]:
        fields = list(self._source.fields)
        condition = self._condition(block)
        exist = [{"exists": {"field": name}} for name in _searchable(self._index, self._source.predictions)]
        if exist:
            complete = {"bool": {"filter": exist, "_name": _COMPLETE}}
            condition = {"bool": {"filter": [condition], "should": [complete]}}
        for page in self._pages(block.shard, {"_source": fields or True}, condition):
            for hit in page.hits.hits:
                yield _line(hit, is_complete=not exist or _COMPLETE in hit.matched)

    def _condition(self, block: _Block) -> dict[str, Any]:
        field = self._source.version_field
        if field and block.start == _MISSING:
            return {"bool": {"must_not": [{"exists": {"field": field}}]}}
        limits: dict[str, Any] = {} if block.start is None else {"gte": block.start}
        limits |= {} if block.end is None or (field and block.end == _MISSING) else {"lt": block.end}
        if field and field_type(self._index, field) == "date":
            limits["format"] = "epoch_millis"
        return {"range": {field or "_seq_no": limits}}

    def _pages(
        self, shard: int, what: dict[str, Any], condition: dict[str, Any] | None = None, *, counts: bool = False
    ) -> Iterator[_Page]:
        """Yield the documents of a shard page by page, in the order of their sort values."""
        body: dict[str, Any] = {**what, "seq_no_primary_term": True, "sort": self._sort, "track_total_hits": counts}
        filters = [each for each in (self._source.query, condition) if each is not None]
        if filters:
            body["query"] = {"bool": {"filter": filters}}
        if self._shards > 1:
            # As many slices as shards: each slice is one shard.
            body["slice"] = {"id": shard, "max": self._shards}
        body["size"] = self._page_documents if counts else min(FIRST_PAGE, self._page_documents)
        while True:
            page, size_bytes = self._search(body)
            yield page
            hits = page.hits.hits
            if len(hits) < body["size"]:
                return
            body |= {"search_after": hits[-1].sort, "track_total_hits": False}
            if not counts:
                fitting = PAGE_BYTES * len(hits) // max(size_bytes, 1)
                body["size"] = max(1, min(fitting, 10 * body["size"], self._page_documents))

    def _search(self, body: dict[str, Any]) -> tuple[_Page, int]:
        """Return a page and the size of the response; a part of the shards is no answer."""
        pit = {"id": self._pit, "keep_alive": KEEP_ALIVE}
        params = {"allow_partial_search_results": "false"}
        try:
            text = self._cluster.text("POST", "/_search", {**body, "pit": pit}, params=params, timeout_s=TIMEOUT_S)
        except NotFound as error:
            raise RetriableError(f"{self._uri}: the point in time has expired; the retry lists it again") from error
        try:
            page = msgspec.json.decode(text, type=_Page)
        except msgspec.MsgspecError as error:
            raise RetriableError(f"{self._uri}: the response to a search is not from OpenSearch ({error})") from error
        self._pit = page.pit_id
        return page, len(text)


class _Blocks:
    """Cuts the documents of a shard, in the order of their sort values, into blocks.

    Blocks of sequence numbers have a fixed width. Blocks of a version field begin at values that a hash chooses, so
    that a document that moves changes two blocks only.
    """

    def __init__(self, shard: int, *, by_value: bool) -> None:
        self._shard = shard
        self._by_value = by_value
        self._start: int | None = None
        self._last: int | None = None
        self._sum, self._count = 0, 0

    def add(self, hit: _Hit) -> tuple[_Block, str] | None:
        """Add a document; return the block before it, if that is complete."""
        value, done = hit.sort[0], None
        start = self._start_of(value)
        if start is not None and start != self._start:
            done = self.end(start)
            self._start = start
        self._last = value
        version = [value] if self._by_value and value != _MISSING else [hit.seq_no, hit.primary_term]
        digest = blake2b(msgspec.json.encode([hit.id, *version]), digest_size=_DIGEST_BYTES).digest()
        # A sum, because documents of one version have no order that lasts.
        self._sum += int.from_bytes(digest)
        self._count += 1
        return done

    def end(self, end: int | None = None) -> tuple[_Block, str] | None:
        """Return the block of the documents since the last one, None if there are none."""
        total, count = self._sum % (1 << 8 * _DIGEST_BYTES), self._count
        self._sum, self._count = 0, 0
        if not self._by_value and self._start is not None:
            end = self._start + BLOCK_NUMBERS
        return (_Block(self._shard, self._start, end), f"{count}-{total:032x}") if count else None

    def _start_of(self, value: int) -> int | None:
        """Return the value at which a new block begins, None if the value belongs to the block so far."""
        if not self._by_value:
            return value - value % BLOCK_NUMBERS
        if value == self._last:
            return None
        chosen = int.from_bytes(blake2b(b"%d" % value, digest_size=8).digest()) % BLOCK_VALUES == 0
        return value if chosen or value == _MISSING else None


def _searchable(index: Index, fields: Sequence[str]) -> list[str]:
    """Return the fields whose existence in a document a query can test."""
    return [
        name
        for name in fields
        if field_type(index, name) is not None
        and not any(field_type(index, parent) == "nested" for parent in _parents(name))
    ]


def _parents(name: str) -> Iterator[str]:
    """Yield the dotted names of the objects that contain a field."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _line(hit: _Hit, *, is_complete: bool) -> bytes:
    """Return a document as a line of JSON; its numbers keep their digits, and line ends between members go."""
    members = bytes(hit.source).strip()[1:-1].replace(b"\n", b" ").replace(b"\r", b" ")
    address = b"".join((b"{", b"" if is_complete else MARK, b'"_id":', msgspec.json.encode(hit.id)))
    if hit.routing is not None:
        address += b',"_routing":' + msgspec.json.encode(hit.routing)
    return b"".join((address, b"," if members.strip() else b"", members, b"}\n"))
