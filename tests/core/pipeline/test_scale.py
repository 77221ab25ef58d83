"""Plans of runs that are too large to be tried."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.scale import (
    SHARE,
    Assumptions,
    ClusterAssumptions,
    CpuAssumptions,
    ServiceAssumptions,
    ShardAssumptions,
    SourceAssumptions,
    StorageAssumptions,
    WorkerAssumptions,
    plan,
    read_assumptions,
)

ROUND = Assumptions(
    changed=0.5,
    source=SourceAssumptions(record_bytes=1_000, object_bytes=1e8, split_bytes=5e7),
    shard=ShardAssumptions(max_records=10_000, floats=250),
    cpu_us=CpuAssumptions(read=30, compare=2, stage=10, reserve=1, ingest=80, commit=4, task_s=5),
    workers=WorkerAssumptions(count=5, cores=2, compare_bytes=100),
    cluster=ClusterAssumptions(documents_per_s=2_000),
    service=ServiceAssumptions(records_per_s=1_000, jobs_at_once=10, cost_per_hour=36),
    storage=StorageAssumptions(
        puts_a_shard=10,
        gets_a_shard=20,
        puts_an_object=1,
        gets_an_object=2,
        ledger_bytes=50,
        part_bytes=1e7,
        cost_per_1000_puts=5,
        cost_per_1000_gets=1,
        cost_per_gb_month=2,
    ),
)


def test_a_plan_is_the_sum_of_its_assumptions() -> None:
    """A million records of 1 kB, half of them changed."""
    found = plan(1_000_000, ROUND)
    assert (found.changed, found.objects, found.splits, found.jobs) == (500_000, 10, 20, 50)
    # 40 s of records and 200 s of 40 tasks on 10 cores, then 3 s of one process.
    assert found.prepare_hours * 3600 == pytest.approx(24 + 3)
    assert found.service_hours * 3600 == pytest.approx(500)
    # The cluster takes 250 s, the cores 40 s of records and 500 s of 100 tasks on 10 cores.
    assert found.ingest_hours * 3600 == pytest.approx(250)
    assert found.commit_hours * 3600 == pytest.approx(4)
    # Ten of fifty jobs end last.
    assert found.added_hours * 3600 == pytest.approx(27 + 50 + 4)
    assert found.share == pytest.approx(81 / 500)
    assert found.cores_needed is None
    assert found.compare_gb == pytest.approx(0.05)
    assert (found.puts, found.gets) == (10 + 500, 20 + 1_000 + 200)
    assert found.stored_gb == pytest.approx(0.5 + 0.05)
    assert found.service_cost == pytest.approx(5)
    assert found.request_cost == pytest.approx(2.55 + 1.22)
    assert found.storage_cost_a_month == pytest.approx(1.1)
    halves = plan(1_000_000, msgspec.structs.replace(ROUND, scopes=2))
    assert halves.added_hours * 3600 == pytest.approx(24 + 1.5 + 50 + 2)
    assert halves.compare_gb == pytest.approx(0.025)


def test_an_unknown_price_is_unknown_and_not_nothing() -> None:
    """Also when only one of two prices is missing."""
    found = plan(1_000, Assumptions(storage=StorageAssumptions(cost_per_1000_puts=0.005)))
    assert (found.service_cost, found.request_cost, found.storage_cost_a_month) == (None, None, None)


@given(st.integers(1, 10**10), st.floats(1e-4, 1), st.floats(100, 1e6), st.floats(100, 1e6), st.integers(1, 1_000_000))
def test_the_cores_needed_are_the_fewest(
    records: int, changed: float, documents_per_s: float, records_per_s: float, at_once: int
) -> None:
    """With them the run is in time, with one less it is not."""
    service = ServiceAssumptions(records_per_s=records_per_s, jobs_at_once=at_once)
    assumed = Assumptions(changed=changed, cluster=ClusterAssumptions(documents_per_s=documents_per_s), service=service)
    needed = plan(records, assumed).cores_needed

    def share(cores: int) -> float:
        return plan(records, msgspec.structs.replace(assumed, workers=WorkerAssumptions(count=cores, cores=1))).share

    if needed is None:
        assert share(10**6) > SHARE
    else:
        assert share(needed) <= SHARE * (1 + 1e-9)
        assert needed == 1 or share(needed - 1) > SHARE


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("records: [0]", ":1 records[0]: Expected `int` >= 1"),
        ("source:\n  recrd_bytes: 3", ":1 source: Object contains unknown field `recrd_bytes`"),
        (
            "service:\n  cost_per_hour: 1\n  cost_per_million_records: 1",
            ":1 service: cost_per_hour and",
        ),
        ("changed: many", ":1 changed: Expected `float`, got `str`"),
    ],
)
def test_a_mistake_is_located(tmp_path: Path, text: str, cause: str) -> None:
    """By file, line and key."""
    path = tmp_path / "assumptions.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"{path}{cause}")):
        read_assumptions(path)


def test_the_sample_is_readable() -> None:
    """And a file without assumptions is the defaults."""
    sample = Path(__file__).resolve().parents[3] / "include" / "samples" / "scale.yaml"
    found = [plan(records, read_assumptions(sample)) for records in read_assumptions(sample).records]
    assert found[-1].jobs == 20_000
    assert found[-1].service_cost is not None
