"""A service user on a secured node: it works with the role of the document, and what is wrong is said by its name."""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.local_stack.certificates import Authority, certificate_pem
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.sinks.base import WrittenBody
from tests.security.secured import BODY, INGEST_ROLE, Secured, User, permissions, refusals, without, write

THREE = dict.fromkeys("abc", b'{"n":1}')


@pytest.fixture(scope="module")
def worker(secured: Secured) -> User:
    """A user with the document's role for ingest."""
    return secured.user(INGEST_ROLE)


@pytest.fixture(scope="module")
def probed(secured: Secured) -> User:
    """A user whose role changes from test to test."""
    return secured.user(INGEST_ROLE)


@pytest.fixture
def index(secured: Secured) -> Iterator[str]:
    """The name of an index that the role covers."""
    name = f"passages-{uuid.uuid4().hex[:12]}"
    yield name
    secured.admin("DELETE", f"{name}?ignore_unavailable=true")


@pytest.fixture
def foreign(secured: Secured) -> Iterator[str]:
    """An index that the role does not cover."""
    name = f"foreign-{uuid.uuid4().hex[:12]}"
    secured.admin("PUT", name, BODY)
    yield name
    secured.admin("DELETE", name)


def said(error: pytest.ExceptionInfo[ConfigError]) -> str:
    """Return everything that a log would hold of an error, its causes included."""
    return "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("compress", [False, True])
def test_documents_are_written_over_tls(secured: Secured, worker: User, index: str, *, compress: bool) -> None:
    """The role for ingest is enough to create an index, write to it and make it searchable."""
    cluster = secured.cluster(worker)
    cluster.create_index(index, BODY)
    (written,) = write(cluster, index, THREE, compress=compress)
    assert (written.indexed, written.refused) == (3, [])
    cluster.refresh(index)
    assert secured.admin("GET", f"{index}/_count")["count"] == 3


def test_a_wrong_password_names_login_and_password(secured: Secured, worker: User, index: str) -> None:
    """Neither the wrong password nor the right one stands in the error."""
    wrong = User(worker.name, "Wrong-Password-2")
    with pytest.raises(ConfigError, match="correct login and password of the connection") as raised:
        list(write(secured.cluster(wrong), index, THREE))
    assert wrong.password not in said(raised)
    assert worker.password not in said(raised)


@pytest.mark.parametrize("kind", ["system", "other"])
def test_an_unknown_authority_names_ca_certs(
    secured: Secured, worker: User, index: str, tmp_path: Path, kind: str
) -> None:
    """The system's authorities do not know the node, another authority of our own making neither."""
    other = tmp_path / "other.pem"
    other.write_bytes(certificate_pem(Authority().certificate))
    cluster = secured.cluster(worker, ca_certs=None if kind == "system" else str(other))
    with pytest.raises(
        ConfigError, match=r"certificate is not trusted .* as ca_certs in the connection's extra"
    ) as raised:
        list(write(cluster, index, THREE))
    assert worker.password not in said(raised)


def test_a_missing_authority_file_is_named(secured: Secured, worker: User, tmp_path: Path) -> None:
    """By its path, before anything is sent."""
    with pytest.raises(ConfigError, match=rf"ca_certs {tmp_path}/ca\.pem is not a file") as raised:
        secured.cluster(worker, ca_certs=str(tmp_path / "ca.pem"))
    assert worker.password not in said(raised)


def test_an_index_the_role_does_not_cover_is_named(secured: Secured, worker: User, foreign: str) -> None:
    """The node answers 200 with a 403 for each document: an error of the connection, and no dead letter."""
    cluster = secured.cluster(worker)
    answer = cluster.call("POST", f"/{foreign}/_bulk", b'{"index":{"_id":"a"}}\n{"n":1}\n')
    assert [item["index"]["status"] for item in answer["items"]] == [403]
    missing = r"no permissions for \[indices:data/write/bulk\[s\], indices:data/write/index\]"
    settled: list[WrittenBody] = []
    with pytest.raises(ConfigError, match=rf"index {foreign} .*\(403\).*{missing}") as raised:
        settled.extend(write(cluster, foreign, THREE))
    assert settled == []
    assert worker.password not in said(raised)
    assert secured.admin("GET", f"{foreign}/_count")["count"] == 0


def ingest(cluster_of: Secured, user: User, index: str) -> Iterator[Callable[[], object]]:
    """Yield every kind of call that ingest makes; none needs the success of another but create."""
    cluster = cluster_of.cluster(user)
    yield lambda: cluster.create_index(index, BODY)
    yield lambda: cluster.index(index)
    yield lambda: cluster.call("PUT", f"/{index}/_settings", {"index": {"refresh_interval": "5s"}})
    yield lambda: list(write(cluster, index, THREE))
    yield lambda: list(write(cluster, index, THREE, op_type="upsert"))
    yield lambda: list(write(cluster, index, {"d": b'{"not_mapped":1}'}))
    yield lambda: fetch(cluster_of, user, index)
    yield lambda: cluster.refresh(index)


def fetch(cluster_of: Secured, user: User, index: str) -> None:
    """Read what is there; a shard that refuses says so in the document's place."""
    (found,) = cluster_of.cluster(user).call("POST", f"/{index}/_mget", {"docs": [{"_id": "a"}]})["docs"]
    if "error" in found:
        raise ConfigError(str(found["error"]))


def test_the_role_for_ingest_is_enough(secured: Secured, worker: User, index: str) -> None:
    """No call is refused."""
    assert refusals(ingest(secured, worker, index)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("permission", permissions(INGEST_ROLE))
def test_the_role_for_ingest_holds_nothing_in_vain(secured: Secured, probed: User, index: str, permission: str) -> None:
    """Without any one of its permissions some call is refused, and the error names that permission."""
    user = secured.give(probed, without(INGEST_ROLE, permission))
    assert f"[{permission}]" in refusals(ingest(secured, user, index))
