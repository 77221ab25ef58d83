"""A batch job is paid once per shard content, whatever dies and whoever else tries."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import msgspec
import pytest

from opensearch_batch.core.errors import AlreadySubmitted, BatchError, ConfigError, NotFound, RetriableError, Throttled
from opensearch_batch.core.jobs.job_records import JobRecords, bad_end_message, decide, job_key
from opensearch_batch.core.jobs.poll_policy import JobStatus, PollPolicy
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S, Submission
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.job import Accepted, End, JobRecord, ResubmitRequest, State
from tests.stored import present


class Service:
    """Counts the jobs it accepted and the files it holds; loses its answer or dies on demand.

    It has no idempotency, as OpenAI and Cohere have none: each call over a file that is there is a job.
    """

    def __init__(self, *, lose_answers: int = 0, refuse: BatchError | None = None) -> None:
        self.accepted: list[str] = []
        self.files: set[str] = set()
        self.has_task = True
        self.pays_before_it_refuses = False
        self._uploads = 0
        self.refuse = refuse
        self.lose_answers = lose_answers
        self._lock = threading.Lock()

    def stage(self, record: JobRecord) -> dict[str, str]:
        """Take a file."""
        with self._lock:
            self._uploads += 1
            name = f"{record.name}-{self._uploads}"
            self.files.add(name)
        return {"file": name}

    def unstage(self, record: JobRecord) -> None:
        """Remove a file."""
        self.files.discard(record.staged["file"])

    def submit(self, record: JobRecord) -> Accepted:
        """Accept a job over a file that is there."""
        if record.staged["file"] not in self.files:
            raise ConfigError(f"no such file {record.staged['file']}")
        if self.refuse is not None:
            self.accepted += [record.name] if self.pays_before_it_refuses else []
            raise self.refuse
        with self._lock:
            self.accepted.append(record.name)
            if self.lose_answers:
                self.lose_answers -= 1
                raise RetriableError("the answer was lost")
        return Accepted(f"task-{record.name}")

    def find(self, record: JobRecord) -> Accepted | None:
        """Find an accepted job by name, at ML Commons or at the service alone."""
        if record.name not in self.accepted:
            return None
        return Accepted(f"task-{record.name}") if self.has_task else Accepted(None, {"id": record.name})


def draft(submission: int) -> JobRecord:
    """Make the record of a submission."""
    return JobRecord("k", f"job-{submission}", "sagemaker", "m", "s3://b/in", "s3://b/out", 1000.0, submission)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


Attempt = Callable[..., tuple[str, JobRecord]]


@pytest.fixture
def job_records(store: S3Objects, bucket: str) -> JobRecords:
    """The record of one job key, on a real store."""
    return JobRecords(store, f"s3://{bucket}/jobs/k")


def attempt(
    job_records: JobRecords,
    service: Service,
    asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
) -> tuple[str, JobRecord]:
    """Try to submit once."""
    clock = Clock()
    return Submission(job_records, service, clock=clock, sleep=clock.sleep).run(draft, asked)


def test_the_second_attempt_reattaches(job_records: JobRecords) -> None:
    """A retry, a second run, a backfill: one job."""
    service = Service()
    assert [attempt(job_records, service)[0], attempt(job_records, service)[0]] == ["submit", "reattach"]
    assert service.accepted == ["job-1"]


def test_of_racing_attempts_one_pays(job_records: JobRecords) -> None:
    """Attempts at the same moment submit once, and all get the same task."""
    service, tasks = Service(), set[str | None]()
    threads = [
        threading.Thread(target=lambda: tasks.add(attempt(job_records, service)[1].ml_task_id)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (service.accepted, tasks) == (["job-1"], {"task-job-1"})
    assert len(service.files) == 1


def test_a_lost_answer_is_found_again_and_not_paid_twice(job_records: JobRecords) -> None:
    """The service accepted, the answer was lost: the next attempt finds the orphan."""
    service = Service(lose_answers=1)
    with pytest.raises(RetriableError, match="the answer was lost"):
        attempt(job_records, service)
    decision, record = attempt(job_records, service)
    assert (decision, record.ml_task_id, service.accepted) == ("recover", "task-job-1", ["job-1"])


def test_a_job_that_ml_commons_does_not_know_is_known_by_the_services_own_words(job_records: JobRecords) -> None:
    """Lost before ML Commons stored a task: the job is found at the service, and nobody pays again."""
    service = Service(lose_answers=1)
    service.has_task = False
    with pytest.raises(RetriableError, match="the answer was lost"):
        attempt(job_records, service)
    decision, record = attempt(job_records, service)
    assert (decision, record.ml_task_id, record.remote_job) == ("recover", None, {"id": "job-1"})
    assert (record.status, attempt(job_records, service)[0], service.accepted) == ("submitted", "reattach", ["job-1"])


@pytest.mark.parametrize("is_known", [True, False])
def test_a_name_that_is_taken_is_this_job_if_it_can_be_found(job_records: JobRecords, is_known: bool) -> None:  # noqa: FBT001 - a case
    """The service refuses a second job of the name: the first one is attached, or a person is told to pay anew."""
    service = Service(refuse=AlreadySubmitted("the name is taken"))
    service.accepted = ["job-1"] if is_known else []
    if is_known:
        assert attempt(job_records, service)[1].ml_task_id == "task-job-1"
        return
    with pytest.raises(AlreadySubmitted, match="the name is taken; clear batch_predict to submit"):
        attempt(job_records, service)


def test_while_the_service_says_not_now_the_file_is_uploaded_once(job_records: JobRecords) -> None:
    """The next success forgets the refusal."""
    service = Service(refuse=Throttled("not now"))
    clock = Clock()
    submission = Submission(job_records, service, clock=clock, sleep=clock.sleep)
    for _ in range(2):
        with pytest.raises(Throttled, match="not now"):
            submission.run(draft, ResubmitRequest())
        clock.now += 60
    assert service.files == {"job-1-1"}
    service.refuse = None
    _, record = submission.run(draft, ResubmitRequest())
    assert (record.refused, service.files) == (None, {"job-1-1"})


@pytest.mark.parametrize("refusal", [Throttled("the write was rejected"), ConfigError("the index is blocked")])
def test_a_refusal_that_came_after_the_payment_is_looked_behind(job_records: JobRecords, refusal: BatchError) -> None:
    """ML Commons asks the service first and stores its task then; that it could not says nothing of the job."""
    service = Service(refuse=refusal)
    service.pays_before_it_refuses = True
    with pytest.raises(type(refusal), match=str(refusal)):
        attempt(job_records, service)
    assert attempt(job_records, service)[1].ml_task_id == "task-job-1"
    assert service.accepted == ["job-1"]


def test_an_intent_is_as_old_as_its_paid_call(job_records: JobRecords) -> None:
    """An upload of minutes makes nobody believe that who pays now has died."""
    clock, service = Clock(), Service(refuse=ConfigError("no such model"))
    stage = service.stage

    def slow(record: JobRecord) -> dict[str, str]:
        clock.now += 500
        return stage(record)

    service.stage = slow  # type: ignore[method-assign] # the same, slower
    with pytest.raises(ConfigError, match="no such model"):
        Submission(job_records, service, clock=clock, sleep=clock.sleep).run(draft, ResubmitRequest())
    assert present(job_records.load())[0].intended_at == 1500.0


def test_who_lost_an_intent_leaves_the_record_alone(job_records: JobRecords) -> None:
    """Another attempt took it over and submitted: its task stays on record."""
    service = Service()
    submit = service.submit

    def superseded(record: JobRecord) -> Accepted:
        found = present(job_records.load())
        job_records.write(msgspec.structs.replace(record, intended_at=2000.0, ml_task_id="theirs"), etag=found[1])
        return submit(record)

    service.submit = superseded  # type: ignore[method-assign] # the same, later
    assert attempt(job_records, service)[1].ml_task_id == "theirs"


def test_a_refused_job_is_staged_anew(job_records: JobRecords) -> None:
    """What was staged may be what the service refused."""
    service = Service(refuse=ConfigError("no such file"))
    with pytest.raises(ConfigError, match="no such file"):
        attempt(job_records, service)
    service.refuse = None
    assert attempt(job_records, service)[1].staged == {"file": "job-1-2"}
    assert service.files == {"job-1-2"}


def test_an_intent_that_never_reached_the_service_is_taken_over(job_records: JobRecords) -> None:
    """A worker that died before the paid call leaves an intent; the next attempt submits under the same name."""
    job_records.write(draft(1), etag=None)
    service = Service()
    _, record = attempt(job_records, service)
    assert (record.ml_task_id, service.accepted) == ("task-job-1", ["job-1"])


def test_a_live_intent_is_waited_for(job_records: JobRecords) -> None:
    """Its owner may be in the paid call: nobody searches or submits until the intent is old."""
    clock, service, searches = Clock(), Service(), list[float]()
    find = service.find

    def timed(record: JobRecord) -> Accepted | None:
        searches.append(clock.now)
        return find(record)

    service.find = timed  # type: ignore[method-assign] # the same, with its time
    intent = msgspec.structs.replace(draft(1), intended_at=clock.now)
    job_records.write(intent, etag=None)
    Submission(job_records, service, clock=clock, sleep=clock.sleep).run(draft, ResubmitRequest())
    assert searches[0] == intent.intended_at + INTENT_GRACE_S
    assert service.accepted == ["job-1"]


def test_who_waits_for_a_live_intent_reattaches_to_its_job(job_records: JobRecords) -> None:
    """The owner submits a moment before its intent is old: one job."""
    clock, service = Clock(), Service()
    intent = msgspec.structs.replace(draft(1), intended_at=clock.now)
    job_records.write(intent, etag=None)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now == intent.intended_at + INTENT_GRACE_S - 1:
            found = present(job_records.load())
            job_records.write(msgspec.structs.replace(found.value, ml_task_id="theirs"), etag=found.etag)

    decision, record = Submission(job_records, service, clock=clock, sleep=sleep).run(draft, ResubmitRequest())
    assert (decision, record.ml_task_id, service.accepted) == ("reattach", "theirs", [])


def test_an_intent_that_is_taken_over_keeps_what_was_before_it(job_records: JobRecords) -> None:
    """Earlier submissions stay in its history, and a request that was consumed is not paid for again."""
    service, cleared = Service(), ResubmitRequest(clear="run 3")
    attempt(job_records, service)
    job_records.end(1, End("FAILED", 2000.0, "out of memory"))
    service.refuse = RetriableError("the worker lost its network before the call")
    with pytest.raises(RetriableError, match="before the call"):
        attempt(job_records, service, cleared)
    service.refuse = None
    _, record = attempt(job_records, service, cleared)
    assert [(past["submission"], past["end"]["state"]) for past in record.history] == [(1, "FAILED")]
    job_records.end(2, End("FAILED", 3000.0))
    assert attempt(job_records, service, cleared)[0] == "refuse"
    assert service.accepted == ["job-1", "job-2"]


def test_a_record_that_is_deleted_during_the_paid_call_is_named(job_records: JobRecords, store: S3Objects) -> None:
    """The attempt fails, rather than submit again without a record of what it has paid for."""
    service = Service()
    submit = service.submit

    def deleting(record: JobRecord) -> Accepted:
        if not service.accepted:
            store.delete(job_records.uri)
        return submit(record)

    service.submit = deleting  # type: ignore[method-assign] # the same, later
    with pytest.raises(RetriableError, match="was removed or replaced while its job job-1 was being submitted"):
        attempt(job_records, service)
    assert service.accepted == ["job-1"]


class Stalled(Service):
    """A service whose first caller stalls at one point, until another attempt has submitted the job.

    `at` is "intent", just after the intent was written, or "call", just before the service gets the call (which may be
    queued in ML Commons).
    """

    def __init__(self, job_records: JobRecords, at: str, *, as_drafted_by: Callable[[int], JobRecord]) -> None:
        super().__init__()
        self.at = at
        self.other: tuple[str, JobRecord] | None = None
        self._job_records = job_records
        self._draft = as_drafted_by
        self._write = job_records.write

    def attempt(self) -> tuple[str, JobRecord]:
        """Submit, and stall."""
        clock = Clock()
        if self.at == "intent":
            self._job_records.write = self._write_and_stall  # type: ignore[method-assign] # the same, slower
        return Submission(self._job_records, self, clock=clock, sleep=clock.sleep).run(draft, ResubmitRequest())

    def submit(self, record: JobRecord) -> Accepted:
        """Accept a job, late."""
        if self.at == "call":
            self._stall()
        return super().submit(record)

    def _write_and_stall(self, record: JobRecord, *, etag: str | None) -> bool:
        is_written = self._write(record, etag=etag)
        self._stall()
        return is_written

    def _stall(self) -> None:
        if self.other is None:
            self.other = ("", draft(0))
            clock = Clock()
            clock.now += INTENT_GRACE_S
            run = Submission(self._job_records, self, clock=clock, sleep=clock.sleep).run
            self.other = run(self._draft, ResubmitRequest())


@pytest.mark.parametrize("at", ["intent", "call"])
def test_an_attempt_that_stalls_pays_nothing_once_its_intent_was_taken_over(job_records: JobRecords, at: str) -> None:
    """The grace is no fence: before the call the intent is read again, and a call that is late finds its file gone."""
    service = Stalled(job_records, at, as_drafted_by=draft)
    decision, record = service.attempt()
    assert (service.accepted, service.files) == (["job-1"], {"job-1-2"})
    assert (decision, record) == ("reattach", present(service.other)[1])


def test_an_intent_that_is_taken_over_keeps_its_name(job_records: JobRecords) -> None:
    """A pipeline that shares the job would name it otherwise; a service that knows a job by its name refuses a second.

    The name, input and output are those of the call that may still arrive.
    """

    def of_another_pipeline(submission: int) -> JobRecord:
        theirs = draft(submission)
        return msgspec.structs.replace(theirs, name=f"their-{theirs.name}", output="s3://b/theirs", model_id="theirs")

    service = Stalled(job_records, "call", as_drafted_by=of_another_pipeline)
    service.attempt()
    record = present(service.other)[1]
    assert (service.accepted, record.name, record.output, record.model_id) == (
        ["job-1"], "job-1", "s3://b/out", "theirs",
    )  # fmt: skip


def test_a_job_that_was_accepted_while_its_intent_is_taken_over_is_recorded(job_records: JobRecords) -> None:
    """Its file was deleted to refuse a late call, but the call had just arrived: nothing more is paid."""
    job_records.write(msgspec.structs.replace(draft(1), staged={"file": "job-1-0"}), etag=None)
    service = Service()
    unstage = service.unstage

    def arrives(record: JobRecord) -> None:
        service.accepted.append(record.name)
        unstage(record)

    service.unstage = arrives  # type: ignore[method-assign] # the same, and a call that arrives
    assert attempt(job_records, service)[1].ml_task_id == "task-job-1"
    assert service.accepted == ["job-1"]


@pytest.mark.parametrize("refusal", [Throttled("rate exceeded"), ConfigError("no such model")])
def test_a_refused_call_leaves_the_next_attempt_free_to_submit(job_records: JobRecords, refusal: BatchError) -> None:
    """The service did nothing, so nobody waits for an orphan; the refusal is on record until then."""
    service = Service(refuse=refusal)
    with pytest.raises(type(refusal), match=str(refusal)):
        attempt(job_records, service)
    found = present(job_records.load())
    assert (found[0].refused, found[0].ml_task_id) == (str(refusal), None)
    service.refuse = None
    decision, record = attempt(job_records, service)
    assert (decision, record.refused, service.accepted) == ("submit", None, ["job-1"])


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED", "LOST"])
def test_a_bad_end_is_paid_again_only_when_a_person_asks(job_records: JobRecords, state: State) -> None:
    """Without a clear the attempt fails and says what to do; with it there is one new submission, and no third."""
    service = Service()
    attempt(job_records, service)
    job_records.end(1, End(state, 2000.0, "out of memory"))
    decision, record = attempt(job_records, service)
    assert decision == "refuse"
    assert re.fullmatch(
        rf"job job-1 .* ended {state}: out of memory; clear batch_predict .*pay.*", bad_end_message(record)
    )
    decision, record = attempt(job_records, service, ResubmitRequest(clear="run 3"))
    assert (decision, record.submission, record.history[0]["end"]["state"]) == ("resubmit", 2, state)
    assert attempt(job_records, service, ResubmitRequest(clear="run 3"))[0] == "reattach"
    assert service.accepted == ["job-1", "job-2"]


def test_a_clear_pays_once_however_often_its_task_resumes(job_records: JobRecords) -> None:
    """A task that was cleared stays so until its next clear; the job that fails again is not paid a third time."""
    service = Service()
    for submission, (asked, decision) in enumerate(
        [
            (ResubmitRequest(), "submit"),
            (ResubmitRequest(clear="run 3"), "resubmit"),
            (ResubmitRequest(clear="run 5"), "resubmit"),
        ],
        1,
    ):
        assert attempt(job_records, service, asked)[0] == decision
        job_records.end(submission, End("FAILED", 2000.0))
        assert attempt(job_records, service, asked)[0] == "refuse"
    assert service.accepted == ["job-1", "job-2", "job-3"]


def test_force_pays_once_a_run(job_records: JobRecords) -> None:
    """A forced run adds a submission; its own retries do not."""
    service, forced = Service(), ResubmitRequest(force="run-2")
    attempt(job_records, service)
    job_records.end(1, End("COMPLETED", 2000.0))
    assert attempt(job_records, service)[0] == "reuse"
    assert [attempt(job_records, service, forced)[0] for _ in range(3)] == ["resubmit", "reattach", "reattach"]
    assert service.accepted == ["job-1", "job-2"]


def test_runs_that_force_pay_once_each_however_they_alternate(job_records: JobRecords) -> None:
    """Two runs force the same shard, and each is retried after the other: two new jobs, no more."""
    service = Service()
    one, two = ResubmitRequest(force="run-1"), ResubmitRequest(force="run-2")
    attempt(job_records, service)
    assert [attempt(job_records, service, asked)[0] for asked in (one, two, one, two)] == [
        "resubmit", "resubmit", "reattach", "reattach",
    ]  # fmt: skip
    assert service.accepted == ["job-1", "job-2", "job-3"]


def test_force_after_a_refusal_pays_once(job_records: JobRecords) -> None:
    """The forced run that submits in place of a refused one is answered by it."""
    service, forced = Service(refuse=ConfigError("no such model")), ResubmitRequest(force="run-1")
    with pytest.raises(ConfigError, match="no such model"):
        attempt(job_records, service)
    service.refuse = None
    assert [attempt(job_records, service, forced)[0] for _ in range(2)] == ["submit", "reattach"]
    assert service.accepted == ["job-1"]


def test_a_mended_model_is_the_one_that_is_submitted(job_records: JobRecords) -> None:
    """A refused or abandoned submission is drafted anew, so that what was mended since is used."""
    service = Service(refuse=NotFound("no such model"))
    with pytest.raises(NotFound, match="no such model"):
        attempt(job_records, service)
    service.refuse = None
    clock = Clock()
    submission = Submission(job_records, service, clock=clock, sleep=clock.sleep)
    _, record = submission.run(lambda n: msgspec.structs.replace(draft(n), model_id="mended"), ResubmitRequest())
    assert (record.model_id, record.status) == ("mended", "submitted")


def test_a_completed_job_can_turn_out_unusable_and_be_paid_again(job_records: JobRecords) -> None:
    """Output that is gone or short is the one end that may follow COMPLETED."""
    service = Service()
    attempt(job_records, service)
    job_records.end(1, End("COMPLETED", 2000.0))
    job_records.end(1, End("UNUSABLE", 3000.0, "the output is gone"))
    assert attempt(job_records, service)[0] == "refuse"
    assert attempt(job_records, service, ResubmitRequest(clear="run 3"))[0] == "resubmit"


def test_the_first_run_of_a_shard_with_force_pays_once(job_records: JobRecords) -> None:
    """Force on what was never submitted is one job."""
    service, forced = Service(), ResubmitRequest(force="run-1")
    assert [attempt(job_records, service, forced)[0] for _ in range(2)] == ["submit", "reattach"]
    assert service.accepted == ["job-1"]


def test_an_end_is_recorded_once_and_not_over_a_later_generation(job_records: JobRecords) -> None:
    """States are sticky here: what ended COMPLETED does not become FAILED."""
    attempt(job_records, Service())
    job_records.end(1, End("COMPLETED", 2000.0))
    job_records.end(1, End("FAILED", 3000.0))
    job_records.end(7, End("FAILED", 3000.0))
    assert present(job_records.load())[0].end == End("COMPLETED", 2000.0)


def test_the_end_keeps_the_services_last_words(job_records: JobRecords) -> None:
    """Where the outputs lie stands there for the next run."""
    attempt(job_records, Service())
    job_records.end(1, End("COMPLETED", 2000.0), {"output_file_id": "file-1"})
    assert present(job_records.load())[0].remote_job == {"output_file_id": "file-1"}


def test_the_decision_table() -> None:
    """Each state of the record has one decision."""
    submitted = msgspec.structs.replace(draft(1), ml_task_id="t")
    good = msgspec.structs.replace(submitted, end=End("COMPLETED", 1.0))
    bad = msgspec.structs.replace(submitted, end=End("FAILED", 1.0))
    nothing, cleared = ResubmitRequest(), ResubmitRequest(clear="run 3")
    assert [decide(r, nothing) for r in (None, draft(1), submitted, good, bad)] == [
        "submit", "recover", "reattach", "reuse", "refuse",
    ]  # fmt: skip
    assert [decide(r, cleared) for r in (None, draft(1), submitted, good, bad)] == [
        "submit", "recover", "reattach", "reuse", "resubmit",
    ]  # fmt: skip


def test_the_job_key_is_made_of_what_decides_predictions() -> None:
    """Order of parameters does not count; service, model, parameters and content do."""
    key = job_key("sagemaker", "m", {"a": 1, "b": {"c": 2, "d": 3}}, "digest")
    assert key == job_key("sagemaker", "m", {"b": {"d": 3, "c": 2}, "a": 1}, "digest")
    others = [
        job_key("bedrock", "m", {"a": 1, "b": {"c": 2, "d": 3}}, "digest"),
        job_key("sagemaker", "n", {"a": 1, "b": {"c": 2, "d": 3}}, "digest"),
        job_key("sagemaker", "m", {"a": 2, "b": {"c": 2, "d": 3}}, "digest"),
        job_key("sagemaker", "m", {"a": 1, "b": {"c": 2, "d": 3}}, "other"),
    ]
    assert len({key, *others}) == 5


def test_a_watch_ends_with_the_job_or_at_its_deadline() -> None:
    """An end that is seen counts also after the deadline; a deadline ends a running job."""
    watch = PollPolicy(0.0, deadline_at=100.0)
    assert isinstance(watch.on_status(JobStatus("RUNNING"), now=99.0), PollPolicy)
    assert watch.on_status(JobStatus("COMPLETED"), now=200.0) == End("COMPLETED", 200.0)
    late = watch.on_status(JobStatus("RUNNING"), now=100.0)
    assert isinstance(late, End)
    assert late.state == "EXPIRED"


def test_a_watch_bears_errors_for_a_while_and_forgets_them() -> None:
    """A cluster may restart: looks may fail for ten minutes on end; one that works starts the count again."""
    watch = present(PollPolicy(0.0).on_error(now=1.0))
    assert watch.on_error(now=600.0) is not None
    assert watch.on_error(now=601.0) is None
    assert watch.on_status(JobStatus("RUNNING"), now=601.0) == PollPolicy(0.0)


def test_intervals_stretch_with_age() -> None:
    """A tenth of the age, within the limits."""
    watch = PollPolicy(0.0, poll_every_s=2.0, poll_at_most_s=60.0)
    assert [watch.pause_s(now=age_s) for age_s in (0.0, 100.0, 10_000.0)] == [2.0, 10.0, 60.0]
