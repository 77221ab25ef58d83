"""What the pages share in one api-server process, and how their requests are bounded."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Annotated, Generic, NamedTuple, ParamSpec, TypeVar
from urllib.parse import parse_qs

import anyio
import anyio.to_thread
import msgspec
from fastapi import Depends, Path, Request, Response
from fastapi.responses import RedirectResponse

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.hooks.pipeline_settings import PipelineSettings
from opensearch_batch.ui.airflow_runs import AirflowDatabase, ListedPipeline
from opensearch_batch.ui.login import SignedIn
from opensearch_batch.ui.rendering import Renderer

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
# The number of threads for pages. Airflow's own API uses up to 40 threads of the same process.
MAX_THREADS = 8
MAX_CONCURRENT_LISTINGS = 10
MAX_FORM_BYTES, MAX_FORM_FIELDS = 65_536, 100

DagId = Annotated[str, Path(max_length=250, pattern=r"^[\w.-]+$")]
RunId = Annotated[str, Path(max_length=250)]


class PageError(Exception):
    """A request that is refused: the status, and one sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class PagePart(msgspec.Struct, Generic[T], frozen=True):
    """The value of a part of a page, or one sentence why there is none."""

    value: T | None = None
    error: str = ""


class StoredFiles(NamedTuple):
    """The files of a pipeline, and what reads them."""

    settings: PipelineSettings
    layout: Layout
    reader: CachedReader


class PageServices:
    """Clients, caches and templates of the pages.

    Args:
        reader_of: returns the reader of the object storage of a connection.
        cluster_of: returns the cluster of a connection.
    """

    def __init__(self, reader_of: Callable[[str], CachedReader], cluster_of: Callable[[str], Cluster]) -> None:
        self.renderer = Renderer()
        self.airflow = AirflowDatabase()
        self.reader_of = reader_of
        self.cluster_of = cluster_of
        self.limiter = anyio.CapacityLimiter(MAX_THREADS)
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT_LISTINGS, thread_name_prefix="listings")

    def files_of(self, pipeline: ListedPipeline) -> StoredFiles:
        """Return where the files of a pipeline are; raise ConfigError if its settings cannot be read."""
        if pipeline.settings is None:
            raise ConfigError(pipeline.error)
        settings = pipeline.settings
        return StoredFiles(settings, settings.layout, self.reader_of(settings.aws_conn_id))

    def attempt(self, pipeline: ListedPipeline, read: Callable[[StoredFiles], T]) -> PagePart[T]:
        """Read a part of a page that a server may not have, so that the rest of the page is shown without it."""
        try:
            return PagePart(read(self.files_of(pipeline)))
        except BatchError as error:
            return PagePart(error=str(error))

    def each(self, items: Iterable[U], read: Callable[[U], T]) -> list[T]:
        """Read something of each of a few items at once."""
        return list(self._pool.map(read, items))


class Visit:
    """One request: its visitor, and the services that answer it."""

    def __init__(self, request: Request, visitor: SignedIn) -> None:
        self.request = request
        self.visitor = visitor
        self.services: PageServices = request.app.state.services

    def pipeline(self, dag_id: str) -> ListedPipeline:
        """Return a pipeline that the user may read; raise HTTPException (403) or PageError (404)."""
        self.visitor.require("GET", dag_id)
        pipelines = self.services.airflow.pipelines(dag_id)
        if not pipelines:
            raise PageError(HTTPStatus.NOT_FOUND, f"DAG {dag_id} is not a pipeline of opensearch-batch.")
        return pipelines[0]

    def pipeline_of_run(self, dag_id: str, run_id: str) -> ListedPipeline:
        """Return a pipeline with the settings of a run, which a DAG of requests has by run."""
        listed = self.pipeline(dag_id)
        if listed.settings is None or not listed.settings.is_request:
            return listed
        settings = listed.settings.of_run(self.services.airflow.conf_of_run(dag_id, run_id))
        return msgspec.structs.replace(listed, settings=settings)

    def page(self, name: str, **values: object) -> Response:
        """Return a page made by a template."""
        return self.services.renderer.page(self.request, name, values)

    def redirect(self, path: str) -> Response:
        """Send the browser to another page, after a form."""
        return RedirectResponse(f"{self.request.scope['root_path']}{path}", HTTPStatus.SEE_OTHER)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in one of the threads of the pages."""
        call = functools.partial(function, *args, **kwargs)
        return await anyio.to_thread.run_sync(call, limiter=self.services.limiter)


Visiting = Annotated[Visit, Depends()]


def in_thread(endpoint: Callable[P, Response]) -> Callable[P, Awaitable[Response]]:
    """Run an endpoint, which has an argument `visit`, in one of the threads of the pages."""

    @functools.wraps(endpoint)
    async def run(*args: P.args, **kwargs: P.kwargs) -> Response:
        visit = kwargs["visit"]
        assert isinstance(visit, Visit)  # noqa: S101 - FastAPI passes it by name
        return await visit.run(endpoint, *args, **kwargs)

    return run


async def form_of(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form; raise PageError for one that is too large."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FORM_BYTES:
            raise PageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A form has at most {MAX_FORM_BYTES:,} bytes.")
    try:
        return parse_qs(content.decode(), max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise PageError(HTTPStatus.BAD_REQUEST, f"This is not a form ({error}).") from None


Form = Annotated[dict[str, list[str]], Depends(form_of)]
