"""Vectors by text, in a file that the processes of all local stacks share: each text is computed once."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TEXTS_PER_QUERY = 500
WAIT_S = 30.0


class VectorCache:
    """The vectors in one file, as bytes. A file that SQLite cannot read or write has no vectors and takes none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, texts: Sequence[str]) -> dict[str, bytes]:
        """The vectors of those of the texts that have one."""
        by_key = {_key(text): text for text in texts}
        keys, found = list(by_key), dict[str, bytes]()
        with contextlib.suppress(sqlite3.Error), self._opened() as connection:
            for start in range(0, len(keys), TEXTS_PER_QUERY):
                asked = keys[start : start + TEXTS_PER_QUERY]
                marks = ",".join("?" * len(asked))
                rows = connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", asked)  # noqa: S608 - question marks only
                found.update((by_key[key], vector) for key, vector in rows)
        return found

    def write(self, vectors: Mapping[str, bytes]) -> None:
        """Keep the vectors of texts."""
        rows = [(_key(text), vector) for text, vector in vectors.items()]
        with contextlib.suppress(sqlite3.Error), self._opened() as connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        # Threads share no connection; opening one takes less time than one text.
        with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT_S)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            with connection:
                yield connection


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
