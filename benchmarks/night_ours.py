"""Nights of one pipeline by the code of its stages: prepare, ingest and commit, as the DAG calls them.

One process of the benchmark `incremental`. The service and the index are stubs (`benchmarks/night_service.py`), and
the seconds of the service are not counted. Source and work prefix are below one folder.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import orjson
import pyarrow.parquet  # noqa: F401 - loaded before the clock starts, as the rival's modules are

from benchmarks import night_source, rows
from benchmarks.client import Job, serve
from benchmarks.night_service import FIELD, INDEX, INDEX_BODY, PARAMETERS, AnyIndex, AnyService, vectors_of
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.commit import announce, commit
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.opensearch.client import address_of, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun
from opensearch_batch.core.runs.prepare_options import PrepareOptions, fingerprint_of, scope_of
from opensearch_batch.core.runs.retention import Retention
from opensearch_batch.core.runs.run_account import reconcile, shard_reports, written_shards
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.services.registry import adapter_of

SOURCE, WORK, INPUTS = "s3://lake/in/", "s3://lake/work", ("$.text",)
FIELD_MAP = {"_id": "$._id", "title": "$.title", "text": "$.text", FIELD: "prediction"}
# Where local files keep objects of that location.
SOURCE_FOLDER = "s3:/lake/in"
SHARD_RECORDS, SHARD_BYTES = 10_000, 100_000_000
DAY_S, FIRST_S, YEAR, WEEK = 86_400.0, 1_767_225_600.0, 365, 7
RETENTION_S = 30 * DAY_S
# A number that no record of a source has.
FREE = 900_000_000
PHASES = ("listing", "prepare", "service", "ingest", "commit", "retention")


class Nights:
    """The runs of one pipeline over a store; `clock` is the time for retention, `mode` what absence means."""

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster | None = None,
        *,
        vectors: int = rows.TEMPLATES,
        clock: Callable[[], float] = time.time,
        mode: Mode = "snapshot",
    ) -> None:
        self.objects = objects
        self.index = cluster or AnyIndex()
        self.service = AnyService(self.objects, vectors=vectors)
        self.layout = Layout(WORK, "bench")
        self.wall_us, self.cpu_us = Counter[str](), Counter[str]()
        self._adapter = adapter_of("sagemaker")
        self._request = IngestRequest(INDEX, FIELD_MAP)
        self._clock = clock
        self._mode: Mode = mode

    def run(self, at_s: float, *, source: str = SOURCE, rebuild: bool = False) -> Counter[str]:
        """Run once; return the counts of prepare, or nothing if nothing changed."""
        prepared = self._prepare(at_s, source, rebuild=rebuild)
        if prepared is None:
            return Counter()
        self.ingest(prepared.manifest, prepared.manifest.shards)
        self.end(prepared.manifest)
        return Counter(msgspec.structs.asdict(prepared.manifest.counts))

    def ingest(self, manifest: Manifest, shards: Sequence[Shard]) -> None:
        """Run the jobs of shards, and write their documents."""
        for shard in shards:
            with self.phase("service"):
                output = self.service.output(self.layout, shard) if shard.job else None
                if output is not None:
                    self._record(shard)
            with self.phase("ingest"):
                self._ingest(manifest).run(shard, output)
            for uri in output.uris if output else ():
                self.objects.delete(uri)

    def end(self, manifest: Manifest) -> None:
        """Commit a run, and delete what is not needed any more."""
        with self.phase("commit"):
            shards = written_shards(self.objects, self.layout, manifest)
            account = reconcile(self.objects, self.layout, manifest, shards, now=time.time())
            reports = shard_reports(self.objects, self.layout, manifest, shards)
            exceptions = (each for _, report in reports for each in report.verdicts.exceptions)
            commit(self.objects, self.layout, manifest, exceptions)
            save(self.objects, self.layout.run_account(manifest.run_key), account)
        with self.phase("retention"):
            Retention(
                self.objects,
                self.layout,
                PredictionStore(self.objects, manifest.predictions, clock=self._clock),
                outputs=lambda *_: [],
                unstage=lambda _: None,
            ).run(RETENTION_S, now=self._clock())

    def refresh(self) -> None:
        """Make all documents searchable, as a part of the ingest."""
        with self.phase("ingest"):
            self.index.refresh(INDEX)

    def measured(self, counts: Counter[str]) -> dict[str, int]:
        """Return what this process measured: records that were read, what they cost, and the time of each phase."""
        operations = self.index.operations if isinstance(self.index, AnyIndex) else 0
        times = {f"{name}_us": self.wall_us[name] for name in PHASES}
        times |= {f"{name}_cpu_us": self.cpu_us[name] for name in PHASES}
        head = {"records": counts["read"], "paid": self.service.paid, "operations": operations}
        return {**head, "opened": counts["opened"], **times}

    def _record(self, shard: Shard) -> None:
        """Record that the job of a shard ended."""
        folder, now = self.layout.job(shard.job), self._clock()
        job = JobRecord(shard.job, "n", self._adapter.name, "m", shard.input, f"{folder}/output/1/", now)
        job = msgspec.structs.replace(job, pipeline=self.layout.pipeline, ml_task_id="t", end=End("COMPLETED", now))
        save(self.objects, JobRecords(self.objects, folder).uri, job)

    def _prepare(self, at_s: float, source: str, *, rebuild: bool) -> PreparedRun | None:
        preparation = self.preparation(at_s, source, rebuild=rebuild)
        with self.phase("prepare"):
            prepared = preparation.run()
            if prepared is not None:
                announce(self.objects, self.layout, prepared.manifest, prepared.ledger)
        return prepared

    def preparation(self, at_s: float, source: str = SOURCE, *, rebuild: bool = False) -> Preparation:
        """List the source; return the preparation of a run."""
        with self.phase("listing"):
            listing = list_source(self.objects, source)
        with self.phase("prepare"):
            options = PrepareOptions(
                mode=self._mode,
                on_removed="delete",
                max_records=SHARD_RECORDS,
                max_bytes=SHARD_BYTES,
                rebuild=rebuild,
            )
            return Preparation(
                self.objects,
                self.layout,
                listing,
                self._manifest(f"run-{at_s:.0f}", source, options),
                adapter=self._adapter,
                request=self._request,
                at_s=at_s,
                options=options,
            )

    def _manifest(self, run_key: str, source: str, options: PrepareOptions) -> Manifest:
        index = self.index.index(INDEX)
        return Manifest(
            pipeline=self.layout.pipeline,
            run_key=run_key,
            source=source,
            scope=scope_of(source, (), ()),
            service=self._adapter.name,
            model_id="m",
            index=INDEX,
            index_uuid=index.uuid if index else "",
            fingerprint=fingerprint_of(
                self._request,
                self._adapter,
                PARAMETERS,
                INPUTS,
                objects=self.objects,
                index_body=INDEX_BODY,
                options=options,
            ),
            vectors=list(index.vectors) if index else [],
            parameters=PARAMETERS,
            inputs=INPUTS,
            predictions=self.layout.predictions(),
        )

    def _ingest(self, manifest: Manifest) -> StagedIngest:
        return StagedIngest(
            self.objects,
            self.index,
            layout=self.layout,
            manifest=manifest,
            adapter=self._adapter,
            request=self._request,
        )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began, cpu_began = time.perf_counter_ns(), time.process_time_ns()
        yield
        self.wall_us[name] += (time.perf_counter_ns() - began) // 1000
        self.cpu_us[name] += (time.process_time_ns() - cpu_began) // 1000


class FolderNights(Nights):
    """The runs of one pipeline below a folder."""

    def __init__(self, folder: Path, cluster: Cluster | None = None, *, vectors: int = rows.TEMPLATES) -> None:
        super().__init__(LocalFiles(folder), cluster, vectors=vectors)
        self.folder = folder / SOURCE_FOLDER


def one_night(nights: Nights, number: int) -> dict[str, int]:
    """Run one night over the source as it is."""
    return nights.measured(nights.run(FIRST_S + number * DAY_S))


def rebuilt(nights: Nights, number: int) -> dict[str, int]:
    """Write every document again from the store, then only convert as many vectors to text."""
    counts = nights.run(FIRST_S + number * DAY_S, rebuild=True)
    vectors = counts["read"] // rows.TEMPLATES * rows.TEMPLATES
    return {**nights.measured(counts), "vectors": vectors, "text_cpu_us": vectors_to_text(vectors)}


def vectors_to_text(count: int) -> int:
    """Convert so many vectors of 32-bit floats to JSON text, and nothing else; return the processor time."""
    dumps, frombuffer, kind, option = orjson.dumps, np.frombuffer, np.dtype("<f4"), orjson.OPT_SERIALIZE_NUMPY
    vectors = [np.array(each, kind).tobytes() for each in vectors_of(count=rows.TEMPLATES)]
    began = time.process_time_ns()
    for _ in range(count // len(vectors)):
        for vector in vectors:
            dumps(frombuffer(vector, kind), option=option)
    return (time.process_time_ns() - began) // 1000


def four_changes(nights: FolderNights, number: int) -> dict[str, int]:
    """Append a record, insert one on top, edit one, and delete one, with a night after each."""
    changes: list[Callable[[Path], None]] = [
        lambda folder: night_source.append(folder, FREE),
        lambda folder: night_source.insert_on_top(folder, FREE + 1),
        night_source.edit_one,
        night_source.delete_first,
    ]
    found: dict[str, int] = {}
    paid = operations = 0
    for at, change in enumerate(changes):
        change(nights.folder)
        nights.run(FIRST_S + (number + at) * DAY_S)
        now = nights.measured(Counter())
        found |= {f"paid_{at}": now["paid"] - paid, f"operations_{at}": now["operations"] - operations}
        paid, operations = now["paid"], now["operations"]
    return {"nights": len(changes), **found}


def a_year(nights: FolderNights, number: int, days: int = YEAR) -> dict[str, int]:
    """Add an object with new records each night."""
    new = night_source.NEW_A_NIGHT
    for night in range(days):
        night_source.add_object(nights.folder, f"{night:03d}.jsonl", night * new, new)
        nights.run(FIRST_S + (number + night) * DAY_S)
    return {"nights": days, **nights.measured(Counter())}


def a_week(nights: FolderNights, number: int) -> dict[str, int]:
    """Add an object with new records each night of a week."""
    return a_year(nights, number, WEEK)


def loaded(nights: Nights, number: int) -> dict[str, int]:
    """Run one night, and refresh the index."""
    counts = nights.run(FIRST_S + number * DAY_S)
    nights.refresh()
    return nights.measured(counts)


NIGHTS: list[Callable[[FolderNights, int], dict[str, int]]] = [one_night, rebuilt, four_changes, a_year, a_week, loaded]


def work(job: Job) -> Callable[[], dict[str, int]]:
    """Run `job.options["night"]`, an index in `NIGHTS`, below `job.rows`; `number` is the day of the first run."""
    cluster = Cluster(opensearch_client(address_of(job.url)), job.url) if job.url else None
    nights = FolderNights(Path(job.rows), cluster, vectors=job.options.get("vectors", rows.TEMPLATES))
    night = NIGHTS[job.options["night"]]
    return lambda: night(nights, job.options["number"])


if __name__ == "__main__":
    serve(work)
