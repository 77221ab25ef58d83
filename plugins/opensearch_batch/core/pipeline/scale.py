"""Plans a run that is too large to be tried: tasks, hours, requests, bytes, jobs and cost for any number of records.

The plan is arithmetic over assumptions, which a person replaces by measurements of their own. The defaults for the
processor time, the requests and the bytes are those that `python -m benchmarks scale` prints; docs/explanation/scale.md
names the machine. Changed records count as spread over all objects, so a run opens each object.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.yaml_file import YamlFile, split_message

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
HOUR_S, GB, MILLION = 3_600.0, 1e9, 1e6
# Our part of a run may take this share of the time that the service takes.
SHARE = 0.1
MAX_CORES = 1_000_000
# A float in a service's output is text.
FLOAT_BYTES, TEXT_TO_FLOAT = 4, 3


class SourceAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The objects: bytes of a record and of an object, and `source.split_bytes`."""

    record_bytes: Positive = 300
    object_bytes: Positive = 3e9
    split_bytes: Positive = 256 * 2**20


class ShardAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`shard.max_records`; and floats of a vector."""

    max_records: Count = 50_000
    floats: Count = 384


class CpuAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Processor time of one core for each record, in µs; for each task its start, in seconds, with Airflow's own part.

    `read` and `stage` of a record of the source, and `ingest` of a changed one, are shared by all cores. `compare`,
    `reserve` and `commit` of a record of the source are one process each.
    """

    read: Positive = 7.5
    compare: Positive = 3.5
    stage: Positive = 17.1
    reserve: Positive = 0.5
    ingest: Positive = 204.0
    commit: Positive = 2.9
    task_s: NotNegative = 4.0


class WorkerAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machines that run tasks; `compare_bytes` is what `compare` holds in memory for each changed record."""

    count: Count = 10
    cores: Count = 4
    compare_bytes: Positive = 290


class ClusterAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Documents that the whole cluster indexes in a second."""

    documents_per_s: Positive = 20_000


class ServiceAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records that all its jobs predict in a second, and how many of them run at once.

    The price is `cost_per_hour` of all of them or `cost_per_million_records`; None is unknown.
    """

    records_per_s: Positive = 19_841
    jobs_at_once: Count = 100
    cost_per_hour: NotNegative | None = None
    cost_per_million_records: NotNegative | None = None

    def __post_init__(self) -> None:
        """Refuse two prices for the same records."""
        if self.cost_per_hour is not None and self.cost_per_million_records is not None:
            raise ValueError("cost_per_hour and cost_per_million_records are both set; a service has one of them")


class StorageAssumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests and bytes of the work prefix; a price of None is unknown.

    `puts_a_shard`, `gets_a_shard`, `puts_an_object` and `gets_an_object` count requests of one run. A ledger row has
    `ledger_bytes` a record; a file is read in parts of `part_bytes`.
    """

    puts_a_shard: NotNegative = 25
    gets_a_shard: NotNegative = 42
    puts_an_object: NotNegative = 1
    gets_an_object: NotNegative = 2
    ledger_bytes: Positive = 70
    part_bytes: Positive = 8 * 2**20
    cost_per_1000_puts: NotNegative | None = None
    cost_per_1000_gets: NotNegative | None = None
    cost_per_gb_month: NotNegative | None = None


class Assumptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan is made of.

    `changed` is the share of the records that are new or changed, 1 for a first load. `scopes` is the number of
    pipelines or partitions that share the records and run at the same time.
    """

    records: Annotated[tuple[Count, ...], Meta(min_length=1)] = (1_000_000, 100_000_000, 1_000_000_000)
    changed: Annotated[float, Meta(gt=0, le=1)] = 1.0
    scopes: Count = 1
    source: SourceAssumptions = SourceAssumptions()
    shard: ShardAssumptions = ShardAssumptions()
    cpu_us: CpuAssumptions = CpuAssumptions()
    workers: WorkerAssumptions = WorkerAssumptions()
    cluster: ClusterAssumptions = ClusterAssumptions()
    service: ServiceAssumptions = ServiceAssumptions()
    storage: StorageAssumptions = StorageAssumptions()


class ScalePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan for one number of records. Hours are those of each part alone; ingest runs beside the service.

    `added_hours` is what the run takes longer than the service, `share` its part of the service's hours, and
    `cores_needed` the fewest cores with which this is at most `SHARE`: None if no number is enough. Costs that are
    unknown are None.
    """

    records: int
    changed: int
    objects: int
    splits: int
    jobs: int
    prepare_hours: float
    service_hours: float
    ingest_hours: float
    commit_hours: float
    added_hours: float
    share: float
    cores_needed: int | None
    compare_gb: float
    puts: int
    gets: int
    work_gb: float
    stored_gb: float
    service_cost: float | None
    request_cost: float | None
    storage_cost_a_month: float | None


def read_assumptions(path: Path) -> Assumptions:
    """Return the assumptions in a YAML file; raise ConfigError with the line for what is unknown or impossible."""
    file = YamlFile(path, root="assumptions")
    try:
        return msgspec.convert(file.value(), Assumptions)
    except msgspec.ValidationError as error:
        cause, keys = split_message(str(error))
        raise file.error(keys, cause) from error


class _Work(msgspec.Struct, frozen=True):
    """Seconds of one core: of the mapped tasks, and of those that are one process; and of service and cluster."""

    prepare_s: float
    alone_s: float
    ingest_s: float
    commit_s: float
    service_s: float
    cluster_s: float
    # The part of the records whose jobs end last, together.
    last: float

    def ingest_on(self, cores: int) -> float:
        """Return the seconds of ingest."""
        return max(self.ingest_s / cores, self.cluster_s)

    def added_on(self, cores: int) -> float:
        """Return the seconds that the run takes longer than the service."""
        ingest_s = self.ingest_on(cores)
        behind_s = max(ingest_s - self.service_s, ingest_s * self.last)
        return self.prepare_s / cores + self.alone_s + behind_s + self.commit_s


def plan(records: int, given: Assumptions) -> ScalePlan:
    """Return the plan for this number of records."""
    changed = math.ceil(records * given.changed)
    size_bytes = records * given.source.record_bytes
    objects = math.ceil(size_bytes / given.source.object_bytes)
    splits, jobs = math.ceil(size_bytes / given.source.split_bytes), math.ceil(changed / given.shard.max_records)
    work, cores = _work(records, changed, splits, jobs, given), given.workers.count * given.workers.cores
    puts, gets = _requests(size_bytes, objects, jobs, given.storage)
    vectors_gb = changed * given.shard.floats * FLOAT_BYTES / GB
    stored_gb = vectors_gb + records * given.storage.ledger_bytes / GB
    added_s = work.added_on(cores)
    return ScalePlan(
        records=records,
        changed=changed,
        objects=objects,
        splits=splits,
        jobs=jobs,
        prepare_hours=(work.prepare_s / cores + work.alone_s) / HOUR_S,
        service_hours=work.service_s / HOUR_S,
        ingest_hours=work.ingest_on(cores) / HOUR_S,
        commit_hours=work.commit_s / HOUR_S,
        added_hours=added_s / HOUR_S,
        share=added_s / work.service_s,
        cores_needed=_cores_needed(work),
        compare_gb=changed * given.workers.compare_bytes / given.scopes / GB,
        puts=puts,
        gets=gets,
        # Staged records, and the inputs and outputs of jobs.
        work_gb=changed * given.source.record_bytes * 2 / GB + vectors_gb * TEXT_TO_FLOAT,
        stored_gb=stored_gb,
        service_cost=_service_cost(given.service, changed, work.service_s),
        request_cost=_sum(
            _cost(puts / 1000, given.storage.cost_per_1000_puts), _cost(gets / 1000, given.storage.cost_per_1000_gets)
        ),
        storage_cost_a_month=_cost(stored_gb, given.storage.cost_per_gb_month),
    )


def _work(records: int, changed: int, splits: int, jobs: int, given: Assumptions) -> _Work:
    cpu = given.cpu_us
    return _Work(
        # `read` and `stage` map over splits, `batch_predict` and `ingest` over jobs; to wait takes no worker.
        prepare_s=records * (cpu.read + cpu.stage) / MILLION + 2 * splits * cpu.task_s,
        alone_s=records * (cpu.compare + cpu.reserve) / MILLION / given.scopes,
        ingest_s=changed * cpu.ingest / MILLION + 2 * jobs * cpu.task_s,
        commit_s=records * cpu.commit / MILLION / given.scopes,
        service_s=changed / given.service.records_per_s,
        cluster_s=changed / given.cluster.documents_per_s,
        last=min(given.service.jobs_at_once, jobs) / jobs,
    )


def _cores_needed(work: _Work) -> int | None:
    wanted_s = work.service_s * SHARE
    if work.added_on(MAX_CORES) > wanted_s:
        return None
    return 1 + bisect_left(range(1, MAX_CORES), x=True, key=lambda cores: work.added_on(cores) <= wanted_s)


def _requests(size_bytes: float, objects: int, jobs: int, storage: StorageAssumptions) -> tuple[int, int]:
    # Objects are read twice, by `read` and by `stage`.
    parts = math.ceil(size_bytes / storage.part_bytes) * 2
    puts = objects * storage.puts_an_object + jobs * storage.puts_a_shard
    return math.ceil(puts), math.ceil(objects * storage.gets_an_object + jobs * storage.gets_a_shard + parts)


def _service_cost(service: ServiceAssumptions, changed: int, service_s: float) -> float | None:
    if service.cost_per_hour is not None:
        return service_s / HOUR_S * service.cost_per_hour
    return _cost(changed / MILLION, service.cost_per_million_records)


def _cost(units: float, price: float | None) -> float | None:
    return None if price is None else units * price


def _sum(*costs: float | None) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
