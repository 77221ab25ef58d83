"""`opensearch-batch ledger` with a real store and a real index: what it shows, compares and makes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from opensearch_batch.cli import main
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsWriter, with_verdicts
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.runs import ledger_rebuild
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import Savings
from opensearch_batch.core.types.manifest import ScopeClaim
from tests.lab import Lab
from tests.stored import present

VERSION = 7_000
Ledger = Callable[..., tuple[int, dict[str, Any]]]


def key(number: int) -> bytes:
    """A content key."""
    return number.to_bytes(16, "big")


@pytest.fixture
def layout(lab: Lab, index: str) -> Layout:
    """A pipeline of twelve documents with routing, which a run has committed."""
    layout = Layout(f"s3://{lab.new_bucket()}/work", "books")
    store = PredictionStore(lab.objects, layout.predictions())
    store.add("job", 1, [(key(number), StoredAnswer(b"[]")) for number in range(12)])
    lab.node("PUT", index, {"settings": {"number_of_shards": 3}})
    builder = RowsBuilder()
    for number in range(12):
        builder.add(f"d{number}", b"{}", [key(number)], line=number + 1, routing=f"r{number}")
        lab.node(
            "PUT", f"{index}/_doc/d{number}?routing=r{number}&version={VERSION}&version_type=external", {"n": number}
        )
    states, versions = np.full(12, RecordState.INDEXED, np.uint8), np.full(12, VERSION, np.int64)
    writer = RowsWriter(lab.objects, layout.scope_rows("scope"))
    writer.add("s3://in/a", with_verdicts(builder.table(), states, versions))
    part = writer.close()["s3://in/a"]
    entry = Entry(
        part.rows, part.first, part.count, part.states, etag="e", segments=dict(store.lookup([key(0)]).used_segments())
    )
    uuid = present(lab.cluster().index(index)).uuid
    claim = ScopeClaim(VERSION - 1, "run")
    head = Head(
        claim=claim,
        committed=claim.version,
        index=index,
        index_uuid=uuid,
        objects={"s3://in/a": entry},
        predictions=layout.predictions(),
        savings=Savings(2, 12, 0, 12),
    )
    save(lab.objects, layout.scope_head("scope"), head)
    return layout


@pytest.fixture
def ledger(lab: Lab, layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Run a command."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", lab.stack.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", lab.stack.credentials.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def run(command: str, *options: str) -> tuple[int, dict[str, Any]]:
        addresses = ["--opensearch-url", lab.stack.addresses.opensearch, "--s3-endpoint", lab.stack.addresses.s3]
        code = main(["ledger", command, f"{layout.root}/books/", *addresses, *options])
        return code, json.loads(capsys.readouterr().out) if "--json" in options else {}

    return run


def test_a_ledger_is_shown(ledger: Ledger, layout: Layout, index: str) -> None:
    """As text, and as one object."""
    code, shown = ledger("show", "--json")
    assert (code, shown["state"], shown["differences"]) == (0, "DONE", [])
    (scope,), (store,) = shown["scopes"], shown["stores"]
    assert (scope["scope"], scope["index"], scope["states"], scope["is_committed"]) == (
        "scope",
        index,
        {"indexed": 12},
        True,
    )
    assert (store["folder"], store["segments"], store["answers"], store["open"]) == (layout.predictions(), 1, 12, {})
    assert (store["needed"], store["garbage"], store["size"]["objects"]) == (0, 0, 3)
    assert (shown["files"]["objects"], shown["savings"]) == (2, {"runs": 2, "paid": 12, "spared": 12})
    assert ledger("show")[0] == 0


def test_a_store_is_compacted(lab: Lab, ledger: Ledger, layout: Layout) -> None:
    """The head says that one of twelve answers is needed, and the rows have all of them: then it is counted again."""
    PredictionStore(lab.objects, layout.predictions()).register(layout.scopes())
    code, compacted = ledger("compact", "--json")
    (store,) = compacted["stores"]
    assert (code, compacted["state"], store["segments"], store["answers"], store["needed"]) == (0, "DONE", 1, 12, 12)
    assert store["garbage"] == 1
    assert ledger("verify", "--json")[0] == 0


def test_a_damaged_head_is_shown_and_made_again(lab: Lab, ledger: Ledger, layout: Layout, index: str) -> None:
    """Its index has to be given; rows have ids, routing and versions of the documents, of all pages of the search."""
    lab.objects.write(layout.scope_head("scope"), b"{")
    code, shown = ledger("show", "--json")
    assert (code, shown["state"]) == (1, "DIFFERENT")
    assert "head.json: damaged" in shown["differences"][0]
    code, refused = ledger("rebuild", "--json")
    assert (code, refused["error"]) == (2, "scope scope: its head does not name the index; give --index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_rebuild, "PAGE", 5)
        code, rebuilt = ledger("rebuild", "--index", index, "--json")
    assert (code, rebuilt["scopes"][0]["states"], rebuilt["differences"]) == (0, {"indexed": 12}, [])
    head = present(JsonDocument(lab.objects, layout.scope_head("scope"), Head).read())
    (entry,) = head.objects.values()
    rows = [row for table in RowsReader(lab.objects).read(entry) for row in table.to_pylist()]
    found = sorted((row["id"], row["routing"], row["version"]) for row in rows)
    assert found == sorted((f"d{number}", f"r{number}", VERSION) for number in range(12))
    assert (head.claim.version, head.committed) == (VERSION + 1, VERSION + 1)
    assert ledger("verify", "--json")[1]["differences"] == []


def test_differences_are_named(lab: Lab, ledger: Ledger, index: str) -> None:
    """Documents that somebody has deleted."""
    assert ledger("verify", "--json")[:1] == (0,)
    lab.node("DELETE", f"{index}/_doc/d3?routing=r3")
    lab.node("DELETE", f"{index}/_doc/d4?routing=r4")
    code, verified = ledger("verify", "--json")
    assert (code, verified["state"]) == (1, "DIFFERENT")
    missing, count = verified["differences"]
    assert "2 of 12 sampled documents are missing" in missing
    assert f"index {index}: 10 documents, and the ledger has 12" in count


def test_a_lost_store_is_made_again(lab: Lab, ledger: Ledger, layout: Layout) -> None:
    """From its segments."""
    lab.objects.delete(f"{layout.predictions()}/head.json")
    (absent,) = ledger("verify", "--json")[1]["differences"]
    assert "the answers of 12 of 12 indexed records are not in the prediction store" in absent
    code, rebuilt = ledger("rebuild", "--predictions", "--json")
    assert (code, rebuilt["stores"][0]["answers"]) == (0, 12)
    assert ledger("verify", "--json")[0] == 0


def test_a_folder_without_a_ledger_is_refused(ledger: Ledger, lab: Lab, layout: Layout) -> None:
    """A name was misspelled."""
    for item in list(lab.objects.list(layout.scopes())):
        lab.objects.delete(item.uri)
    code, refused = ledger("show", "--json")
    assert (code, refused["state"]) == (2, "REFUSED")
    assert "no record ledger" in refused["error"]
