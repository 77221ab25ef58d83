"""The cases of the reference, and what comes of each here.

Observed on a real OpenSearch 2.19.1 node: each case has the files, the `_batch_ingestion` request, and what the node
answered and wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import openai

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.request_ingest import run_batch_ingestion
from opensearch_batch.core.storage.by_uri import Scheme
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.services.registry import row_errors, stores
from tests.lab import Lab
from tests.stored import dead_letters
from tests.waiting import WAIT_S

FILE = Path(__file__).resolve().parents[1] / "reference_cases" / "batch_ingestion.json"
Documents = dict[str, Any]


class Case(msgspec.Struct, frozen=True):
    """One case; `docs` None means that the reference left no index, `doc_ids` stand for many documents."""

    name: str
    files: list[str]
    request: dict[str, Any]
    status: int = 200
    task: dict[str, Any] = {}
    index: dict[str, Any] | None = None
    pre: dict[str, Any] | None = None
    docs: dict[str, Any] | None = None
    doc_count: int | None = None

    @property
    def documents(self) -> Documents | None:
        """What the reference wrote, by id."""
        return self.docs and {name: doc["source"] for name, doc in self.docs.items()}

    @property
    def has_ids(self) -> bool:
        """Whether the map names ids; the reference makes random ones if not."""
        return "_id" in self.request.get("field_map", {})


class Outcome(msgspec.Struct, frozen=True):
    """What came of a case here."""

    error: str | None = None
    documents: Documents = {}
    counts: IngestCounts = IngestCounts()
    reasons: list[str] = []


def cases() -> list[Case]:
    """Read all cases."""
    return msgspec.json.decode(FILE.read_bytes(), type=list[Case])


def run(case: Case, lab: Lab, **beyond: Any) -> Outcome:
    """Run a case's request as it is (but for the ids of uploaded files), with members beyond the documents."""
    index = str(case.request["index_name"])
    client = openai.OpenAI(
        api_key=lab.stack.credentials.secret_key, base_url=f"{lab.stack.addresses.ai_services}/v1", max_retries=0
    )
    objects = stores({"s3": Scheme(lambda: lab.objects)}, lambda _: client, services=["openai"])
    work_bucket = "bi-work"
    lab.s3.create_bucket(Bucket=work_bucket)
    try:
        request = {**_uploaded(case, lab, client), **beyond}
        _prepare(case, lab, index)
        batch = parse_request(request, case.name)
        report = run_batch_ingestion(
            batch,
            objects,
            lab.cluster(),
            work_prefix=f"s3://{work_bucket}/{case.name}",
            row_errors=row_errors(),
            force=True,
        )
        reasons = [letter.reason for letter in dead_letters(lab.objects, report.dead_letters)]
        return Outcome(None, documents_in(lab, index), report.counts, reasons)
    except ConfigError as error:
        return Outcome(str(error), documents_in(lab, index))
    finally:
        client.close()
        lab.http.delete(f"{lab.stack.addresses.opensearch}/{index}", timeout=WAIT_S)


def documents_in(lab: Lab, index: str) -> Documents:
    """Return all documents of an index, nothing where there is none."""
    answer = lab.http.post(f"{lab.stack.addresses.opensearch}/{index}/_refresh", timeout=WAIT_S)
    if answer.status_code in (400, 404):
        return {}
    return lab.documents(index)


def _uploaded(case: Case, lab: Lab, client: openai.OpenAI) -> dict[str, Any]:
    """Put the files where the request names them."""
    source = case.request["data_source"]
    if source["type"] == "openai":
        ids = [
            client.files.create(file=(f"{case.name}.jsonl", text.encode()), purpose="batch").id for text in case.files
        ]
        return {**case.request, "data_source": {**source, "source": ids}}
    bucket = case.name.replace("_", "-")
    lab.s3.create_bucket(Bucket=f"bi-{bucket}")
    for number, text in enumerate(case.files):
        lab.objects.write(f"s3://bi-{bucket}/f{number}", text.encode())
    return case.request


def _prepare(case: Case, lab: Lab, index: str) -> None:
    if case.index is not None:
        lab.node("PUT", index, case.index)
    for name, document in (case.pre or {}).items():
        lab.node("PUT", f"{index}/_doc/{name}", json.loads(json.dumps(document)))
