"""The credential of a request becomes an encrypted Airflow connection, which only its run may use.

It is stored in the transaction that creates the run, so neither exists without the other. It is removed when the run
has ended for any reason: a run may succeed, fail, be marked or deleted by a user, or lose its DAG, and its worker or
scheduler may die. No event covers all of these, so at its start and every `SWEEP_EVERY_S` the api-server searches for
connections whose run is not alive; usually there are none, and that is one query of a small table.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

from airflow.models.connection import Connection
from airflow.models.crypto import get_fernet
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import State
from fastapi import FastAPI
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import BatchIngestion, Credential
from opensearch_batch.hooks.connections import AWS_CONN_ID, run_conn_id
from opensearch_batch.hooks.stored_connections import find_stored_connection
from opensearch_batch.ui.login import DAG_ID
from opensearch_batch.ui.responses import ARGUMENT, ApiError

log = logging.getLogger(__name__)
SWEEP_EVERY_S = 10.0
OPENAI_CONN_ID = "openai_default"
# The members of an AWS connection's extra that locate a service. Members that identify the caller are not among them.
AWS_ADDRESSES = ("endpoint_url", "service_config", "verify")


def credential_connection(batch: BatchIngestion, credential: Credential, run_id: str) -> Connection:
    """Return the connection with the credential of a request, not yet stored.

    Addresses are those of the default connection of the service: an administrator has chosen them.

    Raises:
        ConfigError: the credential lacks a key that the sources need.
        ApiError: Airflow would store the connection unencrypted.
    """
    if not get_fernet().is_encrypted:
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            "credential: Airflow has no fernet_key, so it would be stored unencrypted; remove it, so that the run uses "
            "Airflow's connections, or set [core] fernet_key",
            kind=ARGUMENT,
        )
    conn_id = run_conn_id(DAG_ID, run_id)
    parts = _openai(credential) if batch.type == "openai" else _aws(credential)
    return Connection(conn_id=conn_id, description=f"credential of the request of run {run_id}", **parts)


def _aws(credential: Credential) -> dict[str, Any]:
    if not (credential.access_key and credential.secret_key):
        raise ConfigError("request: credential: access_key and secret_key are needed for sources in S3")
    default = find_stored_connection(AWS_CONN_ID, "aws")
    settings = {} if default is None else default.extra_dejson
    extra = {name: settings[name] for name in AWS_ADDRESSES if name in settings}
    # Airflow encrypts the extra, but not the login, in which an access key usually is.
    extra |= {"aws_access_key_id": credential.access_key, "aws_secret_access_key": credential.secret_key}
    extra |= {"aws_session_token": credential.token} if credential.token else {}
    extra |= {"region_name": credential.region} if credential.region else {}
    return {"conn_type": "aws", "extra": json.dumps(extra)}


def _openai(credential: Credential) -> dict[str, Any]:
    if not credential.openai_key:
        raise ConfigError("request: credential: openAI_key is needed for sources at OpenAI")
    default = find_stored_connection(OPENAI_CONN_ID, "http")
    address = {} if default is None else {"host": default.host, "schema": default.schema, "port": default.port}
    return {"conn_type": "http", "password": credential.openai_key, **address}


def remove_credentials_of_ended_runs() -> int:
    """Remove the connections of runs that have ended, or do not exist; return their number."""
    prefix = run_conn_id(DAG_ID, "")
    with create_session(scoped=False) as session:
        named = select(Connection.conn_id).where(Connection.conn_id.startswith(prefix, autoescape=True))
        # Some databases compare without regard to case.
        stored = [conn_id for conn_id in session.scalars(named) if conn_id.startswith(prefix)]
        if not stored:
            return 0
        run_ids = [conn_id.removeprefix(prefix) for conn_id in stored]
        alive = DagRun.dag_id == DAG_ID, DagRun.run_id.in_(run_ids), DagRun.state.in_(State.unfinished_dr_states)
        needed = {run_conn_id(DAG_ID, run_id) for run_id in session.scalars(select(DagRun.run_id).where(*alive))}
        ended = [conn_id for conn_id in stored if conn_id not in needed]
        if ended:
            session.execute(delete(Connection).where(Connection.conn_id.in_(ended)))
        return len(ended)


@asynccontextmanager
async def sweeping(_: FastAPI) -> AsyncIterator[None]:
    """Remove connections of ended runs as long as the app runs; the app's lifespan."""

    async def sweep() -> None:
        while True:
            try:
                await run_in_threadpool(remove_credentials_of_ended_runs)
            except SQLAlchemyError as error:
                log.warning("could not look for credentials of ended runs, trying again: %s", error)
            await asyncio.sleep(SWEEP_EVERY_S)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
