"""OpenAI's Batch API. A batch is accepted before its input is read: what is wrong there makes it `failed` later."""

import secrets
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services.files import UnknownFileError
from include.local_stack.ai_services.jobs import ENDED, Job, State, UnknownJobError
from include.local_stack.ai_services.openai_api import NAME, OpenAIError, admit, answer, body_of, lose_response
from include.local_stack.ai_services.openai_models import READ, Body
from include.local_stack.ai_services.service import Context, files_of

WINDOW, WINDOW_S = "24h", 86_400
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
STATUS_OF = {
    State.ACCEPTED: "validating",
    State.RUNNING: "in_progress",
    State.FINALIZING: "finalizing",
    State.STOPPING: "cancelling",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.STOPPED: "cancelled",
    State.EXPIRED: "expired",
}


def router(context: Context) -> APIRouter:
    """The Batch API as a part of the app."""
    api = OpenAIBatches(context)
    routes = APIRouter(prefix="/v1/batches")
    routes.add_api_route("", api.create, methods=["POST"])
    routes.add_api_route("", api.listed, methods=["GET"])
    routes.add_api_route("/{batch_id}", api.retrieve, methods=["GET"])
    routes.add_api_route("/{batch_id}/cancel", api.cancel, methods=["POST"])
    return routes


class OpenAIBatches:
    """The operations on batches."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._files = files_of(context.state_dir)

    async def create(self, request: Request) -> Response:
        """Accept a batch."""
        admit(self._context, request, "CreateBatch")
        job = await run_in_threadpool(self._accepted, await body_of(request))
        lose_response(self._context, "CreateBatch")
        return answer(described(job))

    async def retrieve(self, request: Request, batch_id: str) -> Response:
        """Show one batch."""
        admit(self._context, request, "RetrieveBatch")
        try:
            return answer(described(self._context.jobs.get(NAME, batch_id)))
        except UnknownJobError:
            raise _unknown(batch_id) from None

    async def listed(self, request: Request) -> Response:
        """List batches, the newest first, `limit` of them after the one named `after`."""
        admit(self._context, request, "ListBatches")
        limit = _limit(request.query_params.get("limit"))
        jobs = self._context.jobs.accepted(NAME)[::-1]
        if after := request.query_params.get("after"):
            place = next((index for index, job in enumerate(jobs, 1) if job.name == after), None)
            if place is None:
                raise OpenAIError(400, f"Invalid 'after': no batch {after}", param="after")
            jobs = jobs[place:]
        page = await run_in_threadpool(lambda: [described(self._context.jobs.current(job)) for job in jobs[:limit]])
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        has_more = len(jobs) > limit
        return answer({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": has_more})

    async def cancel(self, request: Request, batch_id: str) -> Response:
        """Ask a batch to stop; what was done is kept."""
        admit(self._context, request, "CancelBatch")
        try:
            job = await run_in_threadpool(self._context.jobs.update, NAME, batch_id, _cancelling)
        except UnknownJobError:
            raise _unknown(batch_id) from None
        return answer(described(job))

    def _accepted(self, body: Body) -> Job:
        self._check(body)
        job = Job(
            service=NAME,
            name=f"batch_{secrets.token_hex(16)}",
            request=body,
            accepted_at_s=time.time(),
            faults=self._context.faults.of_job(NAME, "CreateBatch"),
        )
        self._context.jobs.accept(job)
        return job

    def _check(self, body: Body) -> None:
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise OpenAIError(
                    400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name
                )
        for name, supported in (("endpoint", list(READ)), ("completion_window", [WINDOW])):
            if body[name] not in supported:
                message = f"Invalid value: '{body[name]}'. Supported values are: {str(supported)[1:-1]}."
                raise OpenAIError(400, message, code="invalid_value", param=name)
        try:
            purpose = self._files.get(body["input_file_id"]).purpose
        except UnknownFileError as error:
            raise OpenAIError(400, f"No such File object: {error}", param="input_file_id") from None
        if purpose != "batch":
            raise OpenAIError(400, f"Invalid file purpose: {purpose}. It must be 'batch'.", param="input_file_id")


def described(job: Job) -> dict[str, Any]:
    """Return the batch object; times are in whole seconds since the epoch."""
    entered = {state: int(at_s) for state, at_s in job.entered_at_s.items()}
    return {
        "id": job.name,
        "object": "batch",
        "endpoint": job.request["endpoint"],
        "errors": _errors(job),
        "input_file_id": job.request["input_file_id"],
        "completion_window": job.request["completion_window"],
        "status": STATUS_OF[job.state],
        "output_file_id": job.result.get("output_file_id"),
        "error_file_id": job.result.get("error_file_id"),
        "created_at": int(job.accepted_at_s),
        "in_progress_at": entered.get(State.RUNNING),
        "expires_at": int(job.accepted_at_s) + WINDOW_S,
        "finalizing_at": entered.get(State.FINALIZING),
        "completed_at": entered.get(State.COMPLETED),
        "failed_at": entered.get(State.FAILED),
        "expired_at": entered.get(State.EXPIRED),
        "cancelling_at": entered.get(State.STOPPING),
        "cancelled_at": entered.get(State.STOPPED),
        "request_counts": job.result.get("request_counts", {"total": 0, "completed": 0, "failed": 0}),
        "metadata": job.request.get("metadata"),
    }


def _errors(job: Job) -> dict[str, Any] | None:
    errors = job.result.get("errors")
    if not errors and job.state is State.FAILED:
        errors = [{"code": "server_error", "message": job.failure_reason, "line": None, "param": None}]
    return {"object": "list", "data": errors} if errors else None


def _cancelling(job: Job) -> Job:
    if job.state in ENDED:
        raise OpenAIError(400, f"Cannot cancel a batch with status '{STATUS_OF[job.state]}'.")
    return job if job.state is State.STOPPING else job.entered(State.STOPPING, time.time())


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LIMIT:
        raise OpenAIError(400, f"Invalid 'limit': {text} is not from 1 to {MAX_LIMIT}", param="limit")
    return int(text)


def _unknown(batch_id: str) -> OpenAIError:
    return OpenAIError(404, f"No batch found with id '{batch_id}'.")
