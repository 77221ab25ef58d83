"""A key's input and its vector become one document: rows in any order cost little more than rows in the same order.

``python -m benchmarks.join --rows 1000000`` makes its files below the temp folder (17 GB) and removes them. Each case
runs in a process of its own, so that its peak of memory is its own; ``--rivals`` adds other ways to keep what waits.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from opensearch_batch.core.formats.json_text import check_text
from opensearch_batch.core.ingest.join import Group, Stream, join
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, lines
from opensearch_batch.core.transform.field_map import document_id
from opensearch_batch.core.types.rows import KeyedRow, Row

ROWS, DIMENSION, WORDS, VECTORS = 100_000, 384, 60, 256
INPUT_BYTES, VECTOR_BYTES = 420, 8_200
MAX_ROW_BYTES = 1 << 20
CASES = {  # name: the two files; the case it is measured against
    "inputs and vectors, same order": ("inputs", "vectors", ""),
    "inputs and vectors, shuffled": ("inputs-shuffled", "vectors", "inputs and vectors, same order"),
    "vectors and vectors, same order": ("vectors", "vectors", ""),
    "vectors and vectors, shuffled": ("vectors-shuffled", "vectors", "vectors and vectors, same order"),
}


class Result(msgspec.Struct, frozen=True):
    """One case: wall seconds, peak of resident memory, what it is measured against (0: nothing), bytes made."""

    name: str
    seconds: float
    peak_mb: float
    made_bytes: int
    rival_seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times longer than its rival; 0 without one."""
        return self.seconds / self.rival_seconds if self.rival_seconds else 0.0


class _Key(msgspec.Struct):
    id: msgspec.Raw


_decode = msgspec.json.Decoder(_Key).decode


def key_of(content: bytes) -> str:
    """Return the key of a row, read as the field map reads an id."""
    return document_id(bytes(_decode(check_text(content)).id))


def keyed(path: Path, source: int) -> Iterator[KeyedRow]:
    """Yield the rows of a file with their keys."""
    offset = 0
    with path.open("rb", buffering=READ_BUFFER_BYTES) as file:
        for line in lines(file, max_line_bytes=MAX_ROW_BYTES):
            yield KeyedRow(key_of(line.content), Row(source, path.name, line.number, offset, line.content))
            offset += len(line.content) + 1


def ours(paths: list[Path], folder: Path) -> int:
    """Join by `core.join`; return the bytes of all documents."""
    streams: list[Stream[Group]] = [
        Stream(keyed(path, source), path.stat().st_size) for source, path in enumerate(paths)
    ]
    size = 0
    for group in join(streams, folder=folder):
        size += len(b"".join([row.row.content for row in group.rows]))
    return size


def sqlite_index(paths: list[Path], folder: Path) -> int:
    """Join by raw lines in a file and an index in SQLite; it is told what to store, and knows no key twice."""
    import sqlite3

    index = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    index.executescript("pragma journal_mode=off; pragma synchronous=off; pragma cache_size=-64000; begin")
    index.execute("create table place (key text primary key, at integer, size integer) without rowid")
    with (folder / "stored").open("w+b", buffering=READ_BUFFER_BYTES) as stored:
        for row, at in _store(keyed(paths[0], 0), stored):
            index.execute("insert into place values (?, ?, ?)", (row.key, at, len(row.row.content)))
        size = 0
        for row in keyed(paths[1], 1):
            at, length = index.execute("select at, size from place where key = ?", (row.key,)).fetchone()
            size += len(b"".join([os.pread(stored.fileno(), length, at), row.row.content]))
    index.close()
    return size


def hash_arrays(paths: list[Path], folder: Path) -> int:
    """The same by sorted arrays of 64-bit hashes; the key is verified on the line."""
    import numpy as np

    hashes, places = array("Q"), array("Q")
    with (folder / "stored").open("w+b", buffering=READ_BUFFER_BYTES) as stored:
        for row, at in _store(keyed(paths[0], 0), stored):
            hashes.append(_hash(row.key))
            places.append(at)
        places.append(stored.tell())
        known, starts = np.frombuffer(hashes, np.uint64), np.frombuffer(places, np.uint64)
        order = np.argsort(known)
        known, starts, ends = known[order], starts[:-1][order], starts[1:][order]
        size, rows = 0, keyed(paths[1], 1)
        while batch := list(itertools.islice(rows, 512)):
            found = np.searchsorted(known, np.array([_hash(row.key) for row in batch], np.uint64))
            for row, at, end in zip(batch, starts[found].tolist(), ends[found].tolist(), strict=True):
                content = os.pread(stored.fileno(), end - at, at)
                if key_of(content) == row.key:
                    size += len(b"".join([content, row.row.content]))
    return size


def duckdb_join(paths: list[Path], folder: Path) -> int:
    """Join by DuckDB, which reads the files and finds the keys itself."""
    duckdb: Any = importlib.import_module("duckdb")
    lines_of = "select line, line->>'$.id' as key from read_csv({!r}, columns={{'line': 'VARCHAR'}}, {})"
    options = "delim='\\x01', quote='', escape='', header=false, auto_detect=false, max_line_size=65536"
    left, right = (lines_of.format(str(path), options) for path in paths)
    # With 600 MB, with two threads, or in the order of insertion, it runs out of memory.
    limits = {"memory_limit": "1GB", "threads": "1", "preserve_insertion_order": "false"}
    connection = duckdb.connect(config={**limits, "temp_directory": str(folder / "duckdb")})
    joined = connection.execute(f"select l.line, r.line from ({left}) l full join ({right}) r using (key)")  # noqa: S608 - our own files
    size = 0
    while rows := joined.fetchmany(500):
        size += sum(len(one) + len(other) for one, other in rows)
    return size


def _store(rows: Iterable[KeyedRow], stored: BinaryIO) -> Iterator[tuple[KeyedRow, int]]:
    """Append rows to a file; yield each with its place."""
    at = 0
    for row in rows:
        stored.write(row.row.content)
        yield row, at
        at += len(row.row.content)
    stored.flush()


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


RIVALS: dict[str, Callable[[list[Path], Path], int]] = {
    "SQLite index": sqlite_index,
    "sorted hash arrays": hash_arrays,
    "DuckDB": duckdb_join,
}


def write_files(folder: Path, rows: int, names: Iterable[str]) -> None:
    """Write the files that are named; the same ones each time."""
    source = random.Random(7)  # noqa: S311 - test data
    words = ["".join(source.choices("abcdefghijklmnop", k=5)) for _ in range(500)]
    texts = [" ".join(source.choices(words, k=WORDS)) for _ in range(VECTORS)]
    vectors = [str([source.gauss(0, 0.05) for _ in range(DIMENSION)]) for _ in range(VECTORS)]
    shuffled = list(range(rows))
    source.shuffle(shuffled)
    for name in names:
        member, values = ("embedding", vectors) if name.startswith("vectors") else ("text", [f'"{t}"' for t in texts])
        with (folder / name).open("wb", buffering=READ_BUFFER_BYTES) as file:
            for number in shuffled if name.endswith("shuffled") else range(rows):
                row = f'{{"id":"record-{number:09}","{member}":{values[number % VECTORS]}}}\n'
                file.write(row.encode())


def measure(how: str, paths: list[Path], folder: Path) -> Result:
    """Join two files in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.join", "--how", how, "--folder", str(folder), *map(str, paths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this very module
    return msgspec.json.decode(done.stdout, type=Result)


def run(rows: int = ROWS, *, rivals: bool = False) -> list[Result]:
    """Measure all cases, and the rivals on the shuffled inputs."""
    with tempfile.TemporaryDirectory(prefix="join-benchmark-") as name:
        folder = Path(name)
        _check_room(folder, rows)
        write_files(folder, rows, dict.fromkeys(file for left, right, _ in CASES.values() for file in (left, right)))
        results: dict[str, Result] = {}
        for case, (left, right, rival) in CASES.items():
            result = measure("ours", [folder / left, folder / right], folder)
            rival_seconds = results[rival].seconds if rival else 0.0
            results[case] = msgspec.structs.replace(result, name=case, rival_seconds=rival_seconds)
        shuffled = results["inputs and vectors, shuffled"]
        for rival in RIVALS if rivals else ():
            result = measure(rival, [folder / "inputs-shuffled", folder / "vectors"], folder)
            results[rival] = msgspec.structs.replace(
                result, name=f"{shuffled.name}: {rival}", rival_seconds=shuffled.seconds
            )
    return list(results.values())


def _check_room(folder: Path, rows: int) -> None:
    needed = rows * (2 * INPUT_BYTES + 3 * VECTOR_BYTES)
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{folder}: {needed >> 20} MB are needed, {free >> 20} MB are free; give another TMPDIR or fewer --rows"
        )


def _measured(how: str, paths: list[Path], folder: Path) -> Result:
    """Join in this process."""
    ways = {"ours": ours, **RIVALS}
    started = time.perf_counter()
    size = ways[how](paths, folder)
    seconds = time.perf_counter() - started
    return Result(how, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size)


def main() -> None:
    """Measure one case for another process, or all of them as a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.join")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rivals", action="store_true", help="needs duckdb beside the requirements")
    parser.add_argument("--how", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.how:
        print(msgspec.json.encode(_measured(given.how, given.paths, given.folder)).decode())
        return
    for result in run(given.rows, rivals=given.rivals):
        ratio = f"{result.ratio:.2f} x" if result.ratio else ""
        print(f"{result.name:<55} {result.seconds:7.1f} s {result.peak_mb:6.0f} MB {ratio:>8} {result.made_bytes}")


if __name__ == "__main__":
    main()
