"""Bedrock's API. A job name is free again when its job has ended; a client's token gives one job, whatever happens.

The control plane (batch jobs) and the runtime (InvokeModel) are told apart by path, as SageMaker's are.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services import bedrock_models, constraints, sigv4
from include.local_stack.ai_services.aws import AwsError, arn, validation_error
from include.local_stack.ai_services.bedrock_models import ModelInputError, model_of, token_count
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.jobs import ENDED, Job, State, UnknownJobError
from include.local_stack.ai_services.service import Context, Service

NAME = "bedrock"
HOSTS = re.compile(r"bedrock(-runtime)?\.[a-z0-9-]+\.amazonaws\.com(:443)?")
DEFAULT_PAGE, DEFAULT_TIMEOUT_H, HOUR_S = 1000, 24, 3600
ID_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789"
STATUS_OF = {
    State.ACCEPTED: "Submitted",
    State.VALIDATING: "Validating",
    State.SCHEDULED: "Scheduled",
    State.RUNNING: "InProgress",
    State.STOPPING: "Stopping",
    State.COMPLETED: "Completed",
    State.PARTIAL: "PartiallyCompleted",
    State.FAILED: "Failed",
    State.STOPPED: "Stopped",
    State.EXPIRED: "Expired",
}
Body = dict[str, Any]


def service(context: Context) -> Service:
    """Bedrock as a part of the app."""
    api = Bedrock(context)
    router = APIRouter()
    # An ARN holds a slash, escaped or not: the path is compared after unescaping.
    router.add_api_route("/model-invocation-job", api.create, methods=["POST"])
    router.add_api_route("/model-invocation-jobs", api.listed, methods=["GET"])
    router.add_api_route("/model-invocation-job/{identifier:path}/stop", api.stop, methods=["POST"])
    router.add_api_route("/model-invocation-job/{identifier:path}", api.show, methods=["GET"])
    router.add_api_route("/model/{model_id:path}/invoke", api.invoke_model, methods=["POST"])
    return Service(NAME, HOSTS, [router])


class Bedrock:
    """The operations."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accepting = threading.Lock()

    async def create(self, request: Request) -> Response:
        """CreateModelInvocationJob."""
        body = _decoded(await self._admitted(request, "CreateModelInvocationJob"))
        constraints.check(NAME, "CreateModelInvocationJob", body)
        job = await run_in_threadpool(self._accepted, body)
        self._context.faults.strike(NAME, "CreateModelInvocationJob", {FaultKind.LOST_RESPONSE: _internal})
        return _json({"jobArn": _arn(job)})

    async def show(self, request: Request, identifier: str) -> Response:
        """GetModelInvocationJob."""
        await self._admitted(request, "GetModelInvocationJob")
        return _json(described(self._known(identifier)))

    async def stop(self, request: Request, identifier: str) -> Response:
        """StopModelInvocationJob."""
        await self._admitted(request, "StopModelInvocationJob")
        job = self._known(identifier)
        await run_in_threadpool(self._context.jobs.update, NAME, job.name, _stopping)
        return _json({})

    async def listed(self, request: Request) -> Response:
        """ListModelInvocationJobs; the token of a page is the job that ended the one before."""
        await self._admitted(request, "ListModelInvocationJobs")
        query: Body = dict(request.query_params)
        if query.get("maxResults", "").isdecimal():
            query["maxResults"] = int(query["maxResults"])
        constraints.check(NAME, "ListModelInvocationJobs", {**query, **dict.fromkeys(_TIMES)})
        return _json(await run_in_threadpool(self._page, query))

    async def invoke_model(self, request: Request, model_id: str) -> Response:
        """InvokeModel."""
        body = await self._admitted(request, "InvokeModel")
        found = await run_in_threadpool(self._invocation, model_id, _decoded(body))
        self._context.invocations[NAME] += 1
        self._context.faults.strike(NAME, "InvokeModel", {FaultKind.LOST_RESPONSE: _internal})
        counts = {f"X-Amzn-Bedrock-{name}-Token-Count": str(token_count(found, name.lower())) for name in _COUNTED}
        return Response(msgspec.json.encode(found), media_type="application/json", headers=counts)

    async def _admitted(self, request: Request, operation: str) -> bytes:
        received = await sigv4.received(request)
        sigv4.verify(received, keys=self._context.keys, service=NAME, now=datetime.now(UTC))
        self._context.faults.strike(NAME, operation, _ERRORS)
        return received.body

    def _page(self, query: Body) -> Body:
        jobs = [job for job in self._context.jobs.accepted(NAME) if _is_asked_for(job, query)]
        if wanted := query.get("statusEquals"):
            jobs = [job for job in jobs if STATUS_OF[self._context.jobs.current(job).state] == wanted]
        if query.get("sortOrder") != "Ascending":
            jobs.reverse()
        if token := query.get("nextToken"):
            names = [job.name for job in jobs]
            jobs = jobs[names.index(token) + 1 :] if token in names else []
        page = jobs[: query.get("maxResults", DEFAULT_PAGE)]
        more = {"nextToken": page[-1].name} if len(page) < len(jobs) else {}
        return {"invocationJobSummaries": [described(self._context.jobs.current(job)) for job in page], **more}

    def _accepted(self, body: Body) -> Job:
        if model_of(body["modelId"]) is None:
            raise validation_error("The provided model identifier is invalid.")
        if body.get("modelInvocationType", "InvokeModel") != "InvokeModel":
            raise validation_error("modelInvocationType Converse is not supported for the provided model.")
        with self._accepting:
            earlier = self._context.jobs.accepted(NAME)
            token = body.get("clientRequestToken")
            if same := [job for job in earlier if token and job.request.get("clientRequestToken") == token]:
                return same[0]
            namesakes = (job for job in earlier if job.request["jobName"] == body["jobName"])
            if any(self._context.jobs.current(job).state not in ENDED for job in namesakes):
                raise constraints.error(NAME, "ConflictException", "The provided job name is currently in use.")
            job = self._new_job(body)
            self._context.jobs.accept(job)
        return job

    def _new_job(self, body: Body) -> Job:
        return Job(
            service=NAME,
            name="".join(secrets.choice(ID_CHARS) for _ in range(12)),
            request=body,
            accepted_at_s=time.time(),
            faults=self._context.faults.of_job(NAME, "CreateModelInvocationJob"),
            result={"min_records": self._context.quotas.bedrock_min_records},
        )

    def _known(self, identifier: str) -> Job:
        constraints.check(NAME, "GetModelInvocationJob", {"jobIdentifier": identifier})
        try:
            return self._context.jobs.get(NAME, identifier.rpartition("/")[2])
        except UnknownJobError:
            message = f"Could not find model invocation job {identifier}."
            raise constraints.error(NAME, "ResourceNotFoundException", message) from None

    def _invocation(self, model_id: str, body: Body) -> Body:
        model = model_of(model_id)
        if model is None:
            raise validation_error("The provided model identifier is invalid.")
        try:
            return next(model.answer(self._context.model, [bedrock_models.read(model, body)]))
        except ModelInputError as error:
            raise validation_error(str(error)) from error


def described(job: Job) -> Body:
    """Return GetModelInvocationJob's answer: the request's members, and where the job stands."""
    known = constraints.members(NAME, "GetModelInvocationJobResponse")
    moments = {
        "submitTime": job.accepted_at_s,
        "lastModifiedTime": max([job.accepted_at_s, *job.entered_at_s.values()]),
        "endTime": job.ended_at_s,
        "jobExpirationTime": job.accepted_at_s + HOUR_S * job.request.get("timeoutDurationInHours", DEFAULT_TIMEOUT_H),
    }
    return {
        **{name: value for name, value in job.request.items() if name in known},
        **{name: value for name, value in job.result.items() if name in known},
        "jobArn": _arn(job),
        "status": STATUS_OF[job.state],
        **({"message": job.failure_reason} if job.failure_reason else {}),
        **{name: _iso(at_s) for name, at_s in moments.items() if at_s is not None},
    }


def _is_asked_for(job: Job, query: Body) -> bool:
    after, before = (_seconds(query[name]) if name in query else None for name in _TIMES)
    return (
        query.get("nameContains", "") in job.request["jobName"]
        and (after is None or job.accepted_at_s > after)
        and (before is None or job.accepted_at_s < before)
    )


def _stopping(job: Job) -> Job:
    if job.state in ENDED:
        message = f"The job is in status {STATUS_OF[job.state]} and cannot be stopped."
        raise constraints.error(NAME, "ConflictException", message)
    return job if job.state is State.STOPPING else job.entered(State.STOPPING, time.time())


def _decoded(raw: bytes) -> Body:
    try:
        return msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise validation_error(f"The body is no JSON object: {error}") from error


def _json(content: Body) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _arn(job: Job) -> str:
    return arn(NAME, f"model-invocation-job/{job.name}")


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(iso: str) -> float:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        raise validation_error(f"{iso!r} is no ISO 8601 time.") from None


def _throttled() -> AwsError:
    return constraints.error(NAME, "ThrottlingException", "Too many requests, please wait before trying again.")


def _quota() -> AwsError:
    message = "Your account has reached the quota for number of concurrent invoke-model jobs for this model."
    return constraints.error(NAME, "ServiceQuotaExceededException", message)


def _internal() -> AwsError:
    return constraints.error(NAME, "InternalServerException", "The service hit an internal error. Retry the request.")


_TIMES = ("submitTimeAfter", "submitTimeBefore")
_COUNTED = ("Input", "Output")
_ERRORS: dict[FaultKind, Callable[[], AwsError]] = {
    FaultKind.THROTTLE: _throttled,
    FaultKind.QUOTA: _quota,
    FaultKind.ERROR: _internal,
}
