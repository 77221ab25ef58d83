"""OpenAI's batch, computed. Every request stands in the output file or in the error file, whatever ends the batch.

The files of a batch have the same ids each time it is computed: a worker that was killed leaves none behind.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from include.local_stack.ai_services.computing import Outcome, Tools, batches
from include.local_stack.ai_services.damage import Damage
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.files import File, UnknownFileError
from include.local_stack.ai_services.ids import digest
from include.local_stack.ai_services.jobs import Job, State
from include.local_stack.ai_services.openai_api import OpenAIError, server_error
from include.local_stack.ai_services.openai_models import ANSWER, READ, Body

MAX_ERRORS, MAX_REQUESTS = 100, 50_000
NOT_DONE = {
    State.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    State.STOPPED: ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
_TOO_MANY_TOKENS = (
    "Enqueued token limit reached for this model in organization org-local. Limit: 3,000,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)


def run(job: Job, tools: Tools) -> Outcome:
    """Compute a batch to its end."""
    if job.fault(FaultKind.FAIL):
        return _failed([_error("token_limit_exceeded", _TOO_MANY_TOKENS)])
    try:
        tools.files.get(job.request["input_file_id"])
    except UnknownFileError as error:
        return _failed([_error("invalid_file", f"No such File object: {error}", param="input_file_id")])
    path = tools.files.path(job.request["input_file_id"])
    total, errors = check(path, job.request["endpoint"])
    if errors:
        # Whoever cancelled the batch hears that it is cancelled, not what was wrong with it.
        return Outcome(State.STOPPED) if tools.is_stopped() else _failed(errors)
    tools.enter(State.RUNNING)
    return _Batch(job, tools, total).run(path)


def check(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """Return how many requests a file holds, and what is wrong with them."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    models: set[str] = set()
    total = 0
    with path.open("rb") as file:
        for total, line in enumerate(file, 1):
            error = _problem(line, endpoint, seen, models)
            if error and len(errors) < MAX_ERRORS:
                errors.append({**error, "line": total})
    if total == 0:
        errors.append(_error("empty_file", "The batch file is empty."))
    if total > MAX_REQUESTS:
        errors.append(_error("too_many_tasks", f"The batch file has more than {MAX_REQUESTS} requests."))
    return total, errors


class _Batch:
    """One computation: what it has written so far, and how it goes on."""

    def __init__(self, job: Job, tools: Tools, total: int) -> None:
        self._job, self._tools, self._total = job, tools, total
        self._damage = Damage(job.faults)
        self._counts = {"total": total, "completed": 0, "failed": 0}
        self._last = total // 2 if job.fault(FaultKind.EXPIRE) else total
        self._output, self._errors = tools.work_dir / "output.jsonl", tools.work_dir / "error.jsonl"

    def run(self, path: Path) -> Outcome:
        """Answer the requests, then those that were not done, and keep both files."""
        with path.open("rb") as source, self._output.open("wb") as good, self._errors.open("wb") as bad:
            requests = enumerate(map(_decoded, source), 1)
            state = self._answer(requests, good, bad)
            if state in NOT_DONE:
                self._leave(requests, bad, state)
        self._tools.enter(State.FINALIZING)
        ids = {f"{kind}_file_id": file.id for kind, file in self._kept()}
        return Outcome(state, result={"request_counts": self._counts, **ids})

    def _answer(self, requests: Iterator[tuple[int, Body]], good: IO[bytes], bad: IO[bytes]) -> State:
        done = 0
        while done < self._last:
            self._tools.report({"request_counts": self._counts})
            if self._tools.is_stopped():
                return State.STOPPED
            batch = next(batches(_at_most(requests, self._last - done)))
            for is_good, row in self._rows(batch):
                (good if is_good else bad).write(row)
                self._counts["completed" if is_good else "failed"] += 1
            done += len(batch)
        return State.EXPIRED if self._last < self._total else State.COMPLETED

    def _rows(self, batch: list[tuple[int, Body]]) -> Iterator[tuple[bool, bytes]]:
        endpoint, asks, refused = self._job.request["endpoint"], {}, {}
        for number, request in batch:
            try:
                if self._damage.fails(number):
                    raise server_error()
                asks[number] = READ[endpoint](request["body"], dropped=self._damage.dropped(number))
            except OpenAIError as error:
                refused[number] = error
        answers = ANSWER[endpoint](self._tools.model, list(asks.values()), int(self._job.accepted_at_s))
        for number, request in batch:
            status, body = (refused[number].status, refused[number].body) if number in refused else (200, next(answers))
            yield number not in refused, self._row(request, response=self._response(request, status, body))

    def _leave(self, requests: Iterable[tuple[int, Body]], bad: IO[bytes], state: State) -> None:
        code, message = NOT_DONE[state]
        for _, request in requests:
            bad.write(self._row(request, error={"code": code, "message": message}))
            self._counts["failed"] += 1

    def _response(self, request: Body, status: int, body: Body) -> Body:
        return {
            "status_code": status,
            "request_id": digest(self._job.name, request["custom_id"], "answer"),
            "body": body,
        }

    def _row(self, request: Body, *, response: Body | None = None, error: Body | None = None) -> bytes:
        row_id = f"batch_req_{digest(self._job.name, request['custom_id'])}"
        row = {"id": row_id, "custom_id": request["custom_id"], "response": response, "error": error}
        return msgspec.json.encode(row) + b"\n"

    def _kept(self) -> Iterator[tuple[str, File]]:
        """A file without rows is not kept: the batch has no id for it."""
        for kind, path in (("output", self._output), ("error", self._errors)):
            if not path.stat().st_size:
                continue
            if kind == "output":
                self._damage.invalidate_output(path)
            about = File(
                id=f"file-{digest(self._job.name, kind)}",
                bytes=path.stat().st_size,
                created_at=int(self._tools.now_s()),
                filename=f"{self._job.name}_{kind}.jsonl",
                purpose="batch_output",
            )
            yield kind, self._tools.files.add(about, [path])


def _at_most(requests: Iterator[tuple[int, Body]], count: int) -> Iterator[tuple[int, Body]]:
    """Take no more than `count`: what an iterator hands out is gone."""
    return (request for _, request in zip(range(count), requests, strict=False))


def _problem(line: bytes, endpoint: str, seen: set[str], models: set[str]) -> dict[str, Any] | None:
    try:
        request = json.loads(line)
    except ValueError:
        return _error("invalid_json_line", "This line is not parseable as valid JSON.")
    if not isinstance(request, dict):
        return _error("invalid_json_line", "This line is not a JSON object.")
    for name in ("custom_id", "method", "url", "body"):
        if not request.get(name):
            return _error("missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)
    return _mismatch(request, endpoint, seen, models)


def _mismatch(request: Body, endpoint: str, seen: set[str], models: set[str]) -> dict[str, Any] | None:
    if not isinstance(request["custom_id"], str):
        return _error("invalid_type", "Invalid type for 'custom_id': expected a string.", param="custom_id")
    if request["custom_id"] in seen:
        message = f"The custom_id for this request is a duplicate of another request: {request['custom_id']}"
        return _error("duplicate_custom_id", message, param="custom_id")
    seen.add(request["custom_id"])
    if request["method"] != "POST":
        return _error("invalid_method", "The HTTP method for this request must be POST.", param="method")
    if request["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        return _error("url_mismatch", message, param="url")
    if isinstance(request["body"], dict):
        models.add(str(request["body"].get("model")))
    if len(models) > 1:
        return _error("model_mismatch", "All requests of a batch must name the same model.", param="body.model")
    return None


def _decoded(line: bytes) -> Body:
    request: Body = json.loads(line)
    return request


def _error(code: str, message: str, *, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": None}


def _failed(errors: list[dict[str, Any]]) -> Outcome:
    return Outcome(State.FAILED, errors[0]["message"], {"errors": errors})
