"""`make incremental` on the lab's stack: the second run pays for and writes what changed."""

from __future__ import annotations

import io
import re

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.command_line import account, command
from tests.lab import Lab


@pytest.mark.slow
def test_the_incremental_demo_pays_and_writes_what_changed(lab: Lab) -> None:
    """8 records are paid for, 8 documents written and 2 deleted; put back and changed again, nothing is paid for."""
    shown = lab.run("incremental")
    assert (
        "8 records paid for (texts that SageMaker computed), 10 index operations: 8 documents written, 2 deleted"
        in shown
    )
    assert re.search(r"^3 +5 +0 +393 +2 +0 *$", shown, re.MULTILINE), shown
    assert "4 of 20 objects were read, with 401 records" in shown
    before, now = re.findall(r"^  (?:before|now) +[\d.]+  (.*)$", shown, re.MULTILINE)
    assert before != now
    assert now.startswith("scheduler:")
    again = lab.run("incremental")
    assert again.count("0 records paid for") == 2
    assert again.count("10 index operations: 8 documents written, 2 deleted") == 1
    assert lab.node("GET", "passages-incremental/_count")["count"] == 2001
    assert_export_equals_index(lab)


def assert_export_equals_index(lab: Lab) -> None:
    """Export the vectors to a folder of S3, and compare all of them with the index."""
    location = f"s3://{lab.new_bucket()}/vectors/"
    addresses = ("--s3-endpoint", lab.stack.addresses.s3, "--opensearch-url", lab.stack.addresses.opensearch)
    done = command(
        *("predictions", "export", "passages_incremental", "--to", location, *addresses, "--json"),
        AWS_ACCESS_KEY_ID=lab.stack.credentials.access_key,
        AWS_SECRET_ACCESS_KEY=lab.stack.credentials.secret_key,
        AWS_DEFAULT_REGION="us-east-1",
    )
    exported = account(done.stdout)
    assert (done.returncode, exported["documents"], exported["columns"]) == (0, 2001, ["embedding"]), exported
    parts = [stored.content for item in lab.objects.list(f"{location}part-") if (stored := lab.objects.read(item.uri))]
    table = pa.concat_tables([parquet.read_table(io.BytesIO(part)) for part in parts])
    vectors = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    hits = lab.node("POST", "passages-incremental/_search", {"size": 10_000, "_source": ["embedding"]})["hits"]["hits"]
    assert len(hits) == 2001
    assert vectors == {hit["_id"]: np.array(hit["_source"]["embedding"], np.float32).tolist() for hit in hits}
