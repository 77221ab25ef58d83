"""The account of a run: the sum of its ingest reports. A run fails unless every record read is accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.manifest import Manifest

# A work item is read once for each sink, so these counts are taken from the report of the first sink only.
_READ = ("read", "unrouted", "dropped", "superseded")
_WRITTEN = ("indexed", "unchanged", "filtered", "nulls", "dead_letters")


class RunCounts(msgspec.Struct, frozen=True):
    """Records `read`, documents `indexed` and `unchanged`, their absent fields (`nulls`), `dead_letters` of all stages.

    Records with the same id become one document; a record that goes to several sinks is written to each of them. An
    ingest pipeline of the index dropped the `filtered` documents. The `unrouted` records matched no route or `when`. A
    processor of the pipeline dropped the `dropped` records.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    nulls: int = 0
    dead_letters: int = 0
    filtered: int = 0
    unrouted: int = 0
    dropped: int = 0

    @classmethod
    def of(cls, total: Counter[str]) -> Self:
        """Return the totals that this type counts."""
        return cls(**{name: total[name] for name in cls.__struct_fields__})


class ShardRunCounts(RunCounts, frozen=True):
    """Counts of a run of shards; the source ranges of `superseded` records were written by a newer run."""

    shards: int = 0
    superseded: int = 0


class RunAccount(msgspec.Struct, frozen=True):
    """The counts of a run, and the locations of its dead letters."""

    pipeline: str
    run_key: str
    counts: RunCounts
    dead_letters: list[str] = []

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

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the event and the text of each alert about a successful run."""
        yield from super().alerts()
        # Some unrouted records are normal: `when` excludes them on purpose.
        if self.all_unrouted:
            unrouted = self.counts.unrouted
            yield "unrouted", f"{unrouted} records unrouted, all of them: ingest.when holds for none; correct it"


def add_up(items: Iterable[Iterable[IngestReport]]) -> tuple[Counter[str], list[str]]:
    """Add up the reports of the sinks of all items; return the counts, and the locations of the dead letters."""
    total, dead_letters = Counter[str](), list[str]()
    for reports in items:
        for number, report in enumerate(reports):
            for name in (*_READ, *_WRITTEN) if number == 0 else _WRITTEN:
                total[name] += getattr(report.counts, name)
            dead_letters += [report.dead_letters] if report.dead_letters else []
    return total, dead_letters


def reconcile(objects: Objects, layout: Layout, manifest: Manifest) -> ShardRunAccount:
    """Add up the counts of prepare and of the ingests of all shards.

    Raises:
        FatalError: a shard has no report, or a record is not accounted for.
    """
    reports = [_report(objects, layout, manifest.run_key, prepared.shard.id) for prepared in manifest.shards]
    prepared, (total, dead_letters) = manifest.counts, add_up([report] for report in reports)
    accounted = sum(report.counts.sources[0].read for report in reports) + prepared.dead_letters
    if accounted != prepared.read:
        raise FatalError(f"{manifest.source}: read {prepared.read} records, but {accounted} are accounted for")
    total["read"], total["shards"] = prepared.read, len(reports)
    total["dead_letters"] += prepared.dead_letters
    return ShardRunAccount(
        manifest.pipeline,
        manifest.run_key,
        counts=ShardRunCounts.of(total),
        dead_letters=[manifest.dead_letters, *dead_letters] if manifest.dead_letters else dead_letters,
        source=manifest.source,
    )


def _report(objects: Objects, layout: Layout, run_key: str, shard: str) -> IngestReport:
    uri = layout.ingest_report(run_key, shard)
    absent = FatalError(f"{uri}: shard {shard} has no report; clear its ingest")
    return JsonDocument(objects, uri, IngestReport).require(absent)
