"""Cohere's embeddings: jobs over a dataset, and at once. A job takes a dataset that was validated, and no other."""

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services import cohere_models
from include.local_stack.ai_services.cohere_api import (
    NAME,
    CohereError,
    admit,
    answer,
    body_of,
    iso,
    lose_response,
    meta,
)
from include.local_stack.ai_services.datasets import EMBEDDING_TYPES, INPUT
from include.local_stack.ai_services.files import UnknownFileError
from include.local_stack.ai_services.jobs import ENDED, Job, State, UnknownJobError
from include.local_stack.ai_services.service import Context, datasets_of

MODELS = frozenset(
    {
        "embed-english-v3.0",
        "embed-multilingual-v3.0",
        "embed-english-light-v3.0",
        "embed-multilingual-light-v3.0",
        "embed-v4.0",
    }
)
STATUS_OF = {
    State.ACCEPTED: "processing",
    State.RUNNING: "processing",
    State.STOPPING: "cancelling",
    State.COMPLETED: "complete",
    State.FAILED: "failed",
    State.STOPPED: "cancelled",
}
Body = dict[str, Any]


def router(context: Context) -> APIRouter:
    """Embed and the Embed Jobs API as a part of the app."""
    api = Cohere(context)
    routes = APIRouter()
    routes.add_api_route("/v1/embed-jobs", api.create, methods=["POST"])
    routes.add_api_route("/v1/embed-jobs", api.listed, methods=["GET"])
    routes.add_api_route("/v1/embed-jobs/{job_id}", api.show, methods=["GET"])
    routes.add_api_route("/v1/embed-jobs/{job_id}/cancel", api.cancel, methods=["POST"])
    routes.add_api_route("/v1/embed", api.embed, methods=["POST"])
    routes.add_api_route("/v2/embed", api.embed, methods=["POST"])
    return routes


class Cohere:
    """The operations of models."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datasets = datasets_of(context.state_dir)

    async def create(self, request: Request) -> Response:
        """Accept an embed job."""
        admit(self._context, request, "CreateEmbedJob")
        job = await run_in_threadpool(self._accepted, await body_of(request))
        lose_response(self._context, "CreateEmbedJob")
        return answer({"job_id": job.name, "meta": meta()})

    async def show(self, request: Request, job_id: str) -> Response:
        """Show one embed job."""
        admit(self._context, request, "GetEmbedJob")
        try:
            return answer(described(self._context.jobs.get(NAME, job_id)))
        except UnknownJobError:
            raise _unknown(job_id) from None

    async def listed(self, request: Request) -> Response:
        """List all embed jobs, the newest first."""
        admit(self._context, request, "ListEmbedJobs")
        jobs = reversed(self._context.jobs.accepted(NAME))
        found = await run_in_threadpool(lambda: [described(self._context.jobs.current(job)) for job in jobs])
        return answer({"embed_jobs": found})

    async def cancel(self, request: Request, job_id: str) -> Response:
        """Ask an embed job to stop; nothing of it is kept."""
        admit(self._context, request, "CancelEmbedJob")
        try:
            await run_in_threadpool(self._context.jobs.update, NAME, job_id, _cancelling)
        except UnknownJobError:
            raise _unknown(job_id) from None
        return answer({})

    async def embed(self, request: Request) -> Response:
        """Answer with the vectors of texts; the second version of the API always names their types."""
        admit(self._context, request, "Embed")
        version = request.url.path[2]
        found = await run_in_threadpool(self._embedded, await body_of(request), version)
        self._context.invocations[NAME] += 1
        lose_response(self._context, "Embed")
        return answer(found)

    def _accepted(self, body: Body) -> Job:
        self._check(body)
        job = Job(
            service=NAME,
            name=str(uuid.uuid4()),
            request=body,
            accepted_at_s=time.time(),
            faults=self._context.faults.of_job(NAME, "CreateEmbedJob"),
        )
        self._context.jobs.accept(job)
        return job

    def _check(self, body: Body) -> None:
        if body.get("model") not in MODELS:
            raise CohereError(404, f"model '{body.get('model')}' not found, make sure the correct model ID was used")
        _checked_options(body)
        if wrong := [kind for kind in body.get("embedding_types") or [] if kind not in EMBEDDING_TYPES]:
            raise CohereError(400, f"invalid request: embedding type {wrong[0]} is not supported by embed jobs")
        dataset_id = body.get("dataset_id")
        try:
            dataset = self._datasets.get(str(dataset_id))
        except UnknownFileError:
            raise CohereError(404, f"dataset with id {dataset_id} not found") from None
        status = dataset.status(time.time())
        if dataset.dataset_type != INPUT or status != "validated":
            message = f"invalid request: dataset {dataset_id} of type {dataset.dataset_type} is {status}"
            raise CohereError(400, f"{message}; it must be of type {INPUT} and validated")

    def _embedded(self, body: Body, version: str) -> Body:
        if version == "2" and not body.get("embedding_types"):
            raise CohereError(400, "invalid request: embedding_types must be provided")
        try:
            ask = cohere_models.read(body)
            vectors = list(self._context.model.encode(ask.texts))
        except (cohere_models.RequestError, UnicodeEncodeError) as error:
            raise CohereError(400, str(error)) from error
        tokens = sum(len(words) for words in self._context.model.tokens(ask.texts))
        return {
            "id": str(uuid.uuid4()),
            "texts": list(ask.texts),
            **cohere_models.embeddings(ask, vectors),
            "meta": meta(version, input_tokens=tokens),
        }


def described(job: Job) -> Body:
    """Return the embed job as the API shows it; it names its output when there is one."""
    return {
        "job_id": job.name,
        "name": job.request.get("name"),
        "status": STATUS_OF[job.state],
        "created_at": iso(job.accepted_at_s),
        "input_dataset_id": job.request["dataset_id"],
        "output_dataset_id": job.result.get("output_dataset_id"),
        "model": job.request["model"],
        "truncate": job.request.get("truncate", "END"),
        "meta": meta(input_tokens=job.result.get("input_tokens")),
    }


def _checked_options(body: Body) -> None:
    try:
        cohere_models.check_options(body)
    except cohere_models.RequestError as error:
        raise CohereError(400, str(error)) from error


def _cancelling(job: Job) -> Job:
    if job.state in ENDED:
        raise CohereError(400, f"embed job {job.name} is {STATUS_OF[job.state]} and cannot be cancelled")
    return job if job.state is State.STOPPING else job.entered(State.STOPPING, time.time())


def _unknown(job_id: str) -> CohereError:
    return CohereError(404, f"embed job with id {job_id} not found")
