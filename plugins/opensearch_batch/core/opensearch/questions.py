"""Sends a question to an index as three queries: by vector (neural), by words (text), and by both (hybrid).

The question may also be a document: then the queries search for similar documents, without calling a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster

# The `k` of the neural query. Lucene collects k candidates in each of its segments; with k equal to the number of hits,
# it would miss near documents.
CANDIDATES = 50
NORMALIZE = {"normalization-processor": {"normalization": {"technique": "min_max"}}}


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document that was found; `text` is its text field, `fields` are all requested fields."""

    id: str
    score: float
    text: str
    fields: dict[str, Any] = {}


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
        yield from _three(neural, match)


class LikeDocument(msgspec.Struct, frozen=True):
    """A question for documents like the one with an `id`, whose vector is known."""

    index: str
    id: str
    vector: list[float]
    vector_field: str
    text_field: str

    def queries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each kind of query with the members of its search request."""
        near = {"knn": {self.vector_field: {"vector": self.vector, "k": CANDIDATES}}}
        others = {"bool": {"must": [near], "must_not": [{"ids": {"values": [self.id]}}]}}
        like = {"fields": [self.text_field], "like": [{"_index": self.index, "_id": self.id}]}
        yield from _three(others, {"more_like_this": {**like, "min_term_freq": 1, "min_doc_freq": 1}})


def _three(by_vector: dict[str, Any], by_words: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "neural", {"query": by_vector}
    yield "text", {"query": by_words}
    # Scores of vectors and of words differ in scale, so both are normalized before they are combined.
    pipeline = {"phase_results_processors": [NORMALIZE]}
    yield "hybrid", {"query": {"hybrid": {"queries": [by_vector, by_words]}}, "search_pipeline": pipeline}


def ask(
    cluster: Cluster, question: Question | LikeDocument, *, size: int, without: Sequence[str] | None = None
) -> list[Answer]:
    """Send the three queries; one that fails does not affect the others.

    Hits have only the text field, or all fields but those of `without`, which may be vectors.
    """
    answers = []
    source = [question.text_field] if without is None else {"excludes": list(without)}
    for kind, members in question.queries():
        body = {"size": size, "_source": source, **members}
        try:
            response = cluster.call("POST", f"/{question.index}/_search", body)
        except BatchError as error:
            answers.append(Answer(kind, error=str(error)))
        else:
            hits = response["hits"]["hits"]
            answer_hits = [_hit(hit, question.text_field, is_whole=without is not None) for hit in hits]
            answers.append(Answer(kind, answer_hits))
    return answers


def like_document(cluster: Cluster, index: str, id_: str, fields: SearchFields) -> LikeDocument:
    """Return the question for documents like one of the index; raise ConfigError if it has no such document."""
    body = {"size": 1, "query": {"ids": {"values": [id_]}}, "_source": [fields.vector]}
    hits = cluster.call("POST", f"/{index}/_search", body)["hits"]["hits"]
    vector = _at(hits[0].get("_source", {}), fields.vector) if hits else None
    if not isinstance(vector, list):
        raise ConfigError(f"index {index!r} has no document {id_!r} with a vector in {fields.vector}")
    return LikeDocument(index, id_, vector, fields.vector, fields.text)


class SearchFields(NamedTuple):
    """The vector field and the text field to query, and all vector fields of an index."""

    vector: str
    text: str
    vectors: list[str]


def fields_to_ask(cluster: Cluster, index: str, field_map: Mapping[str, Any], text_path: str | None) -> SearchFields:
    """Return the fields of an index that a pipeline writes; `text_path` is the model's input.

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
    return SearchFields(vector, text, vectors)


def _hit(hit: Mapping[str, Any], text_field: str, *, is_whole: bool) -> Hit:
    source = hit.get("_source", {})
    text = str(_at(source, text_field, ""))
    return Hit(str(hit["_id"]), float(hit["_score"] or 0.0), text, source if is_whole else {})


def _at(value: object, path: str, default: object = None) -> object:
    """Return the value at a path such as ``a.b`` in a document."""
    for name in path.split("."):
        value = value.get(name, default) if isinstance(value, dict) else default
    return value
