"""2,000 passages in 20 objects; then some change: the next run pays for and writes these alone.

Shows only what it measured: classes of records, texts that SageMaker computed, operations that the index saw, and a
question whose answer changed. Run again, it puts the passages back first, and finds every prediction in the store.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import requests
from rich.table import Table

from include.local_stack.demo import CANDIDATES, DOCUMENTS, SAMPLE, TIMEOUT_S, Demo, console, print_starts
from include.local_stack.stack import Stack, StackError
from opensearch_batch.core.types.manifest import PrepareCounts

DAG_ID, PREFIX = "passages_incremental", "incremental/"
OBJECTS, PASSAGES = 20, 100
QUESTION = "which program runs a batch of jobs every night?"
EDITED, NEW, REMOVED = 3, 7, 11
RENAMED = "part-15.jsonl", "part-15-renamed.jsonl"
TEXTS = (
    "scheduler: a computer program that starts batch jobs at fixed times, such as every night, and repeats failures.",
    "ledger: a book in which each change of an account is one line, so that nobody pays for the same thing twice.",
    "prediction: what a model returns for a text; it stays the same until the text or the model changes.",
    "vector: a list of numbers for a text; texts that mean nearly the same have nearly the same numbers.",
    "object storage: files under keys, each with a tag that changes when the content does.",
)
NEW_TEXTS = (
    "tombstone: a record that says that another record is to be deleted.",
    "snapshot: a listing that is the whole truth; what it lacks was removed.",
    "index: a structure that finds documents by their words, or by the numbers that stand for their meaning.",
)
# The classes of records without tombstones, each with the member of the manifest's counts.
CLASSES = {
    "new": "new",
    "input changed": "input_changed",
    "other fields changed": "other_changed",
    "unchanged": "unchanged",
    "removed": "removed",
    "duplicate id": "duplicate",
}
Passage = dict[str, Any]


class Incremental(Demo):
    """Two runs of the incremental pipeline on a running stack."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack, "sagemaker", dag_id=DAG_ID)

    def run(self) -> bool:
        """Put the passages, run, change some, run again; False when a run failed."""
        self._provide_buckets()
        self._provide_model()
        objects = _passages()
        self._put_all(objects)
        self._airflow.wait_for_dag(DAG_ID)
        if not self._night("as they are"):
            return False
        before = self._best_answer()
        _change(objects)
        self._put_all(objects)
        console.print(
            f"\n{len(TEXTS)} texts edited, {len(NEW_TEXTS)} new records, 2 removed, "
            f"{RENAMED[0]} renamed to {RENAMED[1]}"
        )
        if not self._night("after the changes"):
            return False
        console.print(f"\n[bold]{QUESTION}[/bold]\n  before  {before}\n  now     {self._best_answer()}")
        self._show_addresses()
        return True

    def _put_all(self, objects: dict[str, list[Passage]]) -> None:
        """Make the source these objects; objects with the same content keep their ETag."""
        for item in list(self._objects.list(f"s3://{DOCUMENTS}/{PREFIX}")):
            if item.uri.rpartition("/")[2] not in objects:
                self._objects.delete(item.uri)
        for name, passages in objects.items():
            body = b"".join(msgspec.json.encode(passage) + b"\n" for passage in passages)
            self._s3.put_object(Bucket=DOCUMENTS, Key=f"{PREFIX}{name}", Body=body)
        count = sum(map(len, objects.values()))
        console.print(f"{count:,} passages in {len(objects)} objects of s3://{DOCUMENTS}/{PREFIX}")

    def _night(self, name: str) -> bool:
        """Run the pipeline once, and show what it did; False when it failed."""
        console.print(f"\nA run over the passages {name}:")
        paid, written, deleted = self._texts(), *self._operations()
        tasks = self._follow(self._airflow.trigger(DAG_ID))
        if tasks is None:
            return False
        written_now, deleted_now = self._operations()
        self._show_classes(self._manifest(tasks).counts)
        console.print(
            f"{self._texts() - paid:,} records paid for (texts that SageMaker computed), "
            f"{written_now - written + deleted_now - deleted:,} index operations: "
            f"{written_now - written:,} documents written, {deleted_now - deleted:,} deleted"
        )
        return True

    def _show_classes(self, counts: PrepareCounts) -> None:
        table = Table(*CLASSES, box=None, pad_edge=False)
        table.add_row(*(f"{getattr(counts, member):,}" for member in CLASSES.values()))
        console.print(table)
        console.print(f"{counts.opened} of {counts.objects} objects were read, with {counts.read:,} records")

    def _texts(self) -> int:
        """Return how many texts SageMaker's jobs ever computed."""
        answer = self._http.get(f"{self._stack.addresses.ai_services}/texts/count", timeout=TIMEOUT_S)
        return int(answer.json()[self._service])

    def _operations(self) -> tuple[int, int]:
        """Return how many documents the index ever wrote and deleted."""
        url = f"{self._stack.addresses.opensearch}/{self._index}/_stats/indexing"
        answer = self._node.get(url, timeout=TIMEOUT_S)
        if answer.status_code == requests.codes.not_found:
            return 0, 0
        indexing = answer.json()["_all"]["primaries"]["indexing"]
        return int(indexing["index_total"]), int(indexing["delete_total"])

    def _best_answer(self) -> str:
        query = {"query_text": QUESTION, "model_id": self._model_id(), "k": CANDIDATES}
        score, text = self._search({"neural": {self.vector_field: query}})[0]
        return f"{score:.3f}  {text[:100]}"


def _passages() -> dict[str, list[Passage]]:
    """Return the sample's passages by the name of their object."""
    with gzip.open(SAMPLE) as sample:
        passages = [msgspec.json.decode(line) for line in sample]
    return {f"part-{at:02}.jsonl": passages[at * PASSAGES : (at + 1) * PASSAGES] for at in range(OBJECTS)}


def _change(objects: dict[str, list[Passage]]) -> None:
    """Edit, add, remove and rename."""
    names = list(objects)
    edited, extended, shortened = (objects[names[at]] for at in (EDITED, NEW, REMOVED))
    for passage, text in zip(edited, TEXTS, strict=False):
        passage["text"] = text
    extended += _new_passages(NEW_TEXTS)
    del shortened[:2]
    objects[RENAMED[1]] = objects.pop(RENAMED[0])


def _new_passages(texts: Iterable[str]) -> list[Passage]:
    return [
        {"_id": f"new-{number}", "text": text, "metadata": {"pos": "noun", "lemma": text.partition(":")[0]}}
        for number, text in enumerate(texts, 1)
    ]


def main() -> int:
    """Start the stack if it is not up, and run both nights."""
    try:
        return 0 if Incremental(Stack.up(say=print_starts)).run() else 1
    except StackError as error:
        console.print(f"incremental: {error}", style="red")
        return 1


if __name__ == "__main__":
    sys.exit(main())
