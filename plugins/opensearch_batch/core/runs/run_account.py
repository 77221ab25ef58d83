"""The account of a run: the sum of its ingest reports. A run fails unless every record read is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger.verdicts import ShardReport
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.letter_reasons import LetterReason, add_up_reasons
from opensearch_batch.core.types.manifest import DELETIONS, Manifest, Shard
from opensearch_batch.core.types.throughput import Throughput

# The intervals that a run keeps of its throughput.
MAX_RUN_INTERVALS = 120

# A work item is read once for each sink, so these counts are taken from the report of the first sink only.
_READ = ("read", "unrouted", "dropped", "superseded", "waiting", "joined")
_WRITTEN = ("indexed", "unchanged", "filtered", "nulls", "dead_letters")


class RunCounts(msgspec.Struct, frozen=True):
    """Records `read`, documents `indexed` and `unchanged`, their absent fields (`nulls`), `dead_letters` of all stages.

    Records with the same id become one document; a record that goes to several sinks is written to each of them. An
    ingest pipeline of the index dropped the `filtered` documents. The `unrouted` records matched no route or `when`. A
    processor of the pipeline dropped the `dropped` records. The `joined` rows of a request with several sources are
    part of another row's document.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    nulls: int = 0
    dead_letters: int = 0
    filtered: int = 0
    unrouted: int = 0
    dropped: int = 0
    joined: int = 0

    @classmethod
    def of(cls, total: Counter[str]) -> Self:
        """Return the counts of this type; names that it does not have are ignored."""
        return cls(**{name: total[name] for name in cls.__struct_fields__})


class ShardRunCounts(RunCounts, frozen=True):
    """Counts of a run of a source. Only the `opened` ones of its `objects` were read.

    ``read == indexed + unchanged + duplicates + tombstones + superseded + filtered + unrouted + dropped + dead_letters
    + waiting``. Another record with the same id wins over each of the `duplicates`; `tombstones` delete their document;
    a newer run wrote the documents of `superseded` records; `waiting` records are left to the next run.
    ``before == kept + removed`` counts documents of earlier runs; `deleted` documents were deleted from the index.
    `paid` records had no prediction in the store.
    """

    objects: int = 0
    opened: int = 0
    shards: int = 0
    duplicates: int = 0
    tombstones: int = 0
    superseded: int = 0
    waiting: int = 0
    before: int = 0
    kept: int = 0
    removed: int = 0
    deleted: int = 0
    paid: int = 0

    def reconcile(self, location: str) -> None:
        """Check that every record that was read, and every earlier document, is counted exactly once.

        Args:
            location: the beginning of the error message.

        Raises:
            FatalError: a sum is wrong.
        """
        accounted = self.indexed + self.unchanged + self.duplicates + self.tombstones + self.superseded
        accounted += self.filtered + self.unrouted + self.dropped + self.dead_letters + self.waiting
        if self.read != accounted:
            raise FatalError(f"{location}: read {self.read} records, but {accounted} are accounted for")
        if self.before != self.kept + self.removed:
            raise FatalError(
                f"{location}: there were {self.before} documents, but {self.kept} are kept and {self.removed} removed"
            )


class ShardOutcome(msgspec.Struct, frozen=True, array_like=True):
    """Counts of the records of a shard, or of the rows of a work item, by outcome; `read` were read by its ingest.

    The times of its ingest are epoch seconds, 0 if they are unknown.
    """

    id: str
    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    unanswered: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0


class RunAccount(msgspec.Struct, frozen=True):
    """The counts of a run, and the locations of its dead letters.

    It adds up the reports; `shards` has the counts of each shard. It was made at `ended_at` (epoch seconds) for an
    `attempt` of `prepare`.
    """

    pipeline: str
    run_key: str
    counts: RunCounts
    dead_letters: list[str] = []
    ended_at: float = 0.0
    attempt: str = ""
    reasons: list[LetterReason] = []
    throughput: Throughput = Throughput()
    shards: list[ShardOutcome] = []

    @property
    def all_unrouted(self) -> bool:
        """Whether records were read, and all of them are unrouted."""
        return 0 < self.counts.read == self.counts.unrouted

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the event and the text of each alert about a run."""
        if self.counts.dead_letters:
            letters = ", ".join(self.dead_letters)
            yield "dead_letters", f"{self.counts.dead_letters} dead letters of {self.counts.read} records: {letters}"


class ShardRunAccount(RunAccount, frozen=True, kw_only=True):
    """The account of a run of shards of a source."""

    source: str
    counts: ShardRunCounts
    remarks: list[str] = []

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the event and the text of each alert about a successful run."""
        yield from super().alerts()
        # `when` may exclude all records of one new object on purpose, so alert only if every object was read.
        if self.all_unrouted and self.counts.opened == self.counts.objects:
            unrouted = self.counts.unrouted
            yield "unrouted", f"all {unrouted} records are unrouted, because ingest.when is true for none; correct it"


class Total:
    """The sum of the reports of the shards, or work items, of a run."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.dead_letters: list[str] = []
        self.shards: list[ShardOutcome] = []
        self._reports: list[IngestReport] = []

    @property
    def reasons(self) -> list[LetterReason]:
        """The reasons of the dead letters."""
        return add_up_reasons(each for report in self._reports for each in report.reasons)

    @property
    def throughput(self) -> Throughput:
        """The throughput of all items together."""
        return Throughput.total((each.throughput for each in self._reports), at_most=MAX_RUN_INTERVALS)

    @property
    def unanswered(self) -> int:
        """The number of records that are left to `repair`."""
        return sum(shard.unanswered for shard in self.shards)

    def add(self, id_: str, reports: Sequence[IngestReport], *, unanswered: int = 0) -> None:
        """Add the reports of one item, one for each sink."""
        counts = Counter[str]()
        for number, report in enumerate(reports):
            for name in (*_READ, *_WRITTEN) if number == 0 else _WRITTEN:
                counts[name] += getattr(report.counts, name)
            self.dead_letters += [report.dead_letters] if report.dead_letters else []
        self.counts.update(counts)
        self._reports += reports
        self.shards.append(
            ShardOutcome(
                id_,
                counts["read"],
                counts["indexed"],
                counts["unchanged"],
                counts["dead_letters"],
                unanswered,
                started_at=min((report.started_at for report in reports), default=0.0),
                ended_at=max((report.ended_at for report in reports), default=0.0),
            )
        )


def shard_reports(
    objects: Objects, layout: Layout, manifest: Manifest, shards: Iterable[Shard]
) -> Iterator[tuple[Shard, ShardReport]]:
    """Yield the shards of a run with the reports of their ingests.

    Raises:
        FatalError: a report is missing, does not count all staged records, or belongs to an earlier prepare.
    """
    for shard in shards:
        uri = layout.ingest_report(manifest.run_key, shard.id)
        absent = FatalError(f"{uri}: shard {shard.id} has no report; clear its ingest")
        report = JsonDocument(objects, uri, ShardReport).require(absent)
        if report.verdicts.shard_digest != manifest.shard_digest(shard):
            raise FatalError(f"{uri}: the report of shard {shard.id} belongs to an earlier prepare; clear its ingest")
        verdicts = report.counts.read + report.verdicts.unanswered
        if verdicts != shard.documents:
            raise FatalError(f"{uri}: {shard.documents} records were staged, but {verdicts} have a verdict")
        yield shard, report


def written_shards(objects: Objects, layout: Layout, manifest: Manifest, repaired: Sequence[Shard] = ()) -> list[Shard]:
    """Return the shards whose reports together have a verdict for each staged record.

    `repaired` are the shards that `repair` returned; they are ignored if no shard has unanswered records.

    Raises:
        FatalError: a shard has no report, or records without a prediction were not repaired.
    """
    reports = shard_reports(objects, layout, manifest, manifest.shards)
    unanswered = sum(report.verdicts.unanswered for _, report in reports)
    if unanswered and unanswered != sum(shard.documents for shard in repaired):
        raise FatalError(
            f"{manifest.source}: {unanswered} records have no prediction and were not repaired; clear repair"
        )
    return [*manifest.shards, *(repaired if unanswered else ())]


def reconcile(
    objects: Objects, layout: Layout, manifest: Manifest, shards: Iterable[Shard], *, now: float
) -> ShardRunAccount:
    """Add up the counts of prepare and of the ingests of all shards, which `written_shards` returns, at a time.

    Raises:
        FatalError: a record is not accounted for.
    """
    written, deleted, prepared = Total(), Total(), manifest.counts
    prepared.reconcile(manifest.source)
    for shard, report in shard_reports(objects, layout, manifest, shards):
        part = deleted if shard.id == DELETIONS else written
        part.add(shard.id, [report], unanswered=report.verdicts.unanswered)
    # `prepared.read` excludes the `promoted` records, which were read from objects that did not change.
    written.counts["read"] = prepared.read + prepared.promoted
    total = Counter(deleted=deleted.counts["indexed"])
    total.update(
        written.counts,
        unchanged=prepared.unchanged,
        duplicates=prepared.duplicate,
        tombstones=prepared.tombstone,
        dead_letters=prepared.dead_letters,
        shards=len(manifest.shards),
        **{
            name: getattr(prepared, name)
            for name in ("objects", "opened", "waiting", "before", "kept", "removed", "paid")
        },
    )
    counts = ShardRunCounts.of(total)
    counts.reconcile(manifest.source)
    return ShardRunAccount(
        manifest.pipeline,
        manifest.run_key,
        counts=counts,
        dead_letters=[*([manifest.dead_letters] if manifest.dead_letters else []), *written.dead_letters],
        ended_at=now,
        attempt=manifest.attempt,
        reasons=add_up_reasons([*manifest.reasons, *written.reasons]),
        throughput=written.throughput,
        shards=[*written.shards, *deleted.shards],
        source=manifest.source,
        remarks=manifest.remarks,
    )
