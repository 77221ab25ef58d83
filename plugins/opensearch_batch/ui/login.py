"""Authentication and authorization of requests, both by Airflow's auth manager.

Pages and the API accept a bearer token of Airflow. In addition,

- pages accept the cookie of Airflow's UI. A browser also sends the cookie with requests that a page of another site
  makes. So each request that changes something or costs money is a POST, and a POST with the cookie is refused unless
  it comes from a page of this site.
- the API accepts a name and a password as clients of OpenSearch send them (HTTP basic), but no cookie. A password is
  exchanged for a token at the auth manager's own endpoint ``/auth/token``, so it is checked there alone; an auth
  manager without this endpoint accepts tokens only.

Permissions are those on the runs of a DAG. For the API, it is the DAG `batch_ingestion`: permission to read its runs
allows to read tasks, permission to trigger it allows to ingest and predict, and permission to edit its runs allows to
cancel runs and jobs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

import httpx
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, resolve_user_from_token
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp

from opensearch_batch.ui.responses import SECURITY, ApiError

# The DAG that runs requests.
DAG_ID = "batch_ingestion"
AUTH_PATH = "/auth"
_VERBS: dict[ResourceMethod, str] = {"GET": "read", "POST": "start", "PUT": "change", "DELETE": "delete"}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Visitor:
    """The user of one request. Its methods read Airflow's database, so they are called in threads."""

    def __init__(self, user: BaseUser) -> None:
        self.user = user

    def readable(self, dag_ids: Sequence[str]) -> set[str]:
        """Return the DAGs whose runs the user may read."""
        teams = DagModel.get_dag_id_to_team_name_mapping(list(dag_ids))
        return {each for each in dag_ids if self._may("GET", DagDetails(each, teams.get(each)), DagAccessEntity.RUN)}

    def may(self, method: ResourceMethod, dag_id: str, entity: DagAccessEntity = DagAccessEntity.RUN) -> bool:
        """Return whether the user may do this with a part of a DAG, by default with its runs."""
        return self._may(method, DagDetails(dag_id, DagModel.get_team_name(dag_id)), entity)

    def require(self, method: ResourceMethod, dag_id: str, entity: DagAccessEntity = DagAccessEntity.RUN) -> None:
        """Raise HTTPException (403) unless the user may do this."""
        if not self.may(method, dag_id, entity):
            what = f"{_VERBS[method]} {entity.value.lower().replace('_', ' ').removesuffix('s')}s"
            raise HTTPException(HTTPStatus.FORBIDDEN, f"You may not {what} of DAG {dag_id}; ask an admin of Airflow")

    def _may(self, method: ResourceMethod, details: DagDetails, entity: DagAccessEntity) -> bool:
        return get_auth_manager().is_authorized_dag(
            method=method, access_entity=entity, details=details, user=self.user
        )


def visitor_of(request: Request, user: GetUserDep) -> Visitor:
    """Return the user who sends a request; Airflow raises 401 without a valid login."""
    refuse_other_sites(request)
    return Visitor(user)


def refuse_other_sites(request: Request) -> None:
    """Raise HTTPException (403) for a request with effects that a browser sends for a page of another site."""
    is_bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if request.method in SAFE_METHODS or is_bearer:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "")
    if site == "same-origin" if site is not None else urlsplit(origin).netloc in _own_hosts(request):
        return
    raise HTTPException(
        HTTPStatus.FORBIDDEN, "This request does not come from a page of this site; open the page again"
    )


def _own_hosts(request: Request) -> set[str]:
    """Return the hosts of this site, as the browser and as Airflow's configuration name them."""
    configured = urlsplit(conf.get("api", "base_url", fallback="") or "").netloc
    return {request.headers.get("host", ""), configured} - {""}


SignedIn = Annotated[Visitor, Depends(visitor_of)]


def _refusal(reason: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, reason, kind=SECURITY)


async def signed_in(request: Request) -> BaseUser:
    """Return the user of a request; raise ApiError (401) if it has no valid token or password."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = value.strip()
    elif scheme.lower() == "basic":
        token = await _exchange(request, *_name_and_password(value))
    else:
        raise _refusal("sign in with a bearer token of Airflow, or with name and password (HTTP basic)")
    try:
        return await resolve_user_from_token(token)
    except HTTPException as error:
        raise _refusal(f"{error.detail}; get a new token at {AUTH_PATH}/token") from None


def _name_and_password(value: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        decoded = b""
    name, separator, password = _text(decoded).partition(":")
    if not separator:
        raise _refusal("the Authorization header is not HTTP basic: base64 of name:password")
    return name, password


def _text(value: bytes) -> str:
    """Decode a login: curl sends the bytes of the terminal, mostly UTF-8, and opensearch-py sends Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _exchange(request: Request, name: str, password: str) -> str:
    """Return a token for a name and a password."""
    app = _auth_app(request)
    if app is None:
        raise _refusal("Airflow's auth manager checks no passwords; sign in with a bearer token")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=str(request.base_url)) as client:
        answer = await client.post("/token", json={"username": name, "password": password})
    if answer.status_code != HTTPStatus.CREATED:
        raise _refusal("wrong name or password, or Airflow's auth manager checks no passwords")
    return str(answer.json()["access_token"])


def _auth_app(request: Request) -> ASGIApp | None:
    """Return the auth manager's app, which Airflow mounts beside this one; None if there is none."""
    routes = request.scope["router"].routes
    return next((route.app for route in routes if isinstance(route, Mount) and route.path == AUTH_PATH), None)


def permitted(method: ResourceMethod) -> Callable[[BaseUser], Awaitable[BaseUser]]:
    """Return a dependency that returns the user, or raises 403 if the user may not do this with runs of the DAG."""

    async def user_of(user: Annotated[BaseUser, Depends(signed_in)]) -> BaseUser:
        await run_in_threadpool(Visitor(user).require, method, DAG_ID)
        return user

    return user_of


Reader = Annotated[BaseUser, Depends(permitted("GET"))]
Starter = Annotated[BaseUser, Depends(permitted("POST"))]
Editor = Annotated[BaseUser, Depends(permitted("PUT"))]
