"""The exported data set has the ids and the vectors of the index, and is complete or recognizably incomplete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from opensearch_batch.core.errors import AnswersUnusable, ConfigError
from opensearch_batch.core.ingest.prediction_map import output_paths
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.runs import vector_export
from opensearch_batch.core.runs.prepare_options import scope_of
from opensearch_batch.core.runs.stored_vectors import vector_columns
from opensearch_batch.core.runs.vector_export import INTENT, SUCCESS, Exported, VectorExport
from opensearch_batch.core.sharding.document_ids import DeletedWhen
from opensearch_batch.core.storage.by_uri import LOCAL, Scheme, Stores
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.vector_field import VectorField
from tests.core.whole_runs import INPUTS, VECTOR, Pipeline, vector_of
from tests.stored import present

ROOT = Path(__file__).resolve().parents[3]


def record(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    """A record; the model reads its text only."""
    return {"id": f"d{number}", "text": text or f"text {number}", "more": number, **more}


def export_of(
    pipeline: Pipeline, folder: str, *partitions: str, keeps_digits: bool = False, field: str = "v"
) -> Exported:
    """Export the documents of the source, or of some partitions of it."""
    heads = {scope_of(f"s3://lake/in/{name}", (), ()): pipeline.head(name) for name in partitions or ("",)}
    paths = output_paths(pipeline.request, pipeline.adapter, pipeline.parameters, INPUTS)
    columns = vector_columns(paths, [VectorField(field, VECTOR.dimension)], keeps_digits=keeps_digits)
    stores = Stores({"s3": Scheme(lambda: pipeline.objects), LOCAL: Scheme(LocalFiles)})
    has_routing = pipeline.request.routing is not None
    export = VectorExport(stores, heads, pipeline.layout.predictions(), columns, has_routing=has_routing)
    return export.run("p", "books", folder)


def vectors_in(folder: Path) -> dict[str, list[float]]:
    """Return the vectors of a data set by id, as pyarrow, DuckDB and pandas read them."""
    import duckdb
    import pandas as pd

    table = ds.dataset(folder).to_table()
    ids, vectors = table["id"].to_pylist(), table["v"].to_pylist()
    assert len(set(ids)) == len(ids)
    frame = pd.read_parquet(folder)
    assert frame["id"].tolist() == ids
    assert [list(vector) for vector in frame["v"]] == vectors
    rows = present(duckdb.sql(f"SELECT id, v FROM '{folder}/*.parquet'")).fetchall()  # noqa: S608 - a folder of this test
    assert sorted(rows) == sorted(zip(ids, vectors, strict=True))
    return dict(zip(ids, vectors, strict=True))


def in_index(pipeline: Pipeline) -> dict[str, list[float]]:
    """Return the vectors of the index by id, as 32-bit floats."""
    return {name: np.array(each["v"], np.float32).tolist() for name, each in pipeline.documents.items()}


@pytest.mark.parametrize("service", ["openai", "sagemaker"])
def test_the_export_equals_the_vectors_of_the_index(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after records were changed, removed and copied, in files and lookups of few documents."""
    monkeypatch.setattr(vector_export, "GROUP_ROWS", 2)
    monkeypatch.setattr(vector_export, "FILE_ROWS", 3)
    monkeypatch.setattr(vector_export, "LOOKUP_ROWS", 6)
    pipeline = Pipeline(service, on_removed="delete")
    pipeline.put("a.jsonl", *map(record, range(9)))
    pipeline.put("b.jsonl", *map(record, range(9, 14)), record(20, "text 1"))
    pipeline.run()
    pipeline.put("b.jsonl", record(9, "changed"), *map(record, range(11, 15)), record(20, "text 1"))
    pipeline.run()
    done = export_of(pipeline, f"{tmp_path}/out")
    assert done == Exported(documents=15, files=5)
    assert vectors_in(tmp_path / "out") == in_index(pipeline)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.schema.field("v").type == pa.list_(pa.float32())
    assert set(table["source"].to_pylist()) == {"s3://lake/in/a.jsonl", "s3://lake/in/b.jsonl"}


def test_a_store_that_keeps_all_digits_is_exported_with_them(tmp_path: Path) -> None:
    """Its columns have 64-bit floats."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", *map(record, range(3)))
    pipeline.run()
    export_of(pipeline, f"{tmp_path}/out", keeps_digits=True)
    assert vectors_in(tmp_path / "out") == {name: each["v"] for name, each in pipeline.documents.items()}
    assert ds.dataset(tmp_path / "out").schema.field("v").type == pa.list_(pa.float64())


@pytest.mark.parametrize(("order", "superseded"), [("12", 2), ("21", 0)])
def test_the_newest_scope_of_an_id_is_exported(order: str, superseded: int, tmp_path: Path) -> None:
    """A document that a later partition replaced or deleted is left out; a late write of an earlier one is no row."""
    deleted = DeletedWhen("$.op", "delete")
    pipeline = Pipeline(mode="append", deleted=deleted)
    pipeline.put("dt=1/a.jsonl", *map(record, range(4)))
    pipeline.put("dt=2/a.jsonl", record(1, "newer"), record(2, op="delete"))
    for partition in order:
        pipeline.run(f"dt={partition}/", at_s=float(partition) * 86_400)
    done = export_of(pipeline, f"{tmp_path}/out", "dt=1/", "dt=2/")
    assert done == Exported(documents=3, superseded=superseded, files=1)
    assert vectors_in(tmp_path / "out") == in_index(pipeline)


def test_an_incomplete_export_is_repeated_and_other_files_are_refused(tmp_path: Path) -> None:
    """It lacks `_SUCCESS`; another state of the ledger needs another folder."""
    pipeline, out = Pipeline(), tmp_path / "out"
    pipeline.put("a.jsonl", *map(record, range(3)))
    pipeline.run()
    (segment,) = pipeline.objects.list(f"{pipeline.layout.predictions()}/segments/")
    content = present(pipeline.objects.read(segment.uri)).content
    pipeline.objects.delete(segment.uri)
    with pytest.raises(AnswersUnusable, match="missing"):
        export_of(pipeline, f"{out}/")
    assert {path.name for path in out.iterdir()} == {INTENT}
    pipeline.objects.write(segment.uri, content)
    done = export_of(pipeline, f"{out}/")
    assert done.documents == 3
    part = (out / "part-00000.parquet").read_bytes()
    (out / SUCCESS).unlink()
    assert export_of(pipeline, str(out)) == done == export_of(pipeline, str(out))
    assert (out / "part-00000.parquet").read_bytes() == part
    pipeline.put("b.jsonl", record(3))
    pipeline.run()
    with pytest.raises(ConfigError, match="an earlier state of this one"):
        export_of(pipeline, str(out))
    with pytest.raises(ConfigError, match="there are other files"):
        export_of(pipeline, str(tmp_path))


def test_a_document_without_a_prediction_has_no_vector(tmp_path: Path) -> None:
    """The store has lost it; the export counts such documents."""
    pipeline = Pipeline()
    pipeline.put("a.jsonl", *map(record, range(3)))
    pipeline.run()
    (lost,) = PredictionStore(pipeline.objects, pipeline.layout.predictions()).head().segments
    pipeline.put("b.jsonl", record(3))
    pipeline.run()
    PredictionStore(pipeline.objects, pipeline.layout.predictions()).drop(lost)
    done = export_of(pipeline, f"{tmp_path}/out")
    assert done == Exported(documents=4, without_vector=3, files=1)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table["id"].to_pylist() == [f"d{number}" for number in range(4)]
    assert table["v"].to_pylist() == [None, None, None, in_index(pipeline)["d3"]]


def test_the_lines_of_the_readme_read_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three reads the ids and the vectors of all documents."""
    pipeline = Pipeline()
    pipeline.request = msgspec.structs.replace(
        pipeline.request, field_map={"_id": "$.id", "text": "$.text", "embedding": "prediction"}
    )
    pipeline.put("a.jsonl", *map(record, range(3)))
    pipeline.run()
    export_of(pipeline, f"{tmp_path}/vectors", field="embedding")
    (lines,) = re.findall(r"```python\n(import duckdb.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names, (imports, *reads) = dict[str, Any](), lines.splitlines()
    monkeypatch.chdir(tmp_path)
    exec(imports, names)  # noqa: S102 - the README's own lines
    table, relation, frame = (eval(line, names) for line in reads)  # noqa: S307 - the same
    expected = [(f"d{number}", vector_of(f"text {number}")) for number in range(3)]
    assert list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)) == expected
    assert sorted(relation.fetchall()) == expected
    assert [(name, list(vector)) for name, vector in frame.itertuples(index=False)] == expected
