"""Who sends a request, and what he may do: Airflow's auth manager decides both.

A request brings a bearer token of Airflow, or a name and a password as clients of OpenSearch send them (HTTP basic). A
password is exchanged for a token at the auth manager's own endpoint ``/auth/token``, so it is checked there alone; an
auth manager without this endpoint accepts tokens only. The cookie of Airflow's UI does not count: a page of another
site could make a browser send it.

Permissions are those on the runs of the DAG `batch_ingestion`: who may read them may read tasks, who may trigger the
DAG may ingest, predict and cancel jobs, who may edit its runs may cancel them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated

import httpx
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag, resolve_user_from_token
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp

from opensearch_batch.ui.responses import SECURITY, ApiError

# The DAG that runs requests.
DAG_ID = "batch_ingestion"
AUTH_PATH = "/auth"


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


SignedIn = Annotated[BaseUser, Depends(signed_in)]


def permitted(method: ResourceMethod) -> Callable[[Request, BaseUser], Awaitable[BaseUser]]:
    """Return a dependency: the user, if he may do this with runs of the DAG; else it raises 403."""
    check = requires_access_dag(method, DagAccessEntity.RUN, DAG_ID)

    async def user_of(request: Request, user: SignedIn) -> BaseUser:
        await run_in_threadpool(check, request, user)
        return user

    return user_of


Reader = Annotated[BaseUser, Depends(permitted("GET"))]
Starter = Annotated[BaseUser, Depends(permitted("POST"))]
Editor = Annotated[BaseUser, Depends(permitted("PUT"))]
