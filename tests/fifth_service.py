"""A fifth AI service, as another distribution would bring one: all that the package has to know of it is here.

Acme keeps inputs and outputs itself. `ACME` is the service; the classes below it are what the package is given.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound
from opensearch_batch.core.jobs.contract import ErrorCodes, Limits, PredictionRow
from opensearch_batch.core.jobs.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import JobRecord, State
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.services.adapters import BaseAdapter
from opensearch_batch.services.clients import JobClient, local_copy
from opensearch_batch.services.entry import AiService, KeyConnection, Storage
from opensearch_batch.services.files import ServiceFiles
from opensearch_batch.services.inputs import check_input_number, need_inputs

NAME, KEY = "acme", "acme-secret"


class Acme:
    """The service: jobs over its own files. A job is done when it is described; of texts in `fails` it fails once."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.fails: set[str] = set()

    def upload(self, content: bytes) -> str:
        """Keep a file."""
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def submit(self, key: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a job: what ML Commons calls by the connector."""
        if key != KEY:
            raise PermissionError(key)
        job = {"id": f"job-{len(self.jobs)}", "input": parameters["input"], "state": "working"}
        self.jobs[job["id"]] = job
        return dict(job)

    def describe(self, name: str) -> dict[str, Any]:
        """Return a job, which ends meanwhile."""
        job = self.jobs[name]
        if job["state"] == "working":
            rows = [self._row(json.loads(line)) for line in self.files[job["input"]].splitlines()]
            job |= {"state": "done", "output": self.upload("".join(f"{json.dumps(row)}\n" for row in rows).encode())}
        return dict(job)

    def _row(self, line: dict[str, Any]) -> dict[str, Any]:
        if line["text"] in self.fails:
            self.fails.remove(line["text"])
            return {"ref": line["ref"], "failure": "out of luck"}
        return {"ref": line["ref"], "vector": [float(len(line["text"])), 1.0]}


ACME = Acme()


class _Row(msgspec.Struct):
    ref: str | None = None
    failure: str | None = None


def failure(row: bytes) -> str | None:
    """Return the failure in a row of any service; only rows of this one have the member."""
    try:
        return msgspec.json.decode(row, type=_Row).failure
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class AcmeAdapter(BaseAdapter):
    """Decides; no I/O."""

    name = NAME
    limits = Limits(max_records=100, max_bytes=1 << 20, max_record_bytes=1 << 16)
    errors = ErrorCodes(throttle=frozenset({"busy"}))
    output_members = frozenset({"ref", "vector", "failure"})
    id_member: str | None = "ref"
    example_parameters: Mapping[str, Any] = MappingProxyType({"model": "m"})
    states: ClassVar[Mapping[str, State]] = {"running": "RUNNING", "done": "COMPLETED", "stopped": "CANCELLED"}

    def check(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:  # noqa: ARG002 - any will do
        """One text a record."""
        need_inputs(NAME, inputs, most=1)

    def identity(self, parameters: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - the model is all
        """Return nothing more."""
        return {}

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm:  # noqa: ARG002 - always
        """Return the form of a line."""
        return LineForm.of({"ref": ID, "text": msgspec.Raw(INPUTS)}, inputs)

    def prediction_path(
        self,
        parameters: Mapping[str, Any],  # noqa: ARG002 - always
        inputs: Sequence[str] = (),
        number: int | None = None,
    ) -> str:
        """Return the vector's path."""
        check_input_number(inputs, number)
        return "$.vector"

    def job_name(self, prefix: str, folder: str, submission: int) -> str:
        """Return a name for people."""
        return f"{prefix}-{folder.rpartition('/')[2]}-{submission}"

    def batch_predict_parameters(
        self,
        record: JobRecord,
        parameters: Mapping[str, Any],  # noqa: ARG002 - the connector's own are kept
        inputs: Sequence[str] = (),  # noqa: ARG002 - they are in the file
    ) -> dict[str, Any]:
        """Return the uploaded file."""
        return {"input": record.staged["input"]}

    def is_job(self, record: JobRecord, remote_job: Mapping[str, Any]) -> bool:
        """Compare by the file."""
        return "input" in record.staged and remote_job.get("input") == record.staged["input"]

    def job_status(self, remote_job: Mapping[str, Any]) -> JobStatus:
        """Read the state."""
        return self.status_of(remote_job.get("state"))

    def outputs(self, record: JobRecord, remote_job: Mapping[str, Any]) -> list[str]:  # noqa: ARG002 - named by the job
        """Return the output file."""
        return [f"{AcmeFiles.scheme}://{remote_job['output']}"] if "output" in remote_job else []

    def row(self, row: bytes) -> PredictionRow:
        """Read a row."""
        try:
            found = msgspec.json.decode(row, type=_Row)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return PredictionRow(None, "the row is not a valid JSON object")
        return PredictionRow(found.ref, found.failure)


class AcmeClient(JobClient):
    """Calls the service."""

    status_member, live = "state", frozenset({"working"})

    def __init__(self, api: Acme, objects: Objects) -> None:
        self._api, self._objects = api, objects

    def stage(self, uri: str, name: str) -> dict[str, str]:  # noqa: ARG002 - files have no names
        """Upload a shard."""
        with local_copy(self._objects, uri) as copy:
            return {"input": self._api.upload(copy.read())}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Delete it."""
        if "input" in staged:
            self._api.files.pop(staged["input"], None)

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the job over the file."""
        return next((dict(job) for job in self._api.jobs.values() if job["input"] == record.staged.get("input")), None)

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """Return the job."""
        if record.remote_job.get("id") not in self._api.jobs:
            raise NotFound(f"Acme has no job {record.name}")
        return self._api.describe(record.remote_job["id"])

    def cancel(self, record: JobRecord) -> None:
        """Stop the job."""
        self._api.jobs[record.remote_job["id"]]["state"] = "stopped"


class AcmeFiles(ServiceFiles):
    """Reads the service's files."""

    scheme, title = "acme", "files at Acme"

    def __init__(self, api: Acme) -> None:
        self._api = api

    def head(self, uri: str) -> ObjectInfo | None:
        """Return its size."""
        content = self._api.files.get(self.id_of(uri))
        return None if content is None else ObjectInfo(uri, len(content), uri)

    def stream(self, uri: str) -> IO[bytes]:
        """Open it."""
        return io.BytesIO(self._api.files[self.id_of(uri)])

    def delete(self, uri: str) -> None:
        """Remove it."""
        self._api.files.pop(self.id_of(uri), None)


def connect(key: str, base_url: str | None) -> Acme:  # noqa: ARG001 - there is one
    """Return the API client of a key."""
    if key != KEY:
        raise ConfigError("Acme refuses the key; correct the connection")
    return ACME


SERVICE = AiService(
    adapter=AcmeAdapter(),
    client=AcmeClient,
    connection=KeyConnection("acme_default", "acme_key", connect),
    storage=Storage(AcmeFiles.scheme, AcmeFiles),
    row_errors=RowErrors(failure, frozenset({"failure"})),
)
