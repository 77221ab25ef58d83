"""The account of a whole run: every record that was read is in the index, or a dead letter, or the run fails."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ingest.report import IngestReport
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest


class RunCounts(msgspec.Struct, frozen=True):
    """Records `read`, documents `indexed` and found `unchanged`, `dead_letters` of all stages.

    Records with the same id make one document. Of those that a pipeline's own rules keep out of the index, `unrouted`
    ones are those for which its `when` does not hold, and `dropped` ones were dropped by a processor. `superseded` ones
    are those whose place in the source a newer run has, which brings in what became of them.
    """

    read: int = 0
    indexed: int = 0
    unchanged: int = 0
    dead_letters: int = 0
    shards: int = 0
    unrouted: int = 0
    dropped: int = 0
    superseded: int = 0


class RunAccount(msgspec.Struct, frozen=True):
    """What became of a run, and the locations of its dead letters."""

    pipeline: str
    run_key: str
    source: str
    counts: RunCounts
    dead_letters: list[str] = []

    def __str__(self) -> str:
        return f"{self.source}: {self.counts}"

    def alerts(self) -> Iterator[tuple[str, str]]:
        """Yield the alerts about a run that ended well: event and text."""
        counts = self.counts
        if counts.dead_letters:
            letters = ", ".join(self.dead_letters)
            yield "dead_letters", f"{counts.dead_letters} dead letters of {counts.read} records: {letters}"
        # A few unrouted records are what `when` is for.
        if counts.unrouted and counts.unrouted == counts.read:
            yield "unrouted", f"{counts.unrouted} records unrouted, all of them: ingest.when holds for none; correct it"


def reconcile(objects: Objects, layout: Layout, manifest: Manifest) -> RunAccount:
    """Add up what prepare and the ingests of all shards counted.

    Raises:
        FatalError: a shard has no account, or a record is in none.
    """
    reports = [_report(objects, layout, manifest.run_key, prepared.shard.id) for prepared in manifest.shards]
    counts = [report.counts for report in reports]
    total = RunCounts(
        manifest.counts.read,
        sum(each.indexed for each in counts),
        sum(each.unchanged for each in counts),
        sum(each.dead_letters for each in counts) + manifest.counts.dead_letters,
        len(reports),
        sum(each.unrouted for each in counts),
        sum(each.dropped for each in counts),
        sum(each.superseded for each in counts),
    )
    verdicts = sum(each.sources[0].read for each in counts) + manifest.counts.dead_letters
    if verdicts != total.read:
        raise FatalError(f"{manifest.source}: read {total.read} records, but {verdicts} are accounted for")
    queues = [manifest.dead_letters, *(report.dead_letters for report in reports)]
    return RunAccount(manifest.pipeline, manifest.run_key, manifest.source, total, [queue for queue in queues if queue])


def _report(objects: Objects, layout: Layout, run_key: str, shard: str) -> IngestReport:
    uri = layout.ingest_report(run_key, shard)
    absent = FatalError(f"{uri}: shard {shard} has no account; clear its ingest")
    return JsonDocument(objects, uri, IngestReport).require(absent)
