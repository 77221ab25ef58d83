"""A node of the benchmarks' own, with S3 beside it; every run finds a fresh index on a node at rest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from benchmarks.rows import index_body
from include.local_stack.stack import Stack, StackOptions, down

HEAP, VERSION = "2g", "2.19.1"
INDEX = "bench"
TIMEOUT_S = 120
# At rest: no merge under way, and less than this share of a core used between two looks.
REST_SHARE, LOOK_EVERY_S, GIVE_UP_S = 0.1, 0.5, 90.0


class Node:
    """The node that is measured."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.addresses.opensearch
        self._http = stack.node_session()

    def call(self, method: str, path: str, body: object = None, *, ok_missing: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Send a request and return its answer.

        Raises:
            requests.HTTPError: the node refuses it; a 404 passes with `ok_missing`.
        """
        answer = self._http.request(method, f"{self.url}/{path}", json=body, timeout=TIMEOUT_S)
        if answer.status_code == requests.codes.not_found and ok_missing:
            return None
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def fresh_index(self, body: dict[str, Any] | None = None) -> None:
        """Delete the index, wait for rest, and make it again, for the rows of most benchmarks or with another body."""
        self.call("DELETE", INDEX, ok_missing=True)
        self.wait_for_rest()
        self.call("PUT", INDEX, body or index_body())

    def wait_for_rest(self) -> None:
        """Return when merges have ended and the node is idle.

        Raises:
            TimeoutError: it is busy for longer than an index of these sizes can explain.
        """
        give_up_at = time.monotonic() + GIVE_UP_S
        before = self.cpu_s()
        while time.monotonic() < give_up_at:
            time.sleep(LOOK_EVERY_S)
            now = self.cpu_s()
            if now - before < REST_SHARE * LOOK_EVERY_S and self._merges() == 0:
                return
            before = now
        raise TimeoutError(f"{self.url}: the node is still busy after {GIVE_UP_S:.0f} s")

    def refuse_other_count(self, documents: int) -> None:
        """Raise RuntimeError unless the index holds exactly so many documents."""
        found = self.call("GET", f"{INDEX}/_count")["count"]
        if found != documents:
            raise RuntimeError(f"{INDEX} holds {found} documents, {documents} were to be written")

    def cpu_s(self) -> float:
        """Return the processor seconds the node has used."""
        return float(self._stats("process")["process"]["cpu"]["total_in_millis"]) / 1000

    def _merges(self) -> int:
        return int(self._stats("indices/merge")["indices"]["merges"]["current"])

    def _stats(self, metric: str) -> dict[str, Any]:
        (found,) = self.call("GET", f"_nodes/stats/{metric}")["nodes"].values()
        return dict(found)


@contextmanager
def started() -> Iterator[Node]:
    """Run a node in a temporary home; it and its data are gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        options = StackOptions(
            home=Path(name),
            services=frozenset({"opensearch", "s3"}),
            opensearch_version=VERSION,
            opensearch_heap=HEAP,
            free_ports=True,
        )
        try:
            yield Node(Stack.up(options, say=_quiet))
        finally:
            down(Path(name), say=_quiet)


def _quiet(line: str) -> None:
    """Say nothing: the table is the output."""
