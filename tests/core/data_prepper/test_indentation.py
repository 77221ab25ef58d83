"""What is indented wrongly, or is a text where a list is wanted, is told with what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from tests.core.data_prepper.data_prepper_files import SHORT, line_of, read, with_options

BUCKET = "          - bucket:\n              # bucket\n              name: documents\n"
SINK = "    - opensearch:\n        # opensearch\n        hosts: [https://localhost:9200]\n        index: passages\n"
NO_OPTION = "unknown key here"
ENDS = "the block starts on line"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  sink:\n",
            "    - copy_values:\n      entries: [{from_key: a, to_key: b}]\n      copy_when: /a\n  sink:\n",
            "33 books.processor[2].entries: 'entries' is at the same level as copy_values; indent it below copy_values",
        ),
        (
            SINK,
            "    - hosts: [https://localhost:9200]\n      opensearch:\n      index: passages\n",
            "33 books.sink[0].hosts: 'hosts' is at the same level as opensearch; indent it below opensearch",
        ),
        (
            "  sink:\n",
            "    - delete_entries: {with_keys: [a]}\n      drop_events: {}\n  sink:\n",
            "33 books.processor[2].drop_events: 'drop_events' is in the list item of delete_entries; write a hyphen",
        ),
        ("  sink:\n", "    - drop_events\n  sink:\n", "expected one processor with its options, like drop_events: {}"),
        (
            "      aws: {region: us-east-1}\n  processor",
            "      aws:\n      region: us-east-1\n  processor",
            f"16 books.source.s3.region: {NO_OPTION}; indent it below aws",
        ),
        (
            "        index: passages\n",
            "        index: passages\n        aws:\n        region: us-east-1\n",
            f"38 books.sink[0].opensearch.region: {NO_OPTION}; indent it below aws",
        ),
        (
            "        index: passages\n",
            "        index: passages\n        region: us-east-1\n",
            f"37 books.sink[0].opensearch.region: {NO_OPTION}; write it below aws",
        ),
        (
            BUCKET,
            "          - name: documents\n",
            f"12 books.source.s3.scan.buckets[0].name: {NO_OPTION}; write it below bucket",
        ),
        (
            BUCKET,
            "          - bucket:\n            name: documents\n",
            f"13 books.source.s3.scan.buckets[0].name: {NO_OPTION}; indent it below bucket",
        ),
        (
            "      codec: {ndjson: {}}\n      scan",
            "      codec:\n      ndjson: {}\n      scan",
            f"9 books.source.s3.ndjson: {NO_OPTION}; indent it below codec",
        ),
        (
            "  sink:\n",
            "    - copy_values: {from_key: a, to_key: b}\n  sink:\n",
            f"32 books.processor[2].copy_values.from_key: {NO_OPTION}; write it below entries, in a list item (- )",
        ),
        ("    - ml_inference:\n", "    ml_inference:\n", f"23 not valid YAML: did not find expected key; {ENDS} 17"),
        ("    - s3_enrich:\n", "    s3_enrich:\n", f"{ENDS} 17: check its hyphens, indentation and quotes"),
        ("output_path: s3", "output_path: 's3", f"{ENDS} 21: check its"),
    ],
)
def test_what_stands_in_a_wrong_column_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    """With its own line, and where it belongs."""
    assert old in SHORT
    with pytest.raises(ConfigError, match=f"(?s)^{re.escape(f'{tmp_path}/books.yaml:')}.*{re.escape(message)}"):
        read(tmp_path, SHORT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("place", "options", "below", "message"),
    [
        ("opensearch", "routes: has-text", 0, "routes: Expected `array`, got `str`; write routes: [has-text]"),
        ("opensearch", "include_keys: a b, 1,", 0, 'write include_keys: ["a b", "1"]'),
        ("opensearch", "hosts: https://me:hidden@h", 0, 'write hosts: ["https://localhost:9200"]'),
        ("bucket", "name: documents\nfilter: {include_prefix: in/}", 1, "write include_prefix: [in/]"),
        ("source", "codec: {csv: {header: 'a,b'}}", 0, "write header: [a, b]"),
        ("source", "acknowledgments: 'yes'", 0, "Expected `bool`, got `str`: 'yes'; write true"),
        ("opensearch", "insecure: 'Off'", 0, "'Off'; write false"),
        ("opensearch", "insecure: perhaps", 0, "'perhaps'; write true or false"),
    ],
)
def test_a_text_in_place_of_something_else_is_told(
    tmp_path: Path, place: str, options: str, below: int, message: str
) -> None:
    """With the line as it should be; a password that may stand in it is not shown."""
    start = f"{tmp_path}/books.yaml:{line_of(place) + below} "
    with pytest.raises(ConfigError, match=f"(?s)^{re.escape(start)}.*{re.escape(message)}$") as found:
        read(tmp_path, with_options(place, options))
    assert "hidden" not in str(found.value)
