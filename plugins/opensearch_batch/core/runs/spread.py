"""Prepares a large source by several tasks: some read it, one compares it with the ledger, some stage what changed.

The tasks exchange files below the folder of the run; a file is complete when the JSON document exists that is written
after it. A task does itself what another one has not stored. So a task that is lost costs time, and nothing else.

1. `begin` stores the plan, `split` cuts the objects that changed into splits, and `read` reads one of them.
2. `compare` compares all of them, claims the scope, and cuts what changed into shards.
3. `stage` stages the records of the pieces of one more split, and `finish` completes the run.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.head import ClaimLost, ScopeHead
from opensearch_batch.core.ledger.key_index import column_keys
from opensearch_batch.core.ledger.parquet_files import NewParquetFile, StoredParquetFile
from opensearch_batch.core.ledger.rows import PACK_ROWS
from opensearch_batch.core.runs.comparison import ComparisonResult
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun, pieces_to_stage
from opensearch_batch.core.runs.prepare_options import PreparePlan
from opensearch_batch.core.runs.source_reading import SplitFiles
from opensearch_batch.core.sharding.document_ids import document_ids
from opensearch_batch.core.sharding.splits import MAX_SPLITS, Piece, Split, grouped, split_objects
from opensearch_batch.core.sharding.staging import PieceRecords, StagedRecords
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import ScopeClaim
from opensearch_batch.core.types.object_info import ObjectInfo

if TYPE_CHECKING:
    import pyarrow as pa

# A worker reads this in some seconds, much longer than a task takes to start.
SPLIT_BYTES = 256 << 20
# The remedy in the error of a task that lacks the files of the tasks before it.
_REMEDY = "clear prepare of this run"


class SpreadSettings(msgspec.Struct, frozen=True):
    """How a run is prepared by several tasks.

    A split has about `split_bytes`; there are at most `at_most`. The last task
    needs `is_watched` and `groups_before`.
    """

    split_bytes: int = SPLIT_BYTES
    at_most: int = MAX_SPLITS
    is_watched: bool = False
    groups_before: int = 0


class SpreadPlan(msgspec.Struct, frozen=True):
    """The plan of a run that is prepared by several tasks; `attempt` differs for each run of `prepare`.

    `claim` and `committed` are those of the scope's head when the source was listed.
    """

    plan: PreparePlan
    settings: SpreadSettings
    attempt: str
    claim: ScopeClaim
    committed: int


class SplitSize(msgspec.Struct, frozen=True):
    """The number of a split, and what it has: objects, or ranges of objects, and their bytes."""

    number: int
    pieces: int
    bytes: int

    @staticmethod
    def of(splits: list[Split]) -> list[SplitSize]:
        """Return the sizes of splits."""
        return [
            SplitSize(number, len(pieces), sum(piece.size_bytes for piece in pieces))
            for number, pieces in enumerate(splits)
        ]


_Counted = list[tuple[Piece, int]]


class _Splits(msgspec.Struct, frozen=True):
    splits: list[Split]


class _Comparison(msgspec.Struct, frozen=True):
    """What was found, None if nothing changed; and the pieces to stage, with their numbers of records."""

    compared: ComparisonResult | None
    splits: list[_Counted] = []


def begin(objects: Objects, layout: Layout, preparation: Preparation, settings: SpreadSettings) -> bool:
    """Store the plan of a run for other tasks, if more changed than one split; return False for any other run.

    A dry run, which writes nothing, and a run with a limit are never spread. The sizes of the documents of an index are
    not known, so they count as small.
    """
    plan = preparation.plan
    uri, may_spread = layout.spread_plan(plan.manifest.run_key), not (plan.options.dry_run or plan.options.limit)
    if may_spread and _is_large(plan.listing.objects, settings):
        head = ScopeHead(objects, layout.scope_head(plan.manifest.scope)).load()
        changes = preparation.comparison().changes()
        if changes is not None and _is_large(changes.changed, settings):
            save(objects, uri, SpreadPlan(plan, settings, secrets.token_hex(8), head.claim, head.committed))
            return True
    if not plan.options.dry_run:
        # That of an earlier attempt has an older listing.
        objects.delete(uri)
    return False


def _is_large(items: Iterable[ObjectInfo], settings: SpreadSettings) -> bool:
    return sum(item.size_bytes for item in items) > settings.split_bytes


class Spread:
    """One run that is prepared by several tasks.

    Raises:
        FatalError: the run has no plan.
    """

    def __init__(self, objects: Objects, layout: Layout, run_key: str, adapter_of: AdapterOf) -> None:
        uri = layout.spread_plan(run_key)
        absent = FatalError(f"{uri}: this run was prepared by one task, so there is nothing to split; {_REMEDY}")
        self._begun = stored = JsonDocument(objects, uri, SpreadPlan, remedy=_REMEDY).require(absent)
        self.plan, self.settings = stored.plan, stored.settings
        plan, self._adapter = self.plan, adapter_of(self.plan.manifest.service)
        self._objects, self._layout = objects, layout
        self._folder = f"{uri.rpartition('/')[0]}/{stored.attempt}"
        self._splits = JsonDocument(objects, f"{self._folder}/splits.json", _Splits, indent=-1)
        self._comparison = JsonDocument(objects, f"{self._folder}/compared.json", _Comparison, indent=-1)
        self._preparation = Preparation(
            objects,
            layout,
            plan.listing,
            plan.manifest,
            adapter=self._adapter,
            request=plan.request,
            at_s=plan.at_s,
            options=plan.options,
        )

    def split(self) -> list[SplitSize]:
        """Cut the objects that changed into splits."""
        plan, changes = self.plan, self._preparation.comparison().changes()
        ids = document_ids(plan.request, self._adapter)
        splits = split_objects(
            self._objects,
            changes.changed if changes else [],
            self.settings.split_bytes,
            source_format=plan.options.source_format,
            # The position of a record, which may be its id, is not known in a range.
            has_ranges=ids.id_path is not None and not ids.is_event and not plan.options.passthrough,
            at_most=self.settings.at_most,
        )
        self._splits.write(_Splits(splits))
        return SplitSize.of(splits)

    def read(self, number: int) -> None:
        """Read a split."""
        files = SplitFiles(self._objects, self._folder, number)
        files.write(self._load_splits()[number], self.plan, self._adapter)

    def compare(self) -> list[SplitSize]:
        """Compare the source with the ledger; return the splits to stage.

        Raises:
            ClaimLost: another run has claimed the scope since the source was listed.
        """
        import numpy as np

        self._require_no_other_run()
        files = [SplitFiles(self._objects, self._folder, number) for number in range(len(self._load_splits()))]
        for number, each in enumerate(files):
            if each.load() is None:
                self.read(number)
        stored = [split for each in files if (split := each.load()) is not None]
        result = self._preparation.comparison().run(stored)
        if result is None:
            self._comparison.write(_Comparison(None))
            return []
        content = io.BytesIO()
        np.save(content, result.records.keys[result.cut.payers()], allow_pickle=False)
        content.seek(0)
        self._objects.upload(self._file(result.compared, "payers.npy"), content)
        splits = list[_Counted]()
        groups = grouped(pieces_to_stage(result), lambda each: each.piece.size_bytes, self.settings.split_bytes)
        for number, pieces in enumerate(groups):
            self._write_records(self._file(result.compared, f"stage-{number:05d}.parquet"), pieces)
            splits.append([(each.piece, len(each.lines)) for each in pieces])
        self._comparison.write(_Comparison(result.compared, splits))
        return SplitSize.of([[piece for piece, _ in pieces] for pieces in splits])

    def stage(self, number: int) -> None:
        """Stage the records of a split."""
        comparison = self._load_comparison()
        if comparison.compared is not None:
            self._stage(comparison.compared, comparison.splits[number], number)

    def finish(self) -> PreparedRun | None:
        """Complete the run; return None if nothing changed since the last one. Otherwise as `Preparation.finish`."""
        import numpy as np

        comparison = self._load_comparison()
        if (compared := comparison.compared) is None:
            return None
        staged = [
            self._staged(compared, number).read() or self._stage(compared, pieces, number)
            for number, pieces in enumerate(comparison.splits)
        ]
        stored = self._objects.read(self._file(compared, "payers.npy"))
        if stored is None:
            raise FatalError(f"{self._file(compared, 'payers.npy')}: missing; {_REMEDY}")
        keys = np.load(io.BytesIO(stored.content), allow_pickle=False)
        return self._preparation.finish(compared, keys, staged)

    def _require_no_other_run(self) -> None:
        """Refuse an old listing: objects that another run has read since would count as removed."""
        begun, uri = self._begun, self._layout.scope_head(self.plan.manifest.scope)
        head = ScopeHead(self._objects, uri).load()
        is_own = head.claim.run_key == self.plan.manifest.run_key
        if not self.plan.options.is_trial and (
            head.committed != begun.committed or not (is_own or head.claim == begun.claim)
        ):
            raise ClaimLost(
                f"{uri}: run {head.claim.run_key} has claimed this scope after prepare of this run listed the source; "
                "let it finish, and then clear prepare of this run"
            )

    def _stage(self, compared: ComparisonResult, pieces: _Counted, number: int) -> StagedRecords:
        records = self._read_records(self._file(compared, f"stage-{number:05d}.parquet"), pieces)
        # A late attempt of a task replaces no file of another one.
        suffix = f"-{number:05d}-{secrets.token_hex(4)}"
        staged = self._preparation.stage(compared, records, suffix=suffix)
        self._staged(compared, number).write(staged)
        return staged

    def _load_splits(self) -> list[Split]:
        absent = FatalError(f"{self._splits.uri}: missing, because split has not ended; {_REMEDY}")
        return self._splits.require(absent).splits

    def _load_comparison(self) -> _Comparison:
        absent = FatalError(f"{self._comparison.uri}: missing, because compare has not ended; {_REMEDY}")
        return self._comparison.require(absent)

    def _staged(self, compared: ComparisonResult, number: int) -> JsonDocument[StagedRecords]:
        return JsonDocument(self._objects, self._file(compared, f"staged-{number:05d}.json"), StagedRecords, indent=-1)

    def _file(self, compared: ComparisonResult, name: str) -> str:
        """Return the location of a file of one attempt to compare."""
        return f"{self._folder}/{compared.attempt}/{name}"

    def _write_records(self, uri: str, pieces: list[PieceRecords]) -> None:
        import numpy as np
        import pyarrow as pa

        keys = b"".join(each.keys.tobytes() for each in pieces)
        buffers = [None, pa.py_buffer(keys)]
        columns = [
            pa.array(np.concatenate([each.lines for each in pieces])),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys) // KEY_BYTES, buffers),
            pa.array(np.concatenate([each.numbers for each in pieces])),
            pa.array(np.concatenate([each.pays for each in pieces])),
        ]
        file = NewParquetFile(_records_schema(), "zstd")
        file.write(pa.Table.from_arrays(columns, schema=_records_schema()), group_rows=PACK_ROWS)
        file.upload(self._objects, uri)

    def _read_records(self, uri: str, pieces: _Counted) -> Iterator[PieceRecords]:
        import numpy as np

        file = StoredParquetFile(self._objects, uri, f"the records to stage are {{}}; {_REMEDY}")
        groups = (file.read(*_records_schema().names, group=group) for group in range(len(file.group_rows)))
        parts = [
            (lines.to_numpy(), column_keys(keys), numbers.to_numpy(), pays.to_numpy())
            for lines, keys, numbers, pays in groups
        ]
        columns, end = [*map(np.concatenate, zip(*parts, strict=True))], 0
        for piece, count in pieces:
            start, end = end, end + count
            yield PieceRecords(piece, *(column[start:end] for column in columns))


def _records_schema() -> pa.Schema:
    """Return the columns of the records to stage, piece by piece."""
    import pyarrow as pa

    types = [("line", pa.uint32()), ("key", pa.binary(KEY_BYTES)), ("number", pa.int32()), ("pays", pa.int32())]
    return pa.schema(types)
