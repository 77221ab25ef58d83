"""A batch job is paid once per shard content unless a person asks for another.

The job key is made of what decides the predictions and of nothing else, so a second run, a backfill, a changed field
map or a retry finds the job that is already paid for. Its one record, ``<work>/jobs/<job_key>/job.json``, goes
through three statuses by conditional writes, so of two attempts one wins and the other reattaches:

    intent      written before the paid call; alone it means: somebody may have submitted
    submitted   written after it, with the task id
    ended       written when the job's end was seen

A bad end stays until a person clears batch_predict or runs with `force`; that adds a generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError, Throttled
from opensearch_batch.core.manifest import digest
from opensearch_batch.core.objects import Objects

State = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"]
BAD_ENDS = frozenset({"FAILED", "CANCELLED", "EXPIRED", "LOST", "UNUSABLE"})
CLEAR_TO_PAY = "clear batch_predict to submit (and pay for) a new job"
INTENT_GRACE_S = 60.0
RACE_POLL_S = 1.0


class End(msgspec.Struct, frozen=True):
    """How a job ended, when (epoch seconds), and the service's own reason.

    LOST: ML Commons no longer knows its task. UNUSABLE: it completed, but its output is gone or lacks rows.
    """

    state: State
    at: float
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything known of the newest job of one job key; earlier generations stay in `history`.

    `refused` is the reason why the paid call was refused: then there is no job, and the next attempt may submit.
    `forced_by` are the keys of the runs whose `force` is honoured by this generation or an earlier one.
    """

    job: str
    name: str
    service: str
    model_id: str
    input: str
    output: str
    intended_at: float
    generation: int = 1
    forced_by: list[str] = []
    refused: str | None = None
    task_id: str | None = None
    remote_job: dict[str, Any] = {}
    end: End | None = None
    history: list[dict[str, Any]] = []

    @property
    def status(self) -> Literal["intent", "submitted", "ended"]:
        """Where the record stands in its life."""
        if self.end is not None:
            return "ended"
        return "intent" if self.task_id is None else "submitted"


class Accepted(msgspec.Struct, frozen=True):
    """ML Commons' answer to a submission: its task id, and what the service said."""

    task_id: str
    remote_job: dict[str, Any] = {}


class Asked(msgspec.Struct, frozen=True):
    """What a person asked of this run: `cleared` the task by hand, or `force` (with the run's key)."""

    cleared: bool = False
    force: bool = False
    run_key: str = ""


Decision = Literal["submit", "again", "recover", "reattach", "reuse", "refuse"]


def decide(record: JobRecord | None, asked: Asked) -> Decision:
    """Say what an attempt to submit does, given the record it found.

    submit: nobody did yet. again: a person asked for a new generation. recover: an intent without a record, so look
    for its orphan. reattach: the job runs. reuse: its output is paid for and there. refuse: it ended badly.
    """
    if record is None or record.refused is not None:
        return "submit"
    if asked.force and asked.run_key not in record.forced_by:
        return "again"
    if record.end is None:
        return "reattach" if record.status == "submitted" else "recover"
    if record.end.state not in BAD_ENDS:
        return "reuse"
    return "again" if asked.cleared else "refuse"


def job_key(service: str, model: str, parameters: Mapping[str, Any], content_digest: str) -> str:
    """Return the identity of a batch job: service, model, the parameters that shape predictions, the shard's bytes."""
    seen = msgspec.json.encode(parameters, order="deterministic").decode()
    return digest(service, model, seen, content_digest)


def next_generation(old: JobRecord, new: JobRecord, asked: Asked) -> JobRecord:
    """Return `new` as the generation after `old`, keeping the account of what was paid before."""
    past = {"generation": old.generation, "name": old.name, "task_id": old.task_id, "end": old.end}
    history = [*old.history, msgspec.to_builtins(past)]
    return msgspec.structs.replace(new, forced_by=_honoured(old.forced_by, asked), history=history)


def _honoured(before: list[str], asked: Asked) -> list[str]:
    """Return the runs whose force is honoured once this attempt submits."""
    return [*before, asked.run_key] if asked.force and asked.run_key not in before else before


class Ledger:
    """The record of one job key on object storage; every change is a conditional write."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.uri = f"{folder}/job.json"
        self._objects = objects

    def load(self) -> tuple[JobRecord, str] | None:
        """Return the record with the ETag a change of it needs, None when there is none."""
        stored = self._objects.read(self.uri)
        if stored is None:
            return None
        return msgspec.json.decode(stored.content, type=JobRecord), stored.etag

    def write(self, record: JobRecord, *, over: str | None) -> bool:
        """Write the record over the one with ETag `over` (None: where there is none); False when the race is lost."""
        content = msgspec.json.format(msgspec.json.encode(record), indent=1)
        if over is None:
            return self._objects.create(self.uri, content)
        return self._objects.replace(self.uri, content, etag=over)

    def end(self, generation: int, end: End) -> None:
        """Record how a generation ended, unless that is known or a later generation stands there.

        Ends are sticky but for one: a completed job can turn out UNUSABLE.
        """
        while found := self.load():
            record, etag = found
            known = record.end is not None and not (record.end.state == "COMPLETED" and end.state == "UNUSABLE")
            if record.generation != generation or known:
                return
            if self.write(msgspec.structs.replace(record, end=end), over=etag):
                return


class Submitter(Protocol):
    """The two calls a submission makes of the cluster."""

    def submit(self, record: JobRecord) -> Accepted:
        """Submit the job: the paid call."""

    def find(self, record: JobRecord) -> Accepted | None:
        """Find the task of a job that was submitted but not recorded."""


class Submission:
    """Brings one job key to a submitted (or already ended) job, by at most one paid call.

    Args:
        ledger: the job's record.
        cluster: submits and finds orphans.
        clock: epoch seconds.
        sleep: waits that many seconds.
        intent_grace_s: how long a foreign intent may stand without a record before it counts as abandoned; longer
            than the paid call can take.
    """

    def __init__(
        self,
        ledger: Ledger,
        cluster: Submitter,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        intent_grace_s: float = INTENT_GRACE_S,
    ) -> None:
        self._ledger = ledger
        self._cluster = cluster
        self._clock = clock
        self._sleep = sleep
        self._grace_s = intent_grace_s

    def run(self, draft: Callable[[int], JobRecord], asked: Asked) -> tuple[Decision, JobRecord]:
        """Submit once, or find what was submitted; return what was done and the record.

        Args:
            draft: makes the record of a generation.
            asked: what a person asked of this run.

        Raises:
            FatalError: the job ended badly and nobody asked for another.
            RetriableError: the cluster or the store was away; the intent stays, a retry finds it.
        """
        while True:
            found = self._ledger.load()
            record = found[0] if found else None
            decision = decide(record, asked)
            if decision in {"reattach", "reuse"} and record is not None:
                return decision, record
            if decision == "refuse" and record is not None and record.end is not None:
                raise FatalError(bad_end(record))
            done = self._act(decision, found, draft, asked)
            if done is not None:
                return decision, done

    def _act(
        self,
        decision: Decision,
        found: tuple[JobRecord, str] | None,
        draft: Callable[[int], JobRecord],
        asked: Asked,
    ) -> JobRecord | None:
        """Take one step; None means somebody else moved the record, look again."""
        if found is None:
            first = msgspec.structs.replace(draft(1), forced_by=_honoured([], asked))
            return self._intend(first, over=None)
        old, etag = found
        if decision == "again":
            return self._intend(next_generation(old, draft(old.generation + 1), asked), over=etag)
        # Drafted anew, so that a mended model or connector is used; the name stays that of the generation.
        fresh = msgspec.structs.replace(
            draft(old.generation), forced_by=_honoured(old.forced_by, asked), history=old.history
        )
        return self._intend(fresh, over=etag) if decision == "submit" else self._recover(old, fresh, etag)

    def _intend(self, record: JobRecord, *, over: str | None) -> JobRecord | None:
        if not self._ledger.write(record, over=over):
            return None
        try:
            accepted = self._cluster.submit(record)
        except (ConfigError, NotFound, Throttled) as error:
            self._update(record, refused=str(error))
            raise
        return self._update(record, task_id=accepted.task_id, remote_job=accepted.remote_job)

    def _recover(self, record: JobRecord, fresh: JobRecord, etag: str) -> JobRecord | None:
        """Wait while the intent may be somebody's at work; then attach its orphan, or take the intent over."""
        if self._clock() < record.intended_at + self._grace_s:
            self._sleep(RACE_POLL_S)
            return None
        if orphan := self._cluster.find(record):
            return self._update(record, task_id=orphan.task_id, remote_job=orphan.remote_job)
        return self._intend(fresh, over=etag)

    def _update(self, record: JobRecord, **known: Any) -> JobRecord | None:  # noqa: ANN401 - fields of JobRecord
        """Write what the paid call came to; it is over, so a lost race here is looked at again, never repeated."""
        found = self._ledger.load()
        if found is None or found[0].generation != record.generation:
            raise RetriableError(f"{self._ledger.uri} was removed while its job {record.name} was being submitted")
        updated = msgspec.structs.replace(record, **known)
        return updated if self._ledger.write(updated, over=found[1]) else None


def bad_end(record: JobRecord) -> str:
    """Say how a job ended and what to do, for the error of whoever meets it."""
    end = record.end
    if end is None:
        return f"job {record.name} has not ended"
    reason = f": {end.reason}" if end.reason else ""
    return f"job {record.name} (task {record.task_id}) ended {end.state}{reason}; {CLEAR_TO_PAY}"
