"""The documented role for all stages has every permission that the stages need at ML Commons, and no other."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator

import pytest

from include.local_stack.opensearch_security import ROLE_FILE
from opensearch_batch.core.opensearch.ml_commons import ML, MLCommons
from tests.security.secured import (
    ALL_STAGES_ROLE,
    INGEST_ROLE,
    ML_MAPPING,
    Job,
    Secured,
    User,
    permissions,
    refusals,
    submit,
    without,
)

ML_PERMISSIONS = [name for name in permissions(ALL_STAGES_ROLE) if name not in permissions(INGEST_ROLE)]


@pytest.fixture(scope="module")
def job(secured: Secured) -> Job:
    """A model and a job of it, so that no call of a user depends on another."""
    admin = User("admin", secured.stack.credentials.opensearch_admin_password)
    ml = MLCommons(secured.cluster(admin))
    model = ml.ensure_model(f"model {uuid.uuid4().hex}", secured.connector())
    return Job(model.id, submit(ml, model.id))


@pytest.fixture(scope="module")
def probed(secured: Secured) -> User:
    """A user whose role changes from test to test."""
    return secured.user(ALL_STAGES_ROLE)


def flow(secured: Secured, user: User, job: Job) -> Iterator[Callable[[], object]]:
    """Yield every kind of call that the stages make of ML Commons."""
    cluster = secured.cluster(user)
    ml = MLCommons(cluster)
    name, connector = f"model {uuid.uuid4().hex}", secured.connector()
    # The second time its key has changed.
    yield lambda: ml.ensure_model(name, connector)
    yield lambda: ml.ensure_model(name, {**connector, "credential": {**connector["credential"], "secret_key": "new"}})
    yield lambda: ml.model(job.model_id)
    yield lambda: submit(ml, job.model_id)
    yield lambda: list(ml.tasks(job.model_id))
    yield lambda: ml.task(job.ml_task_id)
    yield lambda: cluster.call("POST", f"{ML}/tasks/{submit(ml, job.model_id)}/_cancel")


def test_the_stack_gives_its_worker_the_role_of_the_document() -> None:
    """What the document says is what `make up SECURITY=on` does."""
    assert json.loads(ROLE_FILE.read_text()) == ALL_STAGES_ROLE


def test_the_role_for_all_stages_is_the_one_for_ingest_and_more() -> None:
    """Whoever may do all may ingest."""
    assert set(permissions(INGEST_ROLE)) < set(permissions(ALL_STAGES_ROLE))


def test_the_role_for_all_stages_is_enough(secured: Secured, job: Job) -> None:
    """No call is refused."""
    assert refusals(flow(secured, secured.user(ALL_STAGES_ROLE), job)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("permission", ML_PERMISSIONS)
def test_the_role_for_all_stages_holds_nothing_in_vain(
    secured: Secured, probed: User, job: Job, permission: str
) -> None:
    """Without any one of its permissions some call is refused, and the error names that permission."""
    user = secured.give(probed, without(ALL_STAGES_ROLE, permission))
    assert f"[{permission}]" in refusals(flow(secured, user, job))


def test_ml_full_access_goes_with_the_role_for_ingest(secured: Secured, job: Job) -> None:
    """Mapped by an ARN, as on Amazon OpenSearch Service, it stands for all permissions of ML Commons."""
    secured.admin("PUT", "_plugins/_security/api/rolesmapping/ml_full_access", ML_MAPPING)
    user = secured.user(INGEST_ROLE, backend_roles=ML_MAPPING["backend_roles"])
    assert refusals(flow(secured, user, job)) == ""
