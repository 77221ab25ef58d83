"""Dead letters of a run by reason, with samples, and their replay."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Query, Response

from opensearch_batch.core.runs.dead_letter_samples import DeadLettersOfRun, dead_letters_of_run
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.ui.page_services import DagId, Form, PageError, RunId, StoredFiles, Visiting, in_thread
from opensearch_batch.ui.replays import DAG_ID, replays_of, start_replays

router = APIRouter()
# With many small parts, each letter is a request of the object storage.
MAX_READ_LETTERS, SHOWN_LETTERS, SHOWN_CHARS = 200, 20, 4_000
MAX_REPLAYS = 20
# A part of a reason that does not vary between records: no number and no quoted value.
_CONSTANT = re.compile(r"[^\d'\"]+")


@router.get("/pipelines/{dag_id}/runs/{run_id}/dead-letters")
@in_thread
def dead_letters(
    visit: Visiting,
    dag_id: DagId,
    run_id: RunId,
    reason: Annotated[str | None, Query(max_length=1_000)] = None,
    started: Annotated[int | None, Query(ge=0, le=MAX_REPLAYS)] = None,
) -> Response:
    """Show the dead letters of a run; with `reason`, samples of those with a reason like it."""
    listed, visitor = visit.pipeline_of_run(dag_id, run_id), visit.visitor
    # Logs of tasks quote records, too.
    visitor.require("GET", dag_id, DagAccessEntity.TASK_LOGS)
    part = visit.services.attempt(listed, lambda stored: _read(stored, run_id, reason))
    locations, settings = part.value.locations if part.value else [], listed.settings
    of_prepare = [each for each in locations if settings and settings.layout.is_prepare_dead_letters(each)]
    return visit.page(
        "dead_letters.html",
        pipeline=listed,
        run_id=run_id,
        letters=part.value,
        error=part.error,
        reason=reason,
        of_prepare=of_prepare,
        of_ingest=[each for each in locations if each not in of_prepare],
        may_replay=visitor.may("POST", dag_id) and visitor.may("POST", DAG_ID),
        replays=replays_of(locations) if visitor.may("GET", DAG_ID) else [],
        started=started,
        most=MAX_REPLAYS,
        shown_chars=SHOWN_CHARS,
    )


@router.post("/pipelines/{dag_id}/runs/{run_id}/replay")
@in_thread
def replay(visit: Visiting, dag_id: DagId, run_id: RunId, form: Form) -> Response:
    """Start the DAG `replay` for some of the locations of a run's dead letters."""
    listed = visit.pipeline_of_run(dag_id, run_id)
    for each in (dag_id, DAG_ID):
        visit.visitor.require("POST", each)
    stored, chosen = visit.services.files_of(listed), list(dict.fromkeys(form.get("location", [])))
    if not 1 <= len(chosen) <= MAX_REPLAYS or not set(chosen) <= set(_read(stored, run_id, None).locations):
        sentence = f"Choose between 1 and {MAX_REPLAYS} of the locations of this run's dead letters."
        raise PageError(HTTPStatus.BAD_REQUEST, sentence)
    started = start_replays(chosen, stored.settings, user_name=visit.visitor.user.get_name())
    return visit.redirect(f"/pipelines/{dag_id}/runs/{quote(run_id, safe='')}/dead-letters?started={started}")


def _read(stored: StoredFiles, run_id: str, reason: str | None) -> DeadLettersOfRun:
    return dead_letters_of_run(
        stored.reader,
        stored.layout,
        run_key(stored.layout.pipeline, run_id),
        reason=max(_CONSTANT.findall(reason), key=len, default="") if reason else None,
        limit=SHOWN_LETTERS if reason else 0,
        max_letters=MAX_READ_LETTERS,
    )
