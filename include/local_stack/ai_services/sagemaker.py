"""SageMaker's API. A job name is accepted once in the account's life, whatever became of the job.

Two wire forms reach the same operations: the JSON 1.1 protocol of the SDKs (`POST /`, operation in
X-Amz-Target) and the form of ML Commons' connectors (`POST /CreateTransformJob`).
"""

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services import constraints, container, sigv4
from include.local_stack.ai_services.aws import AwsError, arn, validation_error
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.jobs import ENDED, Job, JobExistsError, State, UnknownJobError
from include.local_stack.ai_services.service import Context, Service
from include.local_stack.ai_services.transform import FilterSyntaxError, Transform

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "sagemaker"
HOSTS = re.compile(r"(api|runtime)\.sagemaker\.[a-z0-9-]+\.amazonaws\.com(:443)?")
# SageMaker's limits do not end a job as expired.
FAULTS = frozenset(FaultKind) - {FaultKind.EXPIRE}
STATUS_OF = {
    State.ACCEPTED: "InProgress",  # SageMaker has no word for a job that waits
    State.RUNNING: "InProgress",
    State.STOPPING: "Stopping",
    State.COMPLETED: "Completed",
    State.FAILED: "Failed",
    State.STOPPED: "Stopped",
}
Body = dict[str, Any]


def service(context: Context) -> Service:
    """SageMaker as a part of the app."""
    api = SageMaker(context)
    router = APIRouter()
    router.add_api_route("/", api.by_target, methods=["POST"])
    router.add_api_route("/endpoints/{endpoint}/invocations", api.invoke_endpoint, methods=["POST"])
    for operation in api.operations:
        router.add_api_route(f"/{operation}", api.by_path, methods=["POST"])
    return Service(NAME, HOSTS, [router], FAULTS)


class SageMaker:
    """The operations, and the two ways to reach them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._models_dir = context.state_dir / "sagemaker_models"
        self._models_dir.mkdir(parents=True, exist_ok=True)
        self.operations: dict[str, Callable[[Body], Body | None]] = {
            "CreateModel": self._create_model,
            "CreateTransformJob": self._create_transform_job,
            "DescribeTransformJob": self._describe_transform_job,
            "StopTransformJob": self._stop_transform_job,
        }

    async def by_target(self, request: Request) -> Response:
        """The SDKs' form."""
        operation = request.headers.get("x-amz-target", "").removeprefix("SageMaker.")
        return await self._answer(operation, request, "application/x-amz-json-1.1")

    async def by_path(self, request: Request) -> Response:
        """ML Commons' form."""
        return await self._answer(request.url.path.removeprefix("/"), request, "application/json")

    async def invoke_endpoint(self, request: Request, endpoint: str) -> Response:
        """One answer of the model; every endpoint name is taken to exist."""
        body = await self._admitted(request, "InvokeEndpoint")
        answer = await run_in_threadpool(self._invocation, endpoint, body)
        self._context.invocations[NAME] += 1
        self._context.faults.strike(NAME, "InvokeEndpoint", {FaultKind.LOST_RESPONSE: _internal_failure})
        return Response(
            answer, media_type="application/json", headers={"x-Amzn-Invoked-Production-Variant": "AllTraffic"}
        )

    async def _admitted(self, request: Request, operation: str) -> bytes:
        received = await sigv4.received(request)
        sigv4.verify(received, keys=self._context.keys, service=NAME, now=datetime.now(UTC))
        self._context.faults.strike(NAME, operation, ERRORS)
        return received.body

    async def _answer(self, operation: str, request: Request, media_type: str) -> Response:
        raw = await self._admitted(request, operation)
        if operation not in self.operations:
            raise AwsError(
                400, "UnknownOperationException", f"{operation or 'no X-Amz-Target'}: no such operation here"
            )
        body = _decoded(raw)
        constraints.check(NAME, operation, body)
        result = await run_in_threadpool(self.operations[operation], body)
        return Response(b"" if result is None else msgspec.json.encode(result), media_type=media_type)

    def _create_model(self, body: Body) -> Body:
        model_arn = arn(NAME, f"model/{body['ModelName']}")
        try:
            with (self._models_dir / f"{body['ModelName']}.json").open("xb") as file:
                file.write(msgspec.json.encode(body))
        except FileExistsError:
            raise validation_error(f'Cannot create already existing model "{model_arn}".') from None
        return {"ModelArn": model_arn}

    def _create_transform_job(self, body: Body) -> Body:
        _check_filters(body)
        if not (self._models_dir / f"{body['ModelName']}.json").exists():
            raise validation_error(f'Could not find model "{arn(NAME, "model/" + body["ModelName"])}".')
        job_arn = _job_arn(body["TransformJobName"])
        try:
            self._context.jobs.accept(self._with_faults(body))
        except JobExistsError:
            raise AwsError(
                400,
                "ResourceInUse",
                "Job name must be unique within an AWS account and region, "
                f"and a job with this name already exists ({job_arn})",
            ) from None
        self._context.faults.strike(NAME, "CreateTransformJob", {FaultKind.LOST_RESPONSE: _internal_failure})
        return {"TransformJobArn": job_arn}

    def _with_faults(self, body: Body) -> Job:
        # A name in use is found only on acceptance: a fault spent on a refused duplicate would be lost.
        if self._context.jobs.exists(NAME, body["TransformJobName"]):
            raise JobExistsError(body["TransformJobName"])
        return Job(
            service=NAME,
            name=body["TransformJobName"],
            request=body,
            accepted_at_s=time.time(),
            faults=self._context.faults.of_job(NAME, "CreateTransformJob"),
        )

    def _describe_transform_job(self, body: Body) -> Body:
        try:
            return described(self._context.jobs.get(NAME, body["TransformJobName"]))
        except UnknownJobError:
            raise _unknown_job(body) from None

    def _stop_transform_job(self, body: Body) -> None:
        try:
            self._context.jobs.update(NAME, body["TransformJobName"], _stopping)
        except UnknownJobError:
            raise _unknown_job(body) from None

    def _invocation(self, endpoint: str, body: bytes) -> bytes:
        try:
            payload = container.texts_of(msgspec.json.decode(body))
            (answer,) = container.answers(self._context.model, endpoint, [payload])
        except (msgspec.DecodeError, container.PayloadError) as error:
            raise AwsError(
                424, "ModelError", f'Received client error (400) from primary with message "{error}"'
            ) from error
        return answer


def described(job: Job) -> Body:
    """DescribeTransformJob's answer: the request's members, and where the job stands."""
    known = constraints.members(NAME, "DescribeTransformJobResponse")
    answer = {name: value for name, value in job.request.items() if name in known}
    answer["TransformInput"] = {
        "CompressionType": "None",
        "SplitType": "None",
        **job.request["TransformInput"],
    }
    answer["TransformOutput"] = {"AssembleWith": "None", "KmsKeyId": "", **job.request["TransformOutput"]}
    moments = {
        "CreationTime": job.accepted_at_s,
        "TransformStartTime": job.entered_at_s.get(State.RUNNING),
        "TransformEndTime": job.ended_at_s,
        "FailureReason": job.failure_reason,
    }
    return {
        **answer,
        "TransformJobArn": _job_arn(job.name),
        "TransformJobStatus": STATUS_OF[job.state],
        **{name: value for name, value in moments.items() if value is not None},
    }


def _stopping(job: Job) -> Job:
    if job.state in ENDED:
        raise validation_error(
            f"The request was rejected because the transform job is in status {STATUS_OF[job.state]}."
        )
    return job.entered(State.STOPPING, time.time())


def _check_filters(body: Body) -> None:
    try:
        Transform.of(body)
    except FilterSyntaxError as error:
        raise validation_error(str(error)) from error


def _decoded(raw: bytes) -> Body:
    try:
        return msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise AwsError(400, "SerializationException", f"The body is no JSON object: {error}") from error


def _job_arn(name: str) -> str:
    return arn(NAME, f"transform-job/{name}")


def _unknown_job(body: Body) -> AwsError:
    return validation_error(f"Could not find requested job with name: {body['TransformJobName']}")


def _internal_failure() -> AwsError:
    return AwsError(500, "InternalFailure", "The request processing has failed because of an unknown error.")


def _throttled() -> AwsError:
    return AwsError(400, "ThrottlingException", "Rate exceeded")


def _quota() -> AwsError:
    return AwsError(
        400,
        "ResourceLimitExceeded",
        "The account-level service limit 'ml.c5.xlarge for transform job usage' is 0 Instances, with current "
        "utilization of 0 Instances and a request delta of 1 Instances. Please contact AWS support to request an "
        "increase for this limit.",
    )


ERRORS = {FaultKind.THROTTLE: _throttled, FaultKind.QUOTA: _quota, FaultKind.ERROR: _internal_failure}
