"""The job store and the faults: nothing lost, nothing counted twice."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from include.local_stack.ai_services.faults import Fault, FaultKind, Faults
from include.local_stack.ai_services.jobs import Job, JobExistsError, JobStore, State, UnknownJobError
from tests.stored import present


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


def ended(found: Job) -> Job:
    """The job, completed."""
    return found.entered(State.COMPLETED, 9.0)


def test_the_first_accepted_of_the_due_jobs_is_next(tmp_path: Path) -> None:
    """Ended and delayed jobs are left out, the rest come as they were accepted; counted are all."""
    store = JobStore(tmp_path)
    wait = Fault(service="sagemaker", fault=FaultKind.DELAY, seconds=100)
    store.accept(job("late", accepted_at_s=3.0))
    store.accept(msgspec.structs.replace(job("delayed", accepted_at_s=0.5), faults=(wait,)))
    store.accept(job("early.b", accepted_at_s=1.0))
    store.accept(job("early.a", accepted_at_s=1.0))
    for name in ("early.a", "early.b", "late"):
        found = present(store.next_due(4.0))
        assert found.name == name
        store.update("sagemaker", name, ended)
    assert store.next_due(100.4) is None
    assert store.next_due(100.5) == store.get("sagemaker", "delayed")
    assert store.count("sagemaker") == 4
    assert [found.name for found in store.accepted("sagemaker")] == ["delayed", "early.a", "early.b", "late"]


def test_a_delayed_job_that_is_stopped_is_due(tmp_path: Path) -> None:
    """It is not stopped only after its delay."""
    store = JobStore(tmp_path)
    wait = Fault(service="sagemaker", fault=FaultKind.DELAY, seconds=100)
    store.accept(msgspec.structs.replace(job("a"), faults=(wait,)))
    store.update("sagemaker", "a", lambda found: found.entered(State.STOPPING, 2.0))
    assert store.next_due(2.0) == store.get("sagemaker", "a")
    store.update("sagemaker", "a", lambda found: found.entered(State.STOPPED, 3.0))
    assert store.next_due(1000.0) is None
    assert list((tmp_path / "jobs_pending").iterdir()) == []


def test_waiting_jobs_cost_no_file_read(tmp_path: Path) -> None:
    """Of 2,000 delayed jobs none is opened to find out that nothing is due."""
    store = JobStore(tmp_path)
    wait = Fault(service="sagemaker", fault=FaultKind.DELAY, seconds=100)
    for number in range(2000):
        store.accept(msgspec.structs.replace(job(f"j{number}"), faults=(wait,)))
    for path in (tmp_path / "jobs" / "sagemaker").iterdir():
        path.write_bytes(b"unreadable")
    assert store.next_due(50.0) is None
    with pytest.raises(msgspec.DecodeError, match="JSON is malformed"):
        store.next_due(150.0)


def test_a_list_of_jobs_follows_them_until_they_end(tmp_path: Path) -> None:
    """What another process changed is seen, and an ended job is not read again; earlier jobs are listed too."""
    JobStore(tmp_path).accept(job("a"))
    store = JobStore(tmp_path)
    store.accept(job("c", accepted_at_s=3.0))
    store.accept(job("b", accepted_at_s=2.0))
    JobStore(tmp_path).update("sagemaker", "b", ended)
    states = [store.current(found).state for found in store.accepted("sagemaker")]
    assert states == [State.ACCEPTED, State.COMPLETED, State.ACCEPTED]
    for path in (tmp_path / "jobs" / "sagemaker").iterdir():
        path.write_bytes(b"unreadable")
    assert [found.name for found in store.accepted("sagemaker")] == ["a", "b", "c"]
    assert store.current(store.accepted("sagemaker")[1]).state is State.COMPLETED
    assert store.accepted("openai") == []


@pytest.mark.parametrize("cut_off_at", ["acceptance", "end"])
def test_what_a_kill_leaves_beside_a_job_is_harmless(tmp_path: Path, cut_off_at: str) -> None:
    """An empty file without its job, or of a job that has ended, hides no other job."""
    store = JobStore(tmp_path)
    store.accept(job("first"))
    (left,) = (tmp_path / "jobs_pending").iterdir()
    if cut_off_at == "acceptance":
        (tmp_path / "jobs" / "sagemaker" / "first.json").unlink()
    else:
        store.update("sagemaker", "first", ended)
        left.touch()
    store.accept(job("second", accepted_at_s=2.0))
    assert present(store.next_due(3.0)).name == "second"


def test_an_unknown_job(tmp_path: Path) -> None:
    """A job that was never accepted is told apart from a broken file."""
    with pytest.raises(UnknownJobError, match="nobody"):
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


def test_a_job_carries_one_fault_of_each_kind() -> None:
    """Faults of calls stay behind, those of jobs go with the job that was accepted."""
    faults = Faults()
    for kind in (FaultKind.PARTIAL, FaultKind.PARTIAL, FaultKind.THROTTLE, FaultKind.DELAY):
        faults.add(Fault(service="openai", fault=kind))
    assert [fault.fault for fault in faults.of_job("openai", "CreateBatch")] == [FaultKind.DELAY, FaultKind.PARTIAL]
    assert [fault.fault for fault in faults.pending()] == [FaultKind.PARTIAL, FaultKind.THROTTLE]


def test_a_fault_that_was_asked_for_is_raised_once() -> None:
    """The error is that of the fault's kind."""
    faults = Faults()
    faults.add(Fault(service="openai", fault=FaultKind.ERROR))
    errors = {FaultKind.THROTTLE: lambda: ValueError("no"), FaultKind.ERROR: lambda: KeyError("yes")}
    with pytest.raises(KeyError, match="yes"):
        faults.strike("openai", "CreateBatch", errors)
    faults.strike("openai", "CreateBatch", errors)
