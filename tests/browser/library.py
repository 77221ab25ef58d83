"""Pipelines of the sample's passages, each with a year, which an index takes as a number only."""

from __future__ import annotations

import copy
import gzip
import json
from typing import Any

from include.local_stack.settings import REPOSITORY
from tests.end_to_end.own_pipelines import INDEX_BODY, OwnPipelines
from tests.lab import Lab

SAMPLE = REPOSITORY / "include" / "samples" / "passages.jsonl.gz"
UNDATED = "long ago"
FIELD_MAP = {"text": "$.text", "lemma": "$.metadata.lemma", "year": "$.year", "embedding": "prediction"}
Passage = dict[str, Any]


class Library(OwnPipelines):
    """A user's pipelines."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        body: Any = copy.deepcopy(INDEX_BODY)
        body["mappings"]["properties"]["year"] = {"type": "integer"}
        (self.folder / "indexes" / "library.json").write_text(json.dumps(body))
        with gzip.open(SAMPLE) as sample:
            self.passages: list[Passage] = [json.loads(line) for line in sample]
        for number, passage in enumerate(self.passages):
            passage["year"] = 1500 + number % 500

    def add_library(self, name: str, **parts: Any) -> str:
        """Write a pipeline and wait until Airflow has it; return the name of its index."""
        ingest = {"index_body": "library", "field_map": FIELD_MAP}
        self.write(name, self.spec(name, **({"ingest": ingest} | parts)))
        self.airflow.wait_for_dag(name)
        return name.replace("_", "-")

    def put_passages(self, name: str, passages: list[Passage], *, key: str = "passages", undated: int = 0) -> None:
        """Write passages, the first of them without a date that the index takes."""
        lines = [each | ({"year": UNDATED} if at < undated else {}) for at, each in enumerate(passages)]
        body = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
        self.lab.s3.put_object(Bucket=self.documents, Key=f"{name}/{key}.jsonl", Body=body)

    def take_any_year(self, index: str) -> None:
        """Mend the index: it ignores what is no year."""
        year = {"type": "integer", "ignore_malformed": True}
        self.lab.node("PUT", f"{index}/_mapping", {"properties": {"year": year}})
