"""What a Data Prepper file does in silence is said before it runs: rows lost, jobs paid twice, vectors unsearchable.

None of it is a mistake: the file runs, here mostly better than in the original; a person should know where they differ.
Source: Data Prepper's s3 source, ml_inference and opensearch sink (2.17), and the printed samples run with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile

import msgspec

from opensearch_batch.core.data_prepper.codec_options import CsvInput, JsonInput, NdjsonInput, NewlineInput
from opensearch_batch.core.data_prepper.event import MISSING, Event, EventError, Key, key_of
from opensearch_batch.core.data_prepper.file import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.flow import DEFAULT_ROUTE, DROPPED
from opensearch_batch.core.data_prepper.indexing import is_dynamic
from opensearch_batch.core.data_prepper.lacking import lacking_keys
from opensearch_batch.core.data_prepper.node_values import stands_at
from opensearch_batch.core.data_prepper.processors.add_entries import AddEntries
from opensearch_batch.core.data_prepper.processors.base import ProcessorOptions, keys_named
from opensearch_batch.core.data_prepper.processors.parse_json import ParseJson
from opensearch_batch.core.data_prepper.processors.rename_keys import RenameKeys
from opensearch_batch.core.data_prepper.road import PREDICTION_MEMBERS, Road, metadata_event
from opensearch_batch.core.data_prepper.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.scan import Area, area_of
from opensearch_batch.core.data_prepper.sinks import OpenSearchSink
from opensearch_batch.core.field_map import ID_FIELD
from opensearch_batch.core.objects import ObjectInfo
from opensearch_batch.core.yaml_file import Keys, Node, YamlFile, dotted

MANIFEST = ".manifest"
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/\S+")
_SOURCE: Keys = ("source", "s3")


class Finding(msgspec.Struct, frozen=True):
    """What the user should know of a place in a file: what the original does there, and what happens here.

    `trap` numbers the kind of it, from 1 to 12.
    """

    line: int
    place: str
    trap: int
    text: str


def lint(file: DataPrepperFile) -> list[Finding]:
    """Return what is to be known of a file, by line."""
    tree = YamlFile(file.path, aliases=False).tree
    found = [each for pipeline in file.pipelines for each in _Lint(file, pipeline, tree).findings()]
    return sorted(found, key=lambda each: (each.line, each.trap))


class _Lint:
    """Looks at one pipeline."""

    def __init__(self, file: DataPrepperFile, pipeline: DataPrepperPipeline, tree: Node) -> None:
        self._file = file
        self._pipeline = pipeline
        self._road = Road(file, pipeline)
        self._buckets = pipeline.source.buckets
        self._makes_jobs_of = [at for at, bucket in enumerate(self._buckets) if bucket.selection == "metadata_only"]
        self._tree = tree

    def findings(self) -> Iterator[Finding]:
        yield from self._routes()
        yield from self._metadata()
        yield from self._rows_that_cannot_be_read()
        yield from self._manifests()
        yield from self._outputs()
        yield from self._roles()
        for number, (keys, sink) in enumerate(self._pipeline.sinks):
            if isinstance(sink, OpenSearchSink):
                yield from self._ids(keys, sink)
                yield from self._vectors(keys, sink)
                yield from self._plain_http(keys, sink)
            yield from self._letters(number)

    def _routes(self) -> Iterator[Finding]:
        """Yield the routes that rows cannot match, where all routes are such."""
        sinks = [sink.routes for _, sink in self._pipeline.sinks]
        processors = [options for _, _, options in self._pipeline.processors]
        if any(not routes or DEFAULT_ROUTE in routes for routes in sinks) or any(map(_makes_any_key, processors)):
            return
        known = _known_keys(self._road)
        before, after = _row(known), self._processed(known)
        found = list[tuple[Keys, list[Key]]]()
        part = "route" if stands_at(self._tree, (*self._pipeline.keys, "route")) else "routes"
        for at, (name, text) in enumerate(self._pipeline.routes):
            if any(name in routes for routes in sinks):
                lacking = lacking_keys(text, lambda key: _has(after, key))
                if not lacking:
                    return
                found.append(((part, at, name), lacking))
        for keys, lacking in found:
            why = ", and ".join(
                f"a processor takes /{'/'.join(key)} out"
                if _has(before, key)
                else f"no processor makes /{'/'.join(key)} and the rows are not known to have it"
                for key in lacking
            )
            text = (
                f"{why}: a row without it matches no route, which the original drops without a word. Here it is "
                f"counted as unrouted and the run says so; mend the condition, or give a sink the route {DEFAULT_ROUTE}"
            )
            yield self._at(1, keys, text)
