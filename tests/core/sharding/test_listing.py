"""A source is an object, a prefix that ends in a slash, or a glob; it never holds what a run writes."""

from __future__ import annotations

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.estimate import read_listing
from opensearch_batch.core.sharding.listing import NoDocuments, find_documents, list_source
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.triggers.new_objects import NewObjectsTrigger
from tests.core.memory_objects import MemoryObjects

NAMES = ("docs/a.jsonl", "docs/deep/b.jsonl", "docs-old/c.jsonl", "docs-work/p/run/d.jsonl")


@pytest.fixture
def objects() -> MemoryObjects:
    """Objects below prefixes of which one starts with another."""
    made = MemoryObjects()
    for name in NAMES:
        made.write(f"s3://bkt/{name}", b"{}")
    return made


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("docs/", ["docs/a.jsonl", "docs/deep/b.jsonl"]),
        ("docs/a.jsonl", ["docs/a.jsonl"]),
        ("docs/*.jsonl", ["docs/a.jsonl"]),
        ("docs-o*/**", ["docs-old/c.jsonl"]),
        ("docs-**/?.jsonl", ["docs-old/c.jsonl", "docs-work/p/run/d.jsonl"]),
        ("docs/none.jsonl", []),
        ("none/", []),
    ],
)
def test_a_source_names_what_it_reads(objects: MemoryObjects, source: str, found: list[str]) -> None:
    """The listing of a run, the events of a bucket and the estimate of `check` agree."""
    listed = [item.uri.removeprefix("s3://bkt/") for item in list_source(objects, f"s3://bkt/{source}").objects]
    assert listed == found
    trigger = NewObjectsTrigger(uri=f"s3://bkt/{source}", work_prefix="s3://w", pipeline="p")
    assert [name for name in NAMES if trigger._is_in_source(f"s3://bkt/{name}")] == found  # noqa: SLF001 - the trigger's own rule
    lines = "".join(f"2026-11-01 02:00:00 1 {name}\n" for name in NAMES)
    if found:
        counted = read_listing(lines, f"s3://bkt/{source}", include=[], exclude=[])
        assert [item.uri.removeprefix("s3://bkt/") for item in counted] == found


def test_a_prefix_without_its_slash_is_refused_with_it(objects: MemoryObjects) -> None:
    """`docs` is no short form of `docs/`: as a prefix of names it would read `docs-old/` as well."""
    for read in (list_source, lambda store, uri: find_documents(store, Layout("s3://w", "p"), uri)):
        with pytest.raises(ConfigError, match=r"s3://bkt/docs: no such object; .* write s3://bkt/docs/") as error:
            read(objects, "s3://bkt/docs")
        assert not isinstance(error.value, NoDocuments)


@pytest.mark.parametrize(
    ("source", "work"),
    [
        ("s3://bkt/docs**", "s3://bkt/docs-work"),
        ("s3://bkt/*", "s3://bkt/docs-work"),
        ("s3://bkt/docs/", "s3://bkt/docs/"),
        ("s3://bkt/docs/", "s3://bkt/docs/work"),
        ("s3://bkt/docs-work/p/", "s3://bkt/docs-work"),
        ("s3://bkt/docs-work/p/run/d.jsonl", "s3://bkt/docs-work/"),
    ],
)
def test_a_source_that_meets_the_work_prefix_is_refused(objects: MemoryObjects, source: str, work: str) -> None:
    """Or each run would pay for the files of the one before."""
    with pytest.raises(ConfigError, match="overlap; use separate prefixes"):
        find_documents(objects, Layout(work, "p"), source)


def test_a_work_prefix_beside_the_source_is_accepted(objects: MemoryObjects) -> None:
    """Names that start alike are no overlap."""
    found = find_documents(objects, Layout("s3://bkt/docs-work", "p"), "s3://bkt/docs/")
    assert [item.uri for item in found.objects] == ["s3://bkt/docs/a.jsonl", "s3://bkt/docs/deep/b.jsonl"]
