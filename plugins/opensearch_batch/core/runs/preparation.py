"""Preparation of a run: finds what changed in a source, and stages it.

1. The records of the objects that changed are read as rows of the ledger (`source_reading`).
2. They are compared with the rows of the last run. The run claims its scope, writes its pending rows, and cuts what
   changed into shards (`comparison`).
3. The objects are read again, and the records that changed are staged (`core.sharding.staging`).
4. The prediction store reserves the content keys that the run pays for, and the manifest is complete
   (`core.sharding.reservation`).

`Preparation.run` does all of it in one process; with `core.runs.spread`, several tasks share the steps 1 and 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import check_passthrough
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.head import RunLedger
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.runs.comparison import ComparedSource, Comparison, ComparisonResult
from opensearch_batch.core.runs.prepare_options import PrepareOptions, PreparePlan
from opensearch_batch.core.runs.source_reading import record_reader
from opensearch_batch.core.sharding.cut import NONE
from opensearch_batch.core.sharding.document_ids import unknown_id_reason
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.sharding.passthrough import check_input_names
from opensearch_batch.core.sharding.reservation import Reservation
from opensearch_batch.core.sharding.splits import Piece
from opensearch_batch.core.sharding.staging import PieceRecords, StagedRecords, Staging, StagingOptions
from opensearch_batch.core.storage.dead_letters import DeadLetter, DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest

if TYPE_CHECKING:
    from opensearch_batch.core.ledger.key_index import Keys


class PreparedRun(NamedTuple):
    """The manifest of a run, and what it will commit to the ledger; the first dead letters of a dry run."""

    manifest: Manifest
    ledger: RunLedger
    samples: list[DeadLetter]


class Preparation:
    """Prepares one run; the arguments are those of a `PreparePlan`."""

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        listing: Listing,
        manifest: Manifest,
        *,
        adapter: ServiceAdapter,
        request: IngestRequest,
        at_s: float,
        options: PrepareOptions,
    ) -> None:
        reason = unknown_id_reason(request, adapter)
        for name, is_set in (("on_removed: delete", options.on_removed == "delete"), ("deleted", options.deleted)):
            if reason and is_set:
                raise ConfigError(f"source.{name} needs the id of each document in its record, but {reason}")
        if options.passthrough:
            if options.limit:
                raise ConfigError("source.prepare is false: objects are sent unchanged, so max_records cannot cut them")
            check_passthrough(adapter, manifest.parameters)
            check_input_names(listing.objects)
        self.plan = PreparePlan(manifest=manifest, listing=listing, request=request, at_s=at_s, options=options)
        self._objects, self._layout = objects, layout
        self._adapter = adapter
        self._limits = self.plan.limits(adapter)

    def comparison(self) -> Comparison:
        """Return the comparison of the source with the ledger."""
        return Comparison(self._objects, self._layout, self.plan, self._adapter)

    def run(self) -> PreparedRun | None:
        """Prepare the run; return None if nothing changed since the last one.

        Raises:
            ConfigError: too many documents would be deleted, an object is not a valid job input, or the records are too
                few for a job.
            FatalError: too many records are dead letters, or an object is damaged.
            RetriableError: another run changed the ledger meanwhile.
        """
        result = self.comparison().run()
        if result is None:
            return None
        staged = self.stage(result.compared, pieces_to_stage(result))
        prepared = self.finish(result.compared, result.records.keys[result.cut.payers()], [staged])
        return prepared._replace(samples=result.samples)

    def stage(self, compared: ComparisonResult, pieces: Iterable[PieceRecords], *, suffix: str = "") -> StagedRecords:
        """Stage the records of pieces."""
        run_key, options = self.plan.manifest.run_key, self._staging_options(compared, suffix)
        staging = Staging(self._objects, self._layout, run_key, shards=compared.shards, options=options)
        with DeadLetters(self._objects, self._layout.dead_letters(run_key, "prepare")) as dead:
            return staging.run(record_reader(self.plan, self._adapter, dead), pieces)

    def finish(self, compared: ComparisonResult, keys: Keys, staged: Sequence[StagedRecords]) -> PreparedRun:
        """Reserve the `keys` to pay for, and complete the manifest.

        Raises:
            ConfigError: the source is new, and its records are too few for a job.
        """
        options, plan = self.plan.options, self.plan
        reservation = Reservation(
            self._objects,
            self._layout,
            plan.manifest.run_key,
            shards=compared.shards,
            keys=keys,
            staged=staged,
            options=self._staging_options(compared, ""),
            limits=self._limits,
            open_jobs=plan.open_jobs(self._objects, self._layout, self._adapter),
        )
        reservation.run(PredictionStore(self._objects, plan.manifest.predictions), force=options.force)
        shards = [*reservation.shards(), *([compared.deletions] if compared.deletions else [])]
        lost = [each for part in staged for each in part.lost]
        too_few = compared.too_few + len(reservation.waiting)
        left = [*compared.left, *lost, *reservation.left, *reservation.waiting]
        paid = sum(len(each.keys) for each in reservation.new) // KEY_BYTES
        manifest = msgspec.structs.replace(
            plan.manifest,
            counts=msgspec.structs.replace(compared.counts, paid=paid, waiting=len(left)),
            shards=shards,
            dead_letters=compared.dead_letters,
            reasons=compared.reasons,
            claim=compared.claim,
            version=compared.version,
            attempt=compared.attempt,
            pays=not options.rebuild,
            remarks=[
                *compared.remarks,
                *reservation.dropped,
                *self._remarks(compared, too_few=too_few, others=len(left) - too_few, has_shards=bool(shards)),
            ],
        )
        return PreparedRun(manifest, _run_ledger(compared, left), [])

    def _staging_options(self, compared: ComparisonResult, suffix: str) -> StagingOptions:
        manifest = self.plan.manifest
        return StagingOptions(
            self._adapter.request_line(manifest.parameters, manifest.inputs),
            job_keys(self._adapter, manifest.parameters, manifest.inputs),
            writes=not self.plan.options.dry_run,
            suffix=f"-{compared.claim.version if compared.claim else 0}{suffix}",
        )

    def _remarks(self, compared: ComparisonResult, *, too_few: int, others: int, has_shards: bool) -> Iterator[str]:
        """Yield remarks on the records that were not staged."""
        least, problem = self._limits.min_records, self.plan.options.realtime.problem
        problem = problem and f", and fewer cannot be predicted in real time: {problem}"
        if too_few and compared.is_new and not has_shards:
            raise ConfigError(
                f"the source has {too_few} records, but a job of the service needs at least {least}{problem}; wait "
                "for more documents, or choose another service"
            )
        if too_few:
            name = self._adapter.name
            cause = f"a job of {name} has at least {least} records{problem}"
            yield f"{too_few:,} records wait for a later run, because {cause}"
        if compared.changed:
            yield f"{len(compared.changed):,} objects changed while this run listed them: {compared.changed[0]}"
        if others:
            is_rebuild = self.plan.options.rebuild
            cause = "their predictions are not in the store" if is_rebuild else "their objects changed"
            yield f"{others:,} records are left to the next run, because {cause}"


def pieces_to_stage(compared: ComparedSource) -> Iterator[PieceRecords]:
    """Yield the records to stage, piece by piece; an object that was not compared because it did not change is one."""
    import numpy as np

    records, cut = compared.records, compared.cut
    is_needed = (cut.numbers != NONE) | (cut.pays != NONE)
    for item, start, end in zip(records.objects, records.starts.tolist(), records.starts[1:].tolist(), strict=False):
        pieces = compared.pieces.get(item.uri) or [Piece(item)]
        before = [piece.lines_before for piece in pieces]
        edges = start + np.searchsorted(records.lines[start:end], before, side="right")
        for piece, first, last in zip(pieces, edges.tolist(), [*edges[1:].tolist(), end], strict=True):
            at = first + np.flatnonzero(is_needed[first:last])
            if len(at):
                yield PieceRecords(piece, records.lines[at], records.keys[at], cut.numbers[at], cut.pays[at])


def _run_ledger(compared: ComparisonResult, left: Sequence[tuple[str, int]]) -> RunLedger:
    """Return what the run will commit. Objects are unread if none of their new and changed records is staged."""
    if compared.claim is None:
        return RunLedger(removed=compared.removed)
    counts = Counter(uri for uri, _ in left)
    gone = {uri for uri, count in counts.items() if count == compared.records[uri]}
    unread = list(dict.fromkeys((*compared.changed, *gone)))
    waiting = [each for each in left if each[0] not in gone]
    entries = {
        uri: msgspec.structs.replace(entry, etag="") if uri in counts or uri in compared.changed else entry
        for uri, entry in compared.entries.items()
    }
    return RunLedger(entries, removed=compared.removed, unread=unread, waiting=waiting)
