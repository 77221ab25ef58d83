"""Who asks for a page, and what he may see and do: Airflow's auth manager decides both.

A browser sends the cookie of Airflow's UI, a program a bearer token. A browser also sends the cookie when a page of
another site makes it; so whatever changes something or costs money is a POST, and a POST with the cookie has to come
from a page of this site.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, Request

_VERBS: dict[ResourceMethod, str] = {"GET": "read", "POST": "start", "PUT": "change", "DELETE": "delete"}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class PageError(Exception):
    """A request that is refused: the status, and one sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


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
        """Raise PageError (403) unless the user may do this."""
        if not self.may(method, dag_id, entity):
            what = f"{_VERBS[method]} {entity.value.lower().replace('_', ' ').removesuffix('s')}s"
            raise PageError(HTTPStatus.FORBIDDEN, f"You may not {what} of DAG {dag_id}; ask an admin of Airflow.")

    def _may(self, method: ResourceMethod, details: DagDetails, entity: DagAccessEntity) -> bool:
        return get_auth_manager().is_authorized_dag(
            method=method, access_entity=entity, details=details, user=self.user
        )


def visitor_of(request: Request, user: GetUserDep) -> Visitor:
    """Return who sends a request; Airflow raises 401 without a valid login."""
    refuse_other_sites(request)
    return Visitor(user)


def refuse_other_sites(request: Request) -> None:
    """Raise PageError (403) for a request with effects that a browser sends for a page of another site."""
    is_bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if request.method in SAFE_METHODS or is_bearer:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "")
    if site == "same-origin" if site is not None else urlsplit(origin).netloc in _own_hosts(request):
        return
    raise PageError(HTTPStatus.FORBIDDEN, "This request does not come from a page of this site; open the page again.")


def _own_hosts(request: Request) -> set[str]:
    """Return the hosts of this site, as the browser and as Airflow's configuration name them."""
    configured = urlsplit(conf.get("api", "base_url", fallback="") or "").netloc
    return {request.headers.get("host", ""), configured} - {""}


SignedIn = Annotated[Visitor, Depends(visitor_of)]
