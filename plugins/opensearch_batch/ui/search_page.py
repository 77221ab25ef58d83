"""Searches the index of a pipeline, side by side by vector, by words and by both.

A question costs a call of the model, so it needs the permission to start runs, and is a POST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus

from fastapi import APIRouter, Response

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.questions import (
    Answer,
    LikeDocument,
    Question,
    ask,
    fields_to_ask,
    like_document,
)
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.ui.page_services import DagId, Form, PageError, PagePart, StoredFiles, Visit, Visiting, in_thread

router = APIRouter()
SHOWN_HITS, MAX_QUESTION_CHARS, MAX_ID_CHARS, SHOWN_CHARS = 10, 1_000, 512, 400
KINDS = {"neural": "by meaning", "text": "by words", "hybrid": "by both"}


@router.get("/pipelines/{dag_id}/search")
@in_thread
def form(visit: Visiting, dag_id: DagId) -> Response:
    """Show the form."""
    return _page(visit, dag_id)


@router.post("/pipelines/{dag_id}/search")
@in_thread
def search(visit: Visiting, dag_id: DagId, form: Form) -> Response:
    """Show what a question finds, or what is like a document."""
    question, like = form.get("question", [""])[0].strip(), form.get("like", [""])[0]
    if len(question) > MAX_QUESTION_CHARS or len(like) > MAX_ID_CHARS:
        raise PageError(HTTPStatus.BAD_REQUEST, f"A question has at most {MAX_QUESTION_CHARS:,} characters.")
    return _page(visit, dag_id, question, like)


def _page(visit: Visit, dag_id: str, question: str = "", like: str = "") -> Response:
    listed = visit.pipeline(dag_id)
    visit.visitor.require("POST", dag_id)
    part = PagePart[list[Answer]]()
    if question or like:
        clusters = visit.services.cluster_of
        part = visit.services.attempt(listed, lambda stored: _answers(stored, clusters, question, like))
    return visit.page(
        "search.html",
        pipeline=listed,
        question=question,
        like=like,
        answers=part.value,
        kinds=KINDS,
        ranks=_ranks(part.value or ()),
        error=part.error,
        most=MAX_QUESTION_CHARS,
        shown_chars=SHOWN_CHARS,
    )


def _ranks(answers: Iterable[Answer]) -> dict[str, dict[str, int]]:
    """Return the rank of each document in each answer that has it."""
    ranks: dict[str, dict[str, int]] = {}
    for answer in answers:
        for rank, hit in enumerate(answer.hits, 1):
            ranks.setdefault(hit.id, {})[answer.kind] = rank
    return ranks


def _answers(stored: StoredFiles, clusters: Callable[[str], Cluster], question: str, like: str) -> list[Answer]:
    settings = stored.settings
    if settings.is_scan or settings.is_request:
        raise ConfigError(f"{settings.dag_id}: its runs may write to several indexes; search them in OpenSearch")
    newest = next(iter(recent_runs(stored.reader, stored.layout, limit=1)), None)
    if newest is None:
        raise ConfigError(f"{settings.dag_id}: no run has written documents yet; start one, then search")
    cluster, index = clusters(settings.opensearch_conn_id), newest.index or settings.index
    fields = fields_to_ask(cluster, index, {}, None)
    asked: Question | LikeDocument = Question(index, question, fields.vector, fields.text, newest.model_id)
    if like:
        asked = like_document(cluster, index, like, fields)
    return ask(cluster, asked, size=SHOWN_HITS, without=fields.vectors)
