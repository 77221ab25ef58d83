"""What StatsD and OpenTelemetry receive of a run through Airflow's own back ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk._shared.observability.metrics.otel_logger import SafeOtelLogger
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.runs.metrics import METRICS, OUTCOMES, SHARED_TAGS, Measurement
from opensearch_batch.operators.metrics import emit
from tests.operators.whole_run import JOB_WAIT_S, NAME, SERVICE, Pipeline, pipeline
from tests.statsd import Received, StatsD


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[StatsD]:
    """The server to which Airflow is configured to send, with tags unless a test asks for none."""
    server = StatsD()
    host, port = server.socket.getsockname()
    settings = {"on": True, "host": host, "port": port, "influxdb_enabled": getattr(request, "param", True)}
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name.upper()}", str(value))
    backend = stats_utils.get_stats_factory()()
    stats.initialize(factory=lambda: backend, export_legacy_names=True)
    yield server
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
    backend.statsd.close()
    server.socket.close()


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline with four records and a line that is no record."""
    made = pipeline(monkeypatch)
    made.write("a.jsonl", [*(b'{"id": %d, "text": "t%d"}' % (number, number) for number in range(4)), b"{oops"])
    return made


def expected(values: dict[str, Any]) -> Received:
    """Return values by name and tags; a key is a name, or ``name tag=value``."""
    shared, received = [("pipeline", NAME), ("service", SERVICE)], Received()
    for key, value in values.items():
        name, _, own = key.partition(" ")
        tag, _, text = own.partition("=")
        tags = [*shared, *([(tag, text)] if own else [])]
        received[f"opensearch_batch.{name}", tuple(sorted(tags))] = value
    return received


def outcomes(**counts: int) -> dict[str, str]:
    """Return the values of all outcomes."""
    return {f"records outcome={name}": f"{counts.get(name, 0)}|c" for name in OUTCOMES}


def test_a_run_is_measured_once(books: Pipeline, statsd: StatsD) -> None:
    """Its job, its ingest and its account; the index was busy once for all documents."""
    books.search.busy = 1
    books.run("manual__1")
    assert statsd.values() == expected(
        {
            "paid_records stage=batch_predict": "4|c",
            "documents operation=write": "4|c",
            "document_bytes": f"{books.search.sent_bytes}|c",
            "document_retries": "4|c",
            "job_wait": f"{1000 * JOB_WAIT_S:.6f}|ms",
            **outcomes(indexed=4, dead_letters=1),
            "dead_letters stage=prepare": "1|c",
            "dead_letters stage=ingest": "0|c",
        }
    )


def test_a_run_that_pays_nothing_is_measured(books: Pipeline, statsd: StatsD) -> None:
    """A record left the source; no job is submitted, so none is measured."""
    books.run("manual__1")
    statsd.received()
    books.write("a.jsonl", [b'{"id": %d, "text": "t%d"}' % (number, number) for number in range(3)])
    books.run("manual__2")
    assert statsd.values() == expected(
        {
            "documents operation=delete": "1|c",
            "document_bytes": "0|c",
            "document_retries": "0|c",
            **outcomes(unchanged=3),
            "dead_letters stage=prepare": "0|c",
            "dead_letters stage=ingest": "0|c",
        }
    )


def test_what_is_emitted_is_in_the_table(books: Pipeline, statsd: StatsD) -> None:
    """Names, tags, kinds and the values of tags."""
    books.run("manual__1")
    table = {metric.name: metric for metric in METRICS}
    received = statsd.received()
    assert {name for name, _, _ in received} == table.keys()
    for name, tags, value in received:
        own = table[name].own_tags
        assert sorted(tag for tag, _ in tags) == sorted([*SHARED_TAGS, *own])
        assert all(text in own[tag] for tag, text in tags if tag in own)
        assert value.endswith("|ms" if table[name].kind == "timer" else "|c")


@pytest.mark.parametrize("statsd", [False], indirect=True)
def test_without_tags_the_values_of_a_name_add_up(books: Pipeline, statsd: StatsD) -> None:
    """So `records` is the number of records that were read."""
    books.run("manual__1")
    totals = Counter[str]()
    for name, tags, value in statsd.received():
        assert tags == ()
        totals[name.removeprefix("opensearch_batch.")] += int(value.removesuffix("|c")) if value.endswith("|c") else 0
    assert (totals["records"], totals["dead_letters"], totals["documents"], totals["paid_records"]) == (5, 1, 4, 4)


def test_opentelemetry_receives_the_tags_as_attributes(books: Pipeline) -> None:
    """Counters are sums, and the wait is a histogram of milliseconds."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    backend: Any = SafeOtelLogger(provider)
    stats.initialize(factory=lambda: backend, export_legacy_names=True)
    try:
        books.run("manual__1")
        data: Any = reader.get_metrics_data()
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
        provider.shutdown()
    points = {
        (metric.name, point.attributes.get("outcome")): point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    indexed, wait = (
        points["airflow.opensearch_batch.records", "indexed"],
        points["airflow.opensearch_batch.job_wait", None],
    )
    assert (indexed.value, dict(indexed.attributes)) == (
        4,
        {"pipeline": NAME, "service": SERVICE, "outcome": "indexed"},
    )
    assert (wait.count, wait.sum) == (1, 1000 * JOB_WAIT_S)
    assert {name.removeprefix("airflow.") for name, _ in points} == {metric.name for metric in METRICS}


class Broken(NoStatsLogger):
    """A back end that fails."""

    @classmethod
    def incr(cls, *_: Any, **__: Any) -> None:
        """Fail."""
        raise OSError("no metrics today")


def test_a_back_end_that_fails_fails_no_task(books: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """Each stage that measures logs the error, and the run is complete."""
    stats.initialize(factory=Broken, export_legacy_names=True)
    try:
        books.run("manual__1")
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
    assert len(books.search.indexes[NAME].documents) == 4
    assert caplog.text.count("metrics were not emitted: no metrics today") == 3


def test_a_measurement_that_fails_fails_no_task(
    books: Pipeline, statsd: StatsD, caplog: pytest.LogCaptureFixture
) -> None:
    """The store does not respond when the job's record is read; what was measured before is emitted."""

    def measure() -> Iterator[Measurement]:
        yield Measurement(METRICS[0], 1, {"outcome": "indexed"})
        raise RetriableError("away")

    emit(measure(), books.context("manual__1", "ingest"), None)
    assert [value for _, _, value in statsd.received()] == ["1|c"]
    assert "metrics were not emitted: away" in caplog.text
