"""The pages of pipelines, at ``/opensearch-batch``: in Airflow's navigation, and a tab of each DAG, run and task.

- who: The login of Airflow's UI; its auth manager decides by the permissions on the runs of each DAG (`ui.login`).
  Nothing is answered without a login, also no static file.
- data: States and schedules come from Airflow's database, all else from the files of the runs (`core.runs.run_lists`).
  Each request reads a bounded part of both, whatever the number of runs, shards and dead letters.
- cost: A few threads of the api-server (`ui.page_services`), a few streams of events (`ui.live`), 8 MB of documents for
  each object storage. The scheduler and the workers do not import this package.
- browser: Rendered on the server; scripts only refresh, and draw charts. A Content-Security-Policy allows no inline
  script or style, and nothing from other sites.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.hooks.shared_clients import shared_client
from opensearch_batch.hooks.stored_runs import reader_of
from opensearch_batch.ui import job_pages, letter_pages, live, run_pages, search_page
from opensearch_batch.ui.login import visitor_of
from opensearch_batch.ui.page_services import PageError, PageServices, Visiting

log = logging.getLogger(__name__)
PREFIX = "/opensearch-batch"


def create_pages(
    readers: Callable[[str], CachedReader] = reader_of, clusters: Callable[[str], Cluster] | None = None
) -> FastAPI:
    """Return the app; Airflow mounts it at `PREFIX`."""
    app = FastAPI(
        title="Pipelines", openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(visitor_of)]
    )
    app.state.services = PageServices(readers, clusters or _cluster_of)
    app.state.feeds = live.Feeds()
    for module in (run_pages, letter_pages, job_pages, search_page, live):
        app.include_router(module.router)

    @app.get("/static/{name}")
    async def static(visit: Visiting, name: str) -> Response:
        static_file = visit.services.renderer.file(name)
        if static_file is None:
            raise PageError(HTTPStatus.NOT_FOUND, "There is no such file.")
        return static_file

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def unknown(path: str) -> Response:  # noqa: ARG001 - any
        raise PageError(HTTPStatus.NOT_FOUND, "There is no such page.")

    for kind, convert in _ERRORS.items():
        app.add_exception_handler(kind, _handler(convert))
    return app


def _cluster_of(conn_id: str) -> Cluster:
    return shared_client("opensearch pages", conn_id, lambda: OpenSearchMLHook(conn_id).cluster)


def _handler(convert: Callable[..., PageError]) -> Callable[[Request, Exception], Response]:
    def handle(request: Request, error: Exception) -> Response:
        page_error = convert(error)
        services: PageServices = request.app.state.services
        return services.renderer.page(request, "error.html", {"sentence": str(page_error)}, status=page_error.status)

    return handle


def _of_http_exception(error: HTTPException) -> PageError:
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        return PageError(error.status_code, "You are not signed in; sign in to Airflow, then open this page again.")
    return PageError(error.status_code, f"{error.detail}.")


def _of_invalid(error: RequestValidationError) -> PageError:
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return PageError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} in the address is not valid: {first['msg']}.")


def _of_database_error(error: OperationalError) -> PageError:
    log.warning("Airflow's database: %s", error.orig)
    return PageError(HTTPStatus.SERVICE_UNAVAILABLE, "Airflow's database does not answer; try again.")


def _of_unexpected(error: Exception) -> PageError:
    log.error("unexpected error", exc_info=error)
    return PageError(HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected error; the api-server's log has it.")


_ERRORS: dict[type[Exception], Callable[..., PageError]] = {
    PageError: lambda error: error,
    BatchError: lambda error: PageError(HTTPStatus.BAD_GATEWAY, str(error)),
    HTTPException: _of_http_exception,
    RequestValidationError: _of_invalid,
    OperationalError: _of_database_error,
    Exception: _of_unexpected,
}


@cache
def page_apps() -> list[dict[str, Any]]:
    """Return what the plugin gives Airflow's api-server to mount."""
    return [{"app": create_pages(), "url_prefix": PREFIX, "name": "Pages of opensearch-batch"}]
