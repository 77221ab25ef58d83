"""Predicts the records of a shard in real time: one `_predict` request for each line of its input, one after another.

Each response is stored as an output row before the next request is sent, so a process that is killed has at most one
request under way, which is paid for again. The rows are put together into the output that a batch job would have
written, and the job's record gets its end; the later stages treat it as a batch job that completed.

The attempt that wrote the intent renews it before each request, so no other attempt takes it over while it works. An
attempt that stalled finds its intent taken over at the next renewal, and stops.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, RecordRejected, RemoteError, RetriableError
from opensearch_batch.core.jobs.contract import REALTIME_OUTPUTS, explain
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.predict_action import PredictAction, realtime_form
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.job import Accepted, End, JobRecord
from opensearch_batch.core.types.manifest import Shard

# How many shards of a pipeline and model are predicted in real time at once, each with one request under way.
MAX_TASKS = 4
MAX_REQUESTS_PER_S = 20.0
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 6, 1.0, 15.0
# With the timeout of a request and a pause, less than the age at which an intent counts as abandoned.
RENEW_S = 5.0
# The model refuses this record, not the call: bad request, too large, unprocessable, and SageMaker's ModelError.
RECORD_STATUSES = frozenset({400, 413, 422, 424})
MANIFEST, PLACEHOLDER = ".manifest", b"${parameters."
T = TypeVar("T")


class RealtimeSubmitter(msgspec.Struct, frozen=True):
    """Does the work of a shard's job in real time. A `Submitter`: `Submission` lets one attempt at a time submit.

    `batch` names the model, and finds the job of an earlier attempt that submitted a batch job. `announce` is called
    with the folder of the output before anything is written there, `renewed` after each renewal of the intent.
    """

    batch: MLCommonsSubmitter
    objects: Objects
    job_records: JobRecords
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    announce: Callable[[str], object] = lambda folder: None  # noqa: ARG005 - no operation by default
    renewed: Callable[[], object] = lambda: None

    def stage(self, record: JobRecord) -> dict[str, str]:  # noqa: ARG002 - the protocol's parameter
        """Return ``{}``: nothing is uploaded."""
        return {}

    def unstage(self, record: JobRecord) -> None:
        """Delete the file of an earlier attempt that submitted a batch job."""
        if record.staged:
            self.batch.unstage(record)

    def find(self, record: JobRecord) -> Accepted | None:
        """Find the batch job of an earlier attempt; a request in real time leaves nothing to find."""
        return None if record.realtime else self.batch.find(record)

    def submit(self, record: JobRecord) -> Accepted:
        """Predict each line that has no row yet, write the output, and return its location with the end.

        Raises:
            Throttled, RetriableError: the service throttles or fails repeatedly; a later attempt continues.
            ConfigError: the connector, or the service's configuration, is wrong.
        """
        return _Work(self, record).run()


def in_real_time(shard: Shard, stored: JobRecord | None) -> bool:
    """Return whether a shard is predicted in real time; an attempt at its job continues in the way it began."""
    if stored is None or stored.refused is not None or stored.status == "ended":
        return shard.realtime
    return stored.realtime


class _Work:
    """The requests of one attempt."""

    def __init__(self, submitter: RealtimeSubmitter, record: JobRecord) -> None:
        batch = submitter.batch
        self._submitter, self._record, self._objects = submitter, record, submitter.objects
        self._form = realtime_form(batch.adapter)
        self._parameters = batch.parameters
        self._action = PredictAction.of(batch.model.actions, self._form, self._parameters)
        folder = submitter.job_records.uri.rpartition("/")[0]
        self._rows = f"{folder}/realtime/{record.submission}/"
        self._done = {item.uri for item in self._objects.list(self._rows)}
        self._renewed_at = record.intended_at
        self._sent_at = float("-inf")
        self._total = self._failed = 0

    def run(self) -> Accepted:
        """Predict the lines of each input; return the outputs."""
        folder = _output_folder(self._record)
        self._submitter.announce(folder)
        inputs = _inputs(self._objects, self._record.input)
        outputs = [self._predict_object(uri, f"{folder}/{name}.out") for name, uri in inputs.items()]
        counts = {"total": self._total, "completed": self._total - self._failed, "failed": self._failed}
        remote_job = {REALTIME_OUTPUTS: outputs, "request_counts": counts}
        return Accepted(None, remote_job, End("COMPLETED", self._submitter.clock()))

    def _predict_object(self, uri: str, output: str) -> str:
        """Write the output of one input; return its location."""
        with Spool() as spool:
            for line in _lines(self._objects, uri):
                row = self._row(line)
                self._failed += self._submitter.batch.adapter.row(row).error is not None
                spool.write(row + b"\n")
            spool.seek(0)
            self._objects.upload(output, spool)
        return output

    def _row(self, line: bytes) -> bytes:
        """Return the output row of a line; send its request unless the row is stored."""
        part = f"{self._rows}{self._total:08d}"
        self._total += 1
        if part in self._done and (stored := self._objects.read(part)) is not None:
            return stored.content
        row = self._predicted(line)
        self._objects.write(part, row)
        return row

    def _predicted(self, line: bytes) -> bytes:
        form, inputs = self._form, self._submitter.batch.inputs
        try:
            filled = self._action.parameters(form.body(line, self._parameters, inputs))
            request = {**self._submitter.batch.overrides, **filled}
            response = self._call(lambda: self._submitter.batch.ml.predict(self._record.model_id, request))
            return form.row(line, response, self._parameters, inputs)
        except RecordRejected as error:
            return form.error_row(line, str(error), self._parameters)
        except ConfigError as error:
            # ML Commons refuses a text that looks like a parameter, unless the connector has one of this name.
            if PLACEHOLDER not in line:
                raise
            return form.error_row(line, f"ML Commons cannot send this text: {error}", self._parameters)

    def _call(self, request: Callable[[], T]) -> T:
        """Send a request, again after a pause while the service throttles or fails.

        Raises:
            RecordRejected: the model refuses the record.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self._renew()
            self._pace()
            try:
                return request()
            except (RemoteError, RetriableError) as error:
                cause = self._explained(error)
                if attempt == ATTEMPTS or not isinstance(cause, RetriableError):
                    raise cause from error
            longest_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
            self._submitter.sleep(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        raise AssertionError

    def _explained(self, error: RemoteError | RetriableError) -> BatchError:
        if not isinstance(error, RemoteError):
            return error
        cause = explain(self._submitter.batch.adapter, error)
        return RecordRejected(str(error)) if _refuses_record(cause, error) else cause

    def _renew(self) -> None:
        """Renew the intent, so that no other attempt takes it over during the next request."""
        now = self._submitter.clock()
        if now < self._renewed_at + RENEW_S:
            return
        if not self._submitter.job_records.renew(self._record, now=now):
            raise RetriableError(f"job {self._record.name}: another attempt has taken over its real-time requests")
        self._renewed_at = now
        self._submitter.renewed()

    def _pace(self) -> None:
        """Wait until the next request is within MAX_REQUESTS_PER_S."""
        wait_s = self._sent_at + 1 / MAX_REQUESTS_PER_S - self._submitter.clock()
        if wait_s > 0:
            self._submitter.sleep(wait_s)
        self._sent_at = self._submitter.clock()


def _refuses_record(cause: BatchError, error: RemoteError) -> bool:
    return isinstance(cause, ConfigError) and error.status in RECORD_STATUSES


def _output_folder(record: JobRecord) -> str:
    """Return the folder of the output; it has the name of the job, as those that services write."""
    folder = record.output.rstrip("/")
    return folder if folder.endswith(f"/{record.name}") else f"{folder}/{record.name}"


def _inputs(objects: Objects, uri: str) -> dict[str, str]:
    """Return the input objects of a job by the names of their outputs: its input, or those that its manifest lists."""
    if not uri.endswith(MANIFEST):
        return {uri.rpartition("/")[2]: uri}
    stored = objects.read(uri)
    if stored is None:
        raise ConfigError(f"{uri}: the manifest of the inputs is missing; clear prepare to write it again")
    prefix, *keys = msgspec.json.decode(stored.content, type=list[Any])
    return {key: f"{prefix['prefix']}{key}" for key in keys}


def _lines(objects: Objects, uri: str) -> Iterator[bytes]:
    """Yield the lines of an input without their line breaks; blank lines are no records."""
    with objects.open(uri) as stream:
        for line in stream:
            if text := line.strip():
                yield text
