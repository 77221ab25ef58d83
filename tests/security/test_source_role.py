"""The documented role to read a source index has every permission that a listing needs, and no other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from opensearch_batch.core.runs.index_objects import IndexObjects, IndexSource
from opensearch_batch.core.sharding.listing import index_uri
from tests.security.secured import BODY, SOURCE_ROLE, Secured, User, permissions, refusals, without


@pytest.fixture(scope="module")
def probed(secured: Secured) -> User:
    """A user whose role changes from test to test."""
    return secured.user(SOURCE_ROLE)


@pytest.fixture
def index(secured: Secured) -> Iterator[str]:
    """An index with a document that the role covers."""
    name = f"passages-{uuid.uuid4().hex[:12]}"
    secured.admin("PUT", name, BODY)
    secured.admin("PUT", f"{name}/_doc/a?refresh=true", {"n": 1})
    yield name
    secured.admin("DELETE", name)


def reading(secured: Secured, user: User, index: str) -> list[Callable[[], object]]:
    """Return the calls of a listing, which reads a document and closes its point in time."""

    def read() -> None:
        uri = index_uri("c", index)
        with IndexObjects(secured.cluster(user), IndexSource(index), uri) as blocks:
            (item,) = blocks.list(uri)
            stored = blocks.read(item.uri)
            assert stored is not None
            assert stored.content == b'{"_id":"a","n": 1}\n'

    return [read]


def test_the_role_to_read_an_index_is_enough(secured: Secured, probed: User, index: str) -> None:
    """No call is refused."""
    assert refusals(reading(secured, secured.give(probed, SOURCE_ROLE), index)) == ""


@pytest.mark.parametrize("permission", permissions(SOURCE_ROLE))
def test_the_role_to_read_an_index_holds_nothing_in_vain(
    secured: Secured, probed: User, index: str, permission: str
) -> None:
    """Without any one of its permissions a call is refused, and the error names that permission."""
    user = secured.give(probed, without(SOURCE_ROLE, permission))
    assert f"[{permission}]" in refusals(reading(secured, user, index))
