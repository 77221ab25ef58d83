"""The job store and the faults: nothing lost, nothing counted twice."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from include.local_stack.ai_services.faults import Fault, FaultKind, Faults
from include.local_stack.ai_services.jobs import Job, JobExistsError, JobStore, State, UnknownJobError


def job(name: str, *, accepted_at_s: float = 1.0) -> Job:
    """A job as it is accepted."""
    return Job(service="sagemaker", name=name, request={"n": 0}, accepted_at_s=accepted_at_s)


def test_a_job_outlives_its_store(tmp_path: Path) -> None:
    """A store opened later on the same folder has the same jobs."""
    JobStore(tmp_path).accept(job("a"))
    assert JobStore(tmp_path).get("sagemaker", "a") == job("a")
    assert JobStore(tmp_path).count("sagemaker") == 1


def test_a_name_is_accepted_once(tmp_path: Path) -> None:
    """Of many that race for a name one wins, and an ended job keeps its name."""
    store = JobStore(tmp_path)

    def accepted(_: int) -> bool:
        try:
            store.accept(job("a"))
        except JobExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(accepted, range(16))) == 1
    store.update("sagemaker", "a", lambda found: msgspec.structs.replace(found, state=State.FAILED))
    assert not accepted(0)


def test_updates_at_once_are_all_kept(tmp_path: Path) -> None:
    """No change overwrites another."""
    JobStore(tmp_path).accept(job("a"))

    def add_one(_: int) -> None:
        JobStore(tmp_path).update(
            "sagemaker", "a", lambda found: msgspec.structs.replace(found, request={"n": found.request["n"] + 1})
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(50)))
    assert JobStore(tmp_path).get("sagemaker", "a").request == {"n": 50}


def test_unfinished_jobs_in_order(tmp_path: Path) -> None:
    """Ended jobs are left out, the rest come as they were accepted."""
    store = JobStore(tmp_path)
    for name, accepted_at_s in (("late", 3.0), ("early", 1.0), ("done", 2.0)):
        store.accept(job(name, accepted_at_s=accepted_at_s))
    store.update("sagemaker", "done", lambda found: msgspec.structs.replace(found, state=State.COMPLETED))
    assert [found.name for found in store.unfinished()] == ["early", "late"]
    assert store.count("sagemaker") == 3


def test_an_unknown_job(tmp_path: Path) -> None:
    """A job that was never accepted is told apart from a broken file."""
    with pytest.raises(UnknownJobError):
        JobStore(tmp_path).get("sagemaker", "nobody")


def test_a_fault_strikes_as_often_as_asked() -> None:
    """A fault of two times strikes twice, only its own operation, and is gone."""
    faults = Faults()
    faults.add(Fault(service="sagemaker", fault=FaultKind.THROTTLE, times=2, operation="CreateTransformJob"))
    assert faults.take(FaultKind.THROTTLE, "sagemaker", "DescribeTransformJob") is None
    assert faults.take(FaultKind.ERROR, "sagemaker", "CreateTransformJob") is None
    struck = [faults.take(FaultKind.THROTTLE, "sagemaker", "CreateTransformJob") is not None for _ in range(3)]
    assert struck == [True, True, False]
    assert faults.pending() == []
