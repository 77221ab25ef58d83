"""Sends a question to an index as three queries: by vector (neural), by words (text), and by both (hybrid)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster

# The `k` of the neural query. Lucene collects k candidates in each of its segments; with k equal to the number of hits,
# it would miss near documents.
CANDIDATES = 50
NORMALIZE = {"normalization-processor": {"normalization": {"technique": "min_max"}}}


class Hit(msgspec.Struct, frozen=True):
    """One document that was found; `text` is its text field."""

    id: str
    score: float
    text: str


class Answer(msgspec.Struct, frozen=True):
    """The hits of one kind of query, or why it failed."""

    kind: str
    hits: list[Hit] = []
    error: str = ""


class Question(msgspec.Struct, frozen=True):
    """A question to an index: its vector and text fields, and the model that embeds the question."""

    index: str
    text: str
    vector_field: str
    text_field: str
    model_id: str

    def queries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each kind of query with the members of its search request."""
        embedded = {"query_text": self.text, "model_id": self.model_id, "k": CANDIDATES}
        neural, match = {"neural": {self.vector_field: embedded}}, {"match": {self.text_field: self.text}}
        yield "neural", {"query": neural}
        yield "text", {"query": match}
        # Scores of vectors and of words differ in scale, so both are normalized before they are combined.
        pipeline = {"phase_results_processors": [NORMALIZE]}
        yield "hybrid", {"query": {"hybrid": {"queries": [neural, match]}}, "search_pipeline": pipeline}


def ask(cluster: Cluster, question: Question, *, size: int) -> list[Answer]:
    """Send the three queries; one that fails does not affect the others."""
    answers = []
    for kind, members in question.queries():
        body = {"size": size, "_source": [question.text_field], **members}
        try:
            response = cluster.call("POST", f"/{question.index}/_search", body)
        except BatchError as error:
            answers.append(Answer(kind, error=str(error)))
        else:
            answers.append(Answer(kind, [_hit(hit, question.text_field) for hit in response["hits"]["hits"]]))
    return answers


def fields_to_ask(cluster: Cluster, index: str, field_map: Mapping[str, Any], text_path: str | None) -> tuple[str, str]:
    """Return the vector field and the text field of an index that a pipeline writes; `text_path` is the model's input.

    Raise ConfigError if the index does not exist, or lacks one of them.
    """
    stored = cluster.index(index)
    if stored is None:
        raise ConfigError(f"no index {index!r}; run the pipeline first")
    vectors = [vector.name for vector in stored.vectors]
    vector = next((name for name in vectors if name in field_map), next(iter(vectors), None))
    types = {name: field.get("type") for name, field in stored.mappings.get("properties", {}).items()}
    texts = [name for name, kind in types.items() if kind == "text"]
    embedded_texts = [name for name in texts if text_path is not None and field_map.get(name) == text_path]
    text = next(iter(embedded_texts + texts), None)
    if vector is None or text is None:
        raise ConfigError(f"index {index!r} has no {'knn_vector' if vector is None else 'text'} field")
    return vector, text


def _hit(hit: Mapping[str, Any], text_field: str) -> Hit:
    value: Any = hit.get("_source", {})
    for name in text_field.split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return Hit(str(hit["_id"]), float(hit["_score"] or 0.0), str(value))
