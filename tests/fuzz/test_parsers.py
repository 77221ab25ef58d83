"""Whatever a parser is given, it ends, and raises nothing but the errors of this package.

`make test` tries a few hundred examples of each property; `make fuzz` tries new ones for a minute each.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.formats.parquet import ConvertedParquet, Parquet
from opensearch_batch.core.ingest.account import REPLAY_FILE, ReplayRequest
from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.storage.dead_letters import DeadLetter, JoinedRow, count_letters
from opensearch_batch.core.transform.field_map import FieldMap, Part
from opensearch_batch.core.transform.json_path import PlainPath, RowReader
from opensearch_batch.core.types.rows import ROW_LIMIT
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE

ROOT = Path(__file__).parents[2]
NAMES = st.sampled_from(["a", "b", "c d", "é", "", "a.b", "$", "*"])
NUMBERS = st.one_of(
    st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([10**30, -(10**399)])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(["", "a", "1", "\ud800", "\x00", "é"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


def text_of(value: object) -> bytes:
    """Return the JSON text of a value."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, contents: Iterable[bytes], *, parts: Sequence[bytes]) -> bytes:
    """Return one of some contents with pieces cut out, repeated or put in."""
    content = draw(st.sampled_from(list(contents)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        piece = draw(st.one_of(st.sampled_from(parts), st.binary(max_size=8), st.just(content[start:end] * 2)))
        content = content[:start] + piece + content[end:]
    return content


PATHS = st.one_of(
    st.sampled_from(["$", "$.a", "a", "$.a[0].b", "$['c d'].a", "$.a[*]", "$..a", "$.a[?(@.b==1)].a", "$.a.length()"]),
    st.lists(
        st.sampled_from(
            [
                *("$", ".", "..", "a", "b", "*", "[", "]", "[*]", "[0]", "[-1]", "[1:2]", "[::0]", "[", "'a'", '"b"'),
                *("?", "(", ")", "@", "@.a", "==", "<", ">=", "&", "|", "+", "-", "/", "1", "1.5", "9" * 400, ",", ":"),
                *("[?(@.a==1)]", "[?(@.a<'x')]", "[?(@.b)]", "[/a]", "[\\a]", "`this`", "`parent`", "`len`", "`keys`"),
                *("`sorted`", "`str()`", "`split(a, 0, 1)`", "`sub(/a/, b)`", "`", "\\", "\x00", "é", " ", "\n", "#"),
                *(".length()", ".size()", ".min()", ".max()", ".sum()", ".avg()", "source[0].", "source[9]"),
            ]
        ),
        min_size=1,
        max_size=7,
    ).map("".join),
    st.text(max_size=8),
)
ROWS = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=4).map(text_of),
    VALUES.map(text_of),
    damaged(
        [b'{"a":[{"b":1.50,"a":"x"},{"b":2}],"c d":{"a":null}}'], parts=[b"\xff", b"{", b"]", b"1e999", b'"', b"["]
    ),
    st.sampled_from([b"[" * 5000, b'{"a":' * 5000, b'{"a":[%b]}' % (b"9" * 5000), b'{"a":[1e999,"x",null]}']),
)


@given(PATHS, ROWS)
@example("$", b"[" * 5000)
@example("$.a.max()", b'{"a":[%b]}' % (b"9" * 400))
@example("$.a[*]", b'{"a":[%b]}' % (b"9" * 5000))
def test_paths(path: str, row: bytes) -> None:
    """A path is refused when it is compiled, or a row when it is read."""
    with suppress(BatchError):
        PlainPath.parse(path).reader()(row)
    with suppress(BatchError):
        RowReader([("field_map.a", path), ("field_map.b", "$.a[0].b")]).values(row)


MAPPED = st.one_of(PATHS, st.lists(PATHS, max_size=3), PATHS.map(lambda path: f"source[1].{path}"), VALUES)


@given(
    st.dictionaries(st.one_of(NAMES, st.just("_id")), MAPPED, max_size=3),
    st.lists(st.none() | PATHS, max_size=2),
    st.integers(1, 2),
    st.none() | PATHS,
    st.lists(ROWS, min_size=2, max_size=2),
)
def test_field_maps(
    field_map: dict[str, Any], ingest_fields: list[str | None], sources: int, routing: str | None, rows: list[bytes]
) -> None:
    """A map is refused when it is compiled, or a row when it is read or mapped."""
    with suppress(BatchError):
        compiled = FieldMap(field_map, ingest_fields, sources=sources, vectors=[VectorField("a", 2)], routing=routing)
        parts = []
        for source, row in enumerate(rows[:sources]):
            values = compiled.read(source, row)
            compiled.key(source, values)
            parts.append(Part(source, values))
        compiled.document(parts)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one of its parts replaced."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: changed(draw, value[name])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], changed(draw, value[at]), *value[at + 1 :]]
    return draw(st.one_of(VALUES, PATHS))


FULL: dict[str, Any] = {
    **DOCUMENTED_SINGLE,
    "credential": {"region": "us-east-1", "access_key": "a", "secret_key": "s"},
    "on_missing": {"title": "omit"},
    "index_body": {"mappings": {"properties": {"title": {"type": "text"}}}},
    "load": {"refresh_interval": "-1", "number_of_replicas": 0},
    "routing": "$.id",
    "max_in_flight": 2,
    "max_body_bytes": 100,
}


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Return a documented request with some of its parts replaced."""
    body: dict[str, Any] = draw(st.sampled_from([DOCUMENTED_SINGLE, DOCUMENTED_MULTIPLE, FULL]))
    for _ in range(draw(st.integers(1, 3))):
        body = {**body, **draw(st.dictionaries(st.sampled_from(sorted(FULL)), VALUES, max_size=1))}
        name = draw(st.sampled_from(sorted(body)))
        body[name] = changed(draw, body[name])
    return body


@given(bodies() | st.dictionaries(NAMES, VALUES, max_size=3))
def test_requests(body: dict[str, Any]) -> None:
    """A request is refused, whether it is an object or its text."""
    with suppress(BatchError):
        parse_request(body)
    with suppress(BatchError):
        parse_request(text_of(body))


@given(
    st.binary(max_size=60) | damaged([json.dumps(FULL).encode()], parts=[b"\xff", b"[" * 3000, b"{", b'"', b"\\ud800"])
)
@example(b"\xff")
@example(b"[" * 5000)
def test_request_texts(content: bytes) -> None:
    """A text that is no request is refused."""
    with suppress(BatchError):
        parse_request(content, "request.json")


YAML_PARTS = [
    *(b"{", b"[", b"}", b"]", b"- ", b": ", b"&a ", b"*a", b"<<: *a", b"? ", b"|", b">", b"'", b'"', b"\t", b"\x00"),
    *(b"#", b"%YAML 9", b"---\n", b"...\n", b"!!binary x", b"!!python/object:a.b {}", b"!x ", b"1e999", b"9" * 5000),
    *(b"2024-13-45", b"0x", b"0o9", b"1:99:99", b".inf", b".nan", b"~", b"null", b"\xff", b"\xef\xbb\xbf", b"\n\n"),
    *(b"[" * 3000, b"- " * 300, b"$.a[?(", b"=", b"\r", b"  ", b"!!set {a}", b"!!timestamp x", b"!!int x", b"@a", b"`"),
]
PIPELINES = [path.read_bytes() for path in sorted((ROOT / "include/pipelines").glob("passages*.yaml"))]
SAMPLES = [path.read_bytes() for path in sorted((ROOT / "include/samples/data_prepper").glob("*.yaml"))]


@given(damaged(PIPELINES, parts=YAML_PARTS))
@example(b"source: !!timestamp x\n")
def test_pipeline_files(content: bytes) -> None:
    """A file is refused with its name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "books.yaml"
        path.write_bytes(content)
        try:
            PipelineFile(path, adapter_of)
        except BatchError as error:
            assert str(error).startswith(f"{path}:")  # noqa: PT017 - a file without a mistake is no error


@given(damaged(SAMPLES, parts=YAML_PARTS))
def test_data_prepper_files(content: bytes) -> None:
    """A file is refused with its name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "books.yaml"
        path.write_bytes(content)
        try:
            DataPrepperFile(path)
        except BatchError as error:
            assert str(error).startswith(f"{path}:")  # noqa: PT017 - a file without a mistake is no error


def _parquet(columns: dict[str, pa.Array], **options: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file, **options)
    return file.getvalue()


TABLES = [
    _parquet({"a": pa.array([1, None]), "b": pa.array(["x", "é"]), "v": pa.array([[0.5], None])}),
    _parquet({"t": pa.array([10**18, -1], pa.timestamp("ns")), "d": pa.array([0, 1], pa.date32())}, compression="none"),
    _parquet({"m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())), "x": pa.array([b"\xff", b""])}),
]


@given(damaged(TABLES, parts=[b"PAR1", b"\xff\xff\xff\x7f", b"\x00", b"\x80" * 9]), st.booleans())
def test_parquet(content: bytes, as_stored: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """A damaged file is refused, and rows that are no JSON are rejected."""
    with suppress(BatchError):
        list((Parquet if as_stored else ConvertedParquet)().read(io.BytesIO(content), 0, "s3://d/a.parquet", ROW_LIMIT))


class Taking(Cluster):
    """A cluster of one index that takes everything."""

    def __init__(self) -> None:
        self.name = "taking"

    def index(self, name: str) -> Index:
        """Find it."""
        return Index(name, "uuid")

    def refresh(self, index: str) -> None:
        """Do nothing."""

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:  # noqa: ARG002 - as the original
        """Take a bulk body; each action and each document is one line, as the index reads it."""
        lines = body.removesuffix(b"\n").split(b"\n")
        actions = [json.loads(line) for line in lines[::2]]
        assert all(isinstance(json.loads(line), dict) for line in lines[1::2])
        return {"errors": False, "items": [{next(iter(each)): {"status": 200}} for each in actions]}


LETTERS = [
    msgspec.json.encode(letter) + b"\n"
    for letter in (
        DeadLetter("ingest", "no", "s3://d/a", 1, '{"id":"1","a":2}'),
        DeadLetter("ingest", "no", "s3://d/a", 1, None, "/w==", joined=[JoinedRow(1, "s3://d/b", 2, 0, '{"id":"1"}')]),
        DeadLetter("prepare", "no", "s3://d/a", 3, '{"id":"1"}', source_number=7, late=True),
    )
]


@given(
    damaged(LETTERS, parts=[b"\xff", b"{", b"}", b'"', b"9" * 30, b"null", b"\n", b"-1", b"\\ud800", b"[" * 3000]),
    st.sampled_from(["$.id", "$.a[*]"]),
)
@example(b'"x"\n', "$.id")
@example(LETTERS[0].replace(b"}", b',"number":7}'), "$.id")
@example(LETTERS[0].replace(b'"record"', b'"record_base64"'), "$.id")
@example(LETTERS[0].replace(b'\\"a\\":2', b'\\"a\\":[1,\\n2]'), "$.id")
@example(LETTERS[0].replace(b'"reason"', b'"late":true,"reason"'), "$.id")
def test_dead_letter_files(content: bytes, path: str) -> None:
    """A letter that a person edited wrongly is refused or stays; none ends a replay otherwise."""
    objects, queue = MemoryObjects(), "s3://w/dead/"
    objects.write(f"{queue}00001.jsonl", content)
    request = ReplayRequest(["a"], IngestRequest("i", {"a": "$.a", "_id": path}))
    objects.write(f"{queue}{REPLAY_FILE}", msgspec.json.encode(request))
    with suppress(BatchError):
        count_letters(objects, queue)
    with suppress(BatchError):
        replay(queue, objects, Taking())
