"""Sources found by name, prefix or glob, and streamed by lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.globs import Glob, is_selected
from opensearch_batch.core.storage.objects import Line, find_objects, lines, split_uri
from opensearch_batch.core.storage.s3 import S3Objects


@given(
    st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_lines_are_those_of_the_file(contents: list[bytes], end: bytes) -> None:
    """Every line comes once, in order, with its number and the byte it starts at, whatever ends it."""
    whole = b"".join(content + end for content in contents)
    found = list(lines(io.BufferedReader(io.BytesIO(whole)), max_line_bytes=30))
    assert [(line.number, line.content) for line in found] == list(enumerate(contents, 1))
    assert all(whole[line.offset :].startswith(line.content + end) for line in found)


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole() -> None:
    """Memory is bounded by the limit, and no line is lost."""
    stream = io.BytesIO(b"a" * 10 + b"\r\n" + b"b" * 3_000_000 + b"\nc")
    cut = Line(2, b"b" * 12, cut=True, offset=12)
    assert list(lines(stream, max_line_bytes=10)) == [Line(1, b"a" * 10), cut, Line(3, b"c", offset=3_000_013)]


def test_lines_that_end_in_cr_are_cut_too() -> None:
    """A file without any line feed is bounded in memory as well."""
    stream = io.BufferedReader(io.BytesIO(b"a\r" + b"b" * 5_000_000 + b"\rc"))
    cut = Line(2, b"b" * 12, cut=True, offset=2)
    assert list(lines(stream, max_line_bytes=10)) == [Line(1, b"a"), cut, Line(3, b"c", offset=5_000_003)]


def test_many_crs_before_a_line_end_make_no_second_line() -> None:
    """A line is never counted twice, whatever its last bytes are."""
    found = list(lines(io.BytesIO(b"ab\r\r\r\rcd\nx"), max_line_bytes=4))
    assert [(line.number, line.cut, line.offset) for line in found] == [(1, True, 0), (2, False, 9)]


class InTwo(io.RawIOBase):
    """A stream that comes in two pieces."""

    def __init__(self, first: bytes, second: bytes) -> None:
        self._pieces = [first, second]

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Give the next piece."""
        piece = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_crlf_that_comes_in_two_pieces_is_one_line_end() -> None:
    """What is seen of a file first may end between CR and LF."""
    stream = io.BufferedReader(InTwo(b"abc\r", b"\ndef\r\n"))
    assert list(lines(stream, max_line_bytes=10)) == [Line(1, b"abc"), Line(2, b"def", offset=5)]


def test_a_byte_order_mark_is_left_alone() -> None:
    """It is no JSON, so the first row is rejected with its reason and not read as another text."""
    assert next(lines(io.BytesIO(b"\xef\xbb\xbf{}\n"), max_line_bytes=10)).content == b"\xef\xbb\xbf{}"


@pytest.mark.parametrize("uri", ["/tmp/x", "http://a/b", "s3://", "bucket/key"])  # noqa: S108 - no file is touched
def test_what_is_no_s3_uri_is_refused(uri: str) -> None:
    """The error says how to write one."""
    with pytest.raises(ConfigError, match="s3://bucket/key"):
        split_uri(uri)


def test_a_source_is_an_object_a_prefix_or_a_glob(store: S3Objects, bucket: str) -> None:
    """In key order, without our own folders; brackets stand for themselves."""
    names = ["out/a.jsonl", "out/b.json", "out/deep/c.jsonl", "out/[d].jsonl", "out/_opensearch_batch/e.jsonl"]
    for name in names:
        store.write(f"s3://{bucket}/{name}", b"x")

    def found(uri: str) -> list[str]:
        return [item.uri.removeprefix(f"s3://{bucket}/out/") for item in find_objects(store, f"s3://{bucket}/{uri}")]

    assert found("out/a.jsonl") == ["a.jsonl"]
    assert found("out/") == ["[d].jsonl", "a.jsonl", "b.json", "deep/c.jsonl"]
    assert found("out/*.jsonl") == ["[d].jsonl", "a.jsonl"]
    assert found("out/**/*.jsonl") == ["[d].jsonl", "a.jsonl", "deep/c.jsonl"]
    assert found("out/?.json") == ["b.json"]
    assert found("out/[d].jsonl") == ["[d].jsonl"]
    assert found("out/[d]*") == ["[d].jsonl"]
    assert found("out/_opensearch_batch/") == ["_opensearch_batch/e.jsonl"]


@pytest.mark.parametrize(
    ("glob", "matched"),
    [
        ("*.jsonl", ["a.jsonl", "deep/c.jsonl", "deep/er/[d].jsonl"]),
        ("[d].jsonl", ["deep/er/[d].jsonl"]),
        ("deep/*.jsonl", ["deep/c.jsonl"]),
        ("deep/**", ["deep/c.jsonl", "deep/er/[d].jsonl"]),
        ("deep/**/*.jsonl", ["deep/c.jsonl", "deep/er/[d].jsonl"]),
        ("?.json*", ["a.jsonl", "b.json", "deep/c.jsonl"]),
        ("deep", []),
    ],
)
def test_include_and_exclude_are_the_globs_of_sources(glob: str, matched: list[str]) -> None:
    """One without a slash matches in every folder; what one includes, the other excludes."""
    names = ["a.jsonl", "b.json", "deep/c.jsonl", "deep/er/[d].jsonl"]
    assert [name for name in names if is_selected(name, [glob], [])] == matched
    assert [name for name in names if not is_selected(name, [], [glob])] == matched


def test_a_glob_of_many_stars_is_matched_in_one_pass() -> None:
    """A matcher that goes back would try all ways to divide the name among the stars, for hours."""
    assert not is_selected("a" * 200, ["*a" * 50 + "b"], [])
    assert not is_selected("a/" * 100, ["**a" * 50 + "b"], [])
    assert is_selected("a/" * 100 + "b", ["**/" * 50 + "*b"], [])
    with pytest.raises(ConfigError, match="a glob has at most 1024 characters"):
        is_selected("a", ["*" * 2000], [])


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("**a*b", "a/ab", True),
        ("**a*b", "a/a/b", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/xb", False),
        ("**", "", True),
        ("a?c", "a/c", False),
    ],
)
def test_stars_of_two_kinds(glob: str, name: str, matches: bool) -> None:  # noqa: FBT001 - pytest gives it
    """`**` may have to take more than the shortest name that fits."""
    assert Glob(glob).matches(name) is matches


def test_a_source_that_is_not_there_is_named_with_its_nearest(store: S3Objects, bucket: str) -> None:
    """A typing error shows at once, before anything is written."""
    store.write(f"s3://{bucket}/out/part-1.jsonl", b"x")
    with pytest.raises(ConfigError, match=r"part-2.jsonl: no such object. Did you mean 'part-1.jsonl'\?"):
        find_objects(store, f"s3://{bucket}/out/part-2.jsonl")
    for uri in ("none/", "out/*.csv"):
        with pytest.raises(ConfigError, match="no objects match"):
            find_objects(store, f"s3://{bucket}/{uri}")
